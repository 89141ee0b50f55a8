"""Exact top-k by the weighted distance: time per query on one thread, against FAISS's flat L2 and a matrix product.

The rows are drawn like those of an index (`--index`), around its rows with half their class's spread, or else around
made-up classes; they lie in as many files, each with clusters of its own, as the index job writes. FAISS ranks by the
plain distance, which is another answer; it is here for the time that reading every row takes. `identical` compares
with the weighted distance to every row, in float64.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.indexing.publishing import FEATURES_PER_FILE
from rsir_core.arrays import Floats
from rsir_core.search.clusters import Clusters, make_clusters
from rsir_core.search.distance import classes, complements, distances, query_weights
from rsir_core.search.exact import Searcher
from rsir_core.search.kernel import ClusterTree, candidates
from tests.support.drawn_rows import CLASSES, DIMENSIONS, drawn, made_up, rows_of

Query = tuple[Floats, Floats]

TURNS: Final = 10


class Rows:
    """n rows in the order of their clusters, and what searches them."""

    def __init__(self, feature: Floats, p: Floats) -> None:
        began = time.perf_counter()
        by_class = np.argsort(classes(p), kind="stable")
        feature, p = feature[by_class], p[by_class]
        complement, parts = np.empty(p.shape[::-1], np.float32), []
        for start in range(0, len(feature), FEATURES_PER_FILE):
            here = slice(start, start + FEATURES_PER_FILE)
            own = complements(p[here])
            order, clusters = make_clusters(feature[here], classes(p[here]), own)
            feature[here], p[here], complement[:, here] = feature[here][order], p[here][order], own[order].T
            parts.append(clusters)
        self.feature, self.p, self.complement, self.clusters = feature, p, complement, Clusters.join(parts)
        self.clustering = time.perf_counter() - began
        self.of_class, self.squares = classes(p), (feature**2).sum(axis=1)
        ids = pa.chunked_array([pa.array([f"{i:09}" for i in range(len(feature))])])
        self.searcher = Searcher(ids, feature, complement, self.clusters)
        self._tree = ClusterTree.of(self.clusters, feature, complement, self.clusters.from_centres(feature))

    def looked_at(self, query: Query, k: int, allowed: npt.NDArray[np.bool_] | None, least_weight: float) -> int:
        """Rows whose distance a search computes."""
        asked = query[0], complements(query[1][None])[0], int(query[1].argmax())
        return candidates(self._tree, asked, k, allowed, least_weight)[1]

    def matrix_product(self, query: Query, k: int, least_weight: float) -> npt.NDArray[np.int64]:
        """The best rows by what a NumPy user would write, in no order."""
        f, p = query
        near = np.sqrt(np.maximum(self.squares - 2 * (self.feature @ f) + f @ f, 0))
        weights = self.complement[p.argmax()], complements(p[None])[0][self.of_class]
        weighted = near * np.maximum(weights[0], least_weight) * np.maximum(weights[1], least_weight)
        return np.argpartition(weighted, min(k, len(weighted)) - 1)[:k]

    def brute_force(
        self, query: Query, k: int, allowed: npt.NDArray[np.bool_] | None, least_weight: float = 0
    ) -> npt.NDArray[np.int64]:
        """The best rows by looking at each, in float64; ids are in the order of the rows."""
        weighted = np.maximum(query_weights(complements(query[1][None]), self.of_class)[0], least_weight)
        weighted *= np.maximum(self.complement[query[1].argmax()].astype(np.float64), least_weight)
        weighted *= distances(query[0][None], self.feature)[0]
        order = np.argsort(weighted, kind="stable")
        return order[:k] if allowed is None else order[allowed[order]][:k]


def milliseconds(search: Callable[[Query], Any], queries: Sequence[Query]) -> list[float]:
    """Of each query."""
    times = []
    for query in queries:
        began = time.perf_counter()
        search(query)
        times.append(1000 * (time.perf_counter() - began))
    return times


def asking(
    searcher: Searcher, k: int, allowed: npt.NDArray[np.bool_] | None = None, least_weight: float = 0
) -> Callable[[Query], npt.NDArray[np.int64]]:
    """What gives the best rows for a query."""
    return lambda query: searcher.search(*query, k, allowed, least_weight=least_weight).rows


class Options(NamedTuple):
    """One row of the table."""

    rows: int = 1_000_000
    queries: int = 200
    k: int = 50
    dimensions: int = DIMENSIONS
    classes: int = CLASSES
    probabilities: str = "real"
    passing: float | None = None
    least_weight: float = 0


def grid(base: Options) -> list[Options]:
    """Each thing that is varied, from the base and from the widest rows; those on the same rows follow each other."""
    shapes = [(19, 21), (64, 21), (19, 365), (64, 365)]
    found = [base._replace(dimensions=d, classes=c) for d, c in shapes]
    for shape in (found[0], found[-1]):
        at = found.index(shape) + 1
        found[at:at] = [*(shape._replace(k=k) for k in (10, 1_000, 10_000)), shape._replace(passing=0.01)]
    return [*found, base._replace(probabilities="uniform")]


def exact(index: str) -> dict[str, Any]:
    """Whether all rows of an index, and rows near them, find what looking at each row finds."""
    feature, p = rows_of(index)
    rows, rng = Rows(feature.copy(), p.copy()), np.random.default_rng(0)
    near = drawn((feature, p), len(feature), False, rng)
    queries: list[Query] = [*zip(feature, p, strict=True), *zip(*near, strict=True)]
    wrong = {
        k: sum(not np.array_equal(asking(rows.searcher, k)(q), rows.brute_force(q, k, None)) for q in queries)
        for k in (1, 50, len(feature))
    }
    return {"rows": len(feature), "queries": len(queries), "wrong": wrong}


class Bench:
    """Measures, and keeps the rows for what comes next, as their clustering is what takes time."""

    def __init__(self, index: str | None) -> None:
        self._index, self._drawn_for = index, Options(rows=0)

    def __call__(self, options: Options) -> dict[str, Any]:
        """Times, and whether the answers are those of looking at each row."""
        self._draw(options)
        rows, queries, k, least = self._rows, self._queries, options.k, options.least_weight
        passing = options.passing
        allowed = None if passing is None else np.random.default_rng(1).random(options.rows) < passing
        ours = asking(rows.searcher, k, allowed, least)
        times = milliseconds(ours, queries)
        others = queries[:50]
        flat_ms = statistics.median(milliseconds(lambda query: self._flat.search(query[0][None], k), others))
        matrix_ms = statistics.median(milliseconds(lambda query: rows.matrix_product(query, k, least), others))
        times += milliseconds(ours, queries)  # before and after: the machine may not be as busy all the time
        ours_ms = statistics.median(times)
        return {
            **options._asdict(),
            "dimensions": rows.feature.shape[1],  # with --index, the index's
            "classes": rows.p.shape[1],
            "clustering_seconds": round(rows.clustering, 1),
            "ours_ms": round(ours_ms, 4),
            "ours_p99_ms": round(statistics.quantiles(times, n=100)[-1], 4),
            "looked_at": statistics.median(rows.looked_at(query, k, allowed, least) for query in queries),
            "faiss_flat_ms": round(flat_ms, 3),
            "matrix_product_ms": round(matrix_ms, 3),
            "ratio_faiss_flat": round(ours_ms / flat_ms, 4),
            "ratio_matrix_product": round(ours_ms / matrix_ms, 4),
            "identical": all(
                np.array_equal(ours(query), rows.brute_force(query, k, allowed, least)) for query in others
            ),
        }

    def against(self, options: Options, fewer: int) -> dict[str, Any]:
        """How many times as long a search takes as among fewer rows: both in one process, in turns."""
        sides = []
        for n in (options.rows, fewer):
            self._draw(options._replace(rows=n))
            sides.append((asking(self._rows.searcher, options.k), self._queries))
        found: list[list[float]] = [[], []]
        for _ in range(TURNS):
            for times, side in zip(found, sides, strict=True):
                times.extend(milliseconds(*side))
        ours, others = map(statistics.median, found)
        return {
            **options._asdict(),
            "against_rows": fewer,
            "ours_ms": round(ours, 4),
            "against_ms": round(others, 4),
            "ratio": round(ours / others, 3),
        }

    def _draw(self, options: Options) -> None:
        drawn_for = options._replace(k=0, passing=None, least_weight=0)
        if drawn_for == self._drawn_for:
            return
        self._drawn_for = drawn_for
        rng = np.random.default_rng(0)
        like = rows_of(self._index) if self._index else made_up(rng, options.dimensions, options.classes)
        uniform = options.probabilities == "uniform"
        self._rows = Rows(*drawn(like, options.rows, uniform, rng))
        self._queries: list[Query] = list(zip(*drawn(like, options.queries, uniform, rng), strict=True))
        self._flat = faiss.IndexFlatL2(self._rows.feature.shape[1])
        self._flat.add(self._rows.feature)
        self._rows.searcher.search(*self._queries[0], 1)  # compiles


COLUMNS = {
    "dimensions": "K", "classes": "C", "probabilities": "p", "k": "k", "passing": "filter", "ours_ms": "median ms",
    "ours_p99_ms": "p99 ms", "looked_at": "rows touched", "ratio_faiss_flat": "of FAISS",
    "ratio_matrix_product": "of product", "identical": "exact",
}  # fmt: skip


def line(result: dict[str, Any]) -> str:
    """A result as a row of the table."""
    return " ".join(f"{result[name]!s:>{max(len(title), 7)}}" for name, title in COLUMNS.items())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.search", description=__doc__)
    for name, kind in (("rows", int), ("queries", int), ("k", int), ("dimensions", int), ("classes", int)):
        parser.add_argument(f"--{name}", type=kind, default=Options._field_defaults[name])
    parser.add_argument("--probabilities", choices=("real", "uniform"), default="real")
    parser.add_argument("--passing", type=float, help="share of the rows that a filter leaves")
    parser.add_argument("--least-weight", type=float, default=0, help="what weights are at least, as for distance=auto")
    parser.add_argument("--index", help="URI of an index to draw the rows like; gives dimensions and classes, too")
    parser.add_argument("--against", type=int, metavar="ROWS", help="tell the ratio to a search among so many instead")
    parser.add_argument("--exact", action="store_true", help="compare the --index's own rows with brute force instead")
    parser.add_argument("--grid", action="store_true", help="a table over dimensions, classes, k and a filter instead")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    given = vars(parser.parse_args(argv))
    index, fewer, is_exact, is_grid, as_json = (given.pop(n) for n in ("index", "against", "exact", "grid", "json"))
    if is_grid and index:
        parser.error("--grid is over made-up rows; leave --index out")
    if is_exact and not index:
        parser.error("--exact is of an index's own rows; give --index")
    if given["least_weight"] and (is_exact or is_grid or fewer is not None):
        parser.error("--least-weight is of a single measurement; leave --exact, --grid and --against out")
    faiss.omp_set_num_threads(1)
    bench, options = Bench(index), Options(**given)
    if not is_grid:
        result = exact(index) if is_exact else bench(options) if fewer is None else bench.against(options, fewer)
        print(json.dumps(result) if as_json else "\n".join(f"{k:>20}  {v}" for k, v in result.items()))
        return
    print(" ".join(f"{title:>7}" for title in COLUMNS.values()))
    results = []
    for row in grid(options):
        results.append(bench(row))
        print(line(results[-1]), flush=True)
    if as_json:
        print(json.dumps({"rows": options.rows, "grid": results}))


if __name__ == "__main__":
    main()

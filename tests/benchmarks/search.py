"""Exact top-k by the weighted distance: time per query on one thread, against FAISS's flat L2 and a matrix product.

The rows are drawn like those of an index (`--index`), around its rows' class means with their spread, or else around
made-up classes. FAISS ranks by the plain distance, which is another answer; it is here for the time that reading every
row takes. `identical` compares with the weighted distance to every row, in float64.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from rsir_core import rows
from rsir_core.search import Floats, Searcher, candidate_weights, classes, complements, distances, query_weights
from rsir_core.table import Index

CLASSES = 21
DIMENSIONS = 19


def made_up(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Rows of an index that nobody made: features of overlapping classes, and Bayes' classifier of these."""
    label = rng.integers(CLASSES, size=2_000)
    centre = rng.normal(size=(CLASSES, DIMENSIONS)) * 0.25
    feature = centre[label] + rng.normal(size=(len(label), DIMENSIONS)) * 0.1
    logits = (feature @ centre.T - 0.5 * (centre**2).sum(axis=1)) / 0.02
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return feature.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(like: tuple[Floats, Floats], n: int, probabilities: str, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """n rows: each one of `like`, moved by half of its class's spread, with its confidence changed a little."""
    feature, p = like
    of_class = classes(p)
    spread = np.stack([feature[of_class == of_class[i]].std(axis=0) for i in range(len(p))])
    source = rng.integers(len(feature), size=n)
    moved = feature[source] + 0.5 * spread[source] * rng.normal(size=(n, feature.shape[1])).astype(np.float32)
    if probabilities == "uniform":
        return moved.astype(np.float32), np.full((n, p.shape[1]), 1 / p.shape[1], np.float32)
    odds = p[source] * np.exp(0.3 * rng.normal(size=(n, p.shape[1])))
    return moved.astype(np.float32), (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def milliseconds(search: Callable[[int], Any], queries: int) -> float:
    """The median over the queries."""
    times = []
    for q in range(queries):
        began = time.perf_counter()
        search(q)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def is_brute_force(searcher: Searcher, feature: Floats, p: Floats, query: tuple[Floats, Floats], k: int) -> bool:
    """Whether the answer is the one that looking at every row gives; ids are in the order of the rows."""
    complement = complements(p)
    factors = (
        query_weights(complements(query[1][None]), classes(p))[0],
        candidate_weights(complement, query[1][None].argmax(axis=1))[0],
        distances(query[0][None], feature)[0],
    )
    weighted: npt.NDArray[np.float64] = factors[0] * factors[1] * factors[2]
    return bool(np.array_equal(np.argsort(weighted, kind="stable")[:k], searcher.search(*query, k).rows))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m tests.benchmarks.search", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--probabilities", choices=("real", "uniform"), default="real")
    parser.add_argument("--index", help="URI of an index to draw the rows like")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args(argv)
    faiss.omp_set_num_threads(1)
    rng = np.random.default_rng(0)
    like = made_up(rng)
    if options.index:
        table = Index(options.index).features(columns=[rows.FEATURE, rows.CLASS_PROBABILITIES])
        like = rows.to_matrix(table[rows.FEATURE]), rows.to_matrix(table[rows.CLASS_PROBABILITIES])
    feature, p = drawn(like, options.rows, options.probabilities, rng)
    queries = list(zip(*drawn(like, options.queries, options.probabilities, rng), strict=True))
    began = time.perf_counter()
    order, searcher = Searcher.of([f"{i:09}" for i in range(options.rows)], feature, p)
    feature, p = feature[order], p[order]
    clustering = time.perf_counter() - began
    searcher.search(*queries[0], options.k)  # compiles
    flat = faiss.IndexFlatL2(feature.shape[1])
    flat.add(feature)
    weights = complements(p)
    of_class = classes(p)
    squares = (feature**2).sum(axis=1)

    def matrix_product(q: int) -> npt.NDArray[np.int64]:
        f, own = queries[q]
        near = np.sqrt(np.maximum(squares - 2 * (feature @ f) + f @ f, 0))
        weighted = near * weights[:, own.argmax()] * complements(own[None])[0][of_class]
        return np.argpartition(weighted, options.k)[: options.k]

    result = {
        "rows": options.rows,
        "queries": options.queries,
        "k": options.k,
        "probabilities": options.probabilities,
        "clustering_seconds": round(clustering, 1),
        "ours_ms": milliseconds(lambda q: searcher.search(*queries[q], options.k), options.queries),
        "faiss_flat_ms": milliseconds(lambda q: flat.search(queries[q][0][None], options.k), options.queries),
        "matrix_product_ms": milliseconds(matrix_product, options.queries),
        "identical": all(is_brute_force(searcher, feature, p, query, options.k) for query in queries),
    }
    print(json.dumps(result) if options.json else "\n".join(f"{k:>20}  {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()

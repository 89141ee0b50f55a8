"""No-match threshold: the distance beyond which the nearest row is no match, with a stated rate of false matches.

To learn how near an unrelated row can be, a sample of the indexed rows serves as queries, and only rows of other
classes may answer. The stated rate therefore holds for queries whose class the classifier knows but no row was assigned
to. Rows assigned to that class by mistake raise it; where labels exist, `score_no_match` measures by how much. The
Euclidean distance decides, whatever ranks: by the weighted one the rate would be several times as high, since a single
wrongly assigned row has weights near 0.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.index.index import Index
from rsir_core.index.layout import no_match_uri
from rsir_core.index.writer import IndexWriter
from rsir_core.search import distance as search
from rsir_core.storage.filesystem import get_file, names_in

RATE: Final = 0.01  # share of such queries that still get a match
QUERIES: Final = 1000
MAX_CHANGED: Final = 0.01  # share of changed rows up to which a threshold is kept
# Share of rows that have their class in common with the nearest other row, from which the classes fit the archive.
# UC Merced has 0.987 where the classifier was trained on all classes, 0.945 where every fifth image is of another
# class, and 0.83 where all are. See docs/results/accuracy.md.
FITTING: Final = 0.975
BLOCK: Final = 4096  # rows at a time: 35 MB for `QUERIES` queries


class Sample(NamedTuple):
    """Hold the m rows that serve as queries."""

    feature: Floats  # (m, K)
    class_probabilities: Floats  # (m, C)


class NoMatchThreshold(NamedTuple):
    """Hold the threshold of a version; it is valid only for the models that it was measured with.

    Attributes:
        bundle: fingerprint of the model bundle.
        pca: fingerprint of the PCA.
        queries: number of queries that it was measured with.
        rows: number of rows that it was measured on.
        false_match_rate: the rate of false matches that it promises.
        distance: Euclidean distance below which the nearest row is a match; None: too few queries for a promise.
        changed: number of rows added or removed since it was measured.
        false_rejection_rate: share of the sampled rows whose nearest other row is too far to be a match; None: an
            earlier version did not measure it, or nothing is promised.
        class_agreement: share of the sampled rows whose nearest other row was assigned to the same class; None: an
            earlier version did not measure it.
    """

    bundle: str
    pca: str
    queries: int
    rows: int
    false_match_rate: float
    distance: float | None
    changed: int = 0
    false_rejection_rate: float | None = None
    class_agreement: float | None = None

    @property
    def classes_fit(self) -> bool:
        """Tell whether the classes mean something in this archive, so that its rows can be ranked by them."""
        return self.class_agreement is None or self.class_agreement >= FITTING

    def to_json(self) -> bytes:
        """Encode for storage."""
        return json.dumps(self._asdict(), allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Decode what `to_json` wrote; fields that earlier versions stored besides are ignored."""
        stored = json.loads(data)
        return cls(**{name: stored[name] for name in cls._fields if name in stored or name not in cls._field_defaults})

    def after(self, changed: int) -> Self | None:
        """Keep the threshold for a version with some changed rows; None: measure it again.

        That is so if too many have changed, or an earlier release measured it, which left the agreement of classes out.

        A query's nearest row is a changed one with the probability that any row is. While at most `MAX_CHANGED` of the
        rows have changed, at most that share of the queries has another nearest row than when it was measured.
        """
        known = self._replace(changed=self.changed + changed)
        return known if known.changed <= MAX_CHANGED * known.rows and known.class_agreement is not None else None

    def is_too_far(self, nearest: float) -> bool | None:
        """Tell whether a query has no match, by the distance of its nearest row; None if nothing can be promised."""
        return None if self.distance is None else nearest >= self.distance


class NearestRows(NamedTuple):
    """Hold the Euclidean distances of m queries to their nearest rows.

    Attributes:
        of_other_classes: (m,), to the nearest row of another class; infinite if all rows are of the query's class.
        of_any: (m, 2), ascending, to the two nearest rows; infinite where there are fewer. A query that is one of the
            rows is its own nearest, so the second is the nearest other one.
    """

    of_other_classes: Doubles
    of_any: Doubles

    @classmethod
    def merge(cls, parts: "Sequence[NearestRows]") -> Self:
        """Merge the distances of the same queries to different rows."""
        of_other_classes, of_any = zip(*parts, strict=True)
        return cls(np.min(of_other_classes, axis=0), _two_smallest(np.concatenate(of_any, axis=1)))


def nearest_rows(sample: Sample, feature: Floats, class_probabilities: Floats) -> NearestRows:
    """Measure how far the nearest rows are from each query, in O(m·n·K) time.

    Args:
        sample: m queries.
        feature: (n, K) of the rows.
        class_probabilities: (n, C) of the rows.
    """
    asked, classes = (search.classes(p) for p in (sample.class_probabilities, class_probabilities))
    found = NearestRows(np.full(len(asked), np.inf), np.full((len(asked), 2), np.inf))
    for start in range(0, len(feature), BLOCK):
        block = slice(start, start + BLOCK)
        distance = search.distances(sample.feature, feature[block])  # (m, b)
        of_any = _two_smallest(np.concatenate([found.of_any, distance], axis=1))
        distance[asked[:, None] == classes[block]] = np.inf
        found = NearestRows(np.minimum(found.of_other_classes, distance.min(axis=1)), of_any)
    return found


def class_agreement(nearest: NearestRows) -> float:
    """Compute the share of queries, each of them a row, whose nearest other row is nearer than any of other classes."""
    return float((nearest.of_any[:, 1] < nearest.of_other_classes).mean())


def _two_smallest(distance: Doubles) -> Doubles:
    smallest: Doubles = np.sort(np.partition(distance, 1, axis=1)[:, :2], axis=1)
    return smallest


def threshold(nearest: Doubles, rate: float = RATE) -> float | None:
    """Find the distance below which on average at most a share of further queries lies; None: too few queries.

    It is the k-th smallest of m with k = ⌊rate·(m + 1)⌋, since another query falls into each of the m + 1 gaps with
    equal probability.
    """
    k = int(rate * (len(nearest) + 1))
    if k < 1 or not np.isfinite(kth := np.partition(nearest, k - 1)[k - 1]):
        return None
    return float(kth)


def score_no_match(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Measure how often a threshold is right and wrong for labelled images; None if no label is a known class.

    The threshold is measured on the images of known classes. Each of them is a query twice: with the images of its
    label left out, so that the index has nothing for it, and with itself alone left out. All other images are queries
    once.

    Args:
        feature: (n, K).
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.

    Returns:
        `false_match_rate` (the promised rate), `queries`, `threshold`, and three measured shares:
        `false_matches`: queries that match although the images of their label were left out;
        `told_wrongly`: queries without a match although images of their label are there;
        `unseen_told`: queries of other labels without a match (None: there are none).
        All shares are None if there is no threshold.
    """
    names = np.asarray(labels)
    known: Mask = np.isin(names, classes)
    if not known.any():
        return None
    here = np.flatnonzero(known)
    asking = np.random.default_rng(0).permutation(here)[:QUERIES]
    sample = Sample(feature[asking], class_probabilities[asking])
    limit = threshold(nearest_rows(sample, feature[here], class_probabilities[here]).of_other_classes)
    found: dict[str, Any] = {"false_match_rate": RATE, "queries": len(asking), "threshold": limit}
    if limit is None:
        return found | dict.fromkeys(("false_matches", "told_wrongly", "unseen_told"))
    nearest, without = _nearest(feature, names, here)
    return found | {
        "false_matches": float((without[known] < limit).mean()),
        "told_wrongly": float((nearest[known] >= limit).mean()),
        "unseen_told": None if known.all() else float((nearest[~known] >= limit).mean()),
    }


def _nearest(feature: Floats, labels: np.ndarray[Any, Any], here: Ints) -> tuple[Doubles, Doubles]:
    """Measure each row's distance to the nearest other one of those here, and to that of another label: 2 × (n,)."""
    nearest, without = np.empty(len(feature)), np.empty(len(feature))
    for start in range(0, len(feature), QUERIES):
        block = np.arange(start, min(start + QUERIES, len(feature)))
        found = np.full((2, len(block)), np.inf)
        for first in range(0, len(here), BLOCK):
            rows = here[first : first + BLOCK]
            distance = search.distances(feature[block], feature[rows])
            distance[block[:, None] == rows] = np.inf  # itself
            found[0] = np.minimum(found[0], distance.min(axis=1))
            distance[labels[block][:, None] == labels[rows]] = np.inf
            found[1] = np.minimum(found[1], distance.min(axis=1))
        nearest[block], without[block] = found
    return nearest, without


def put_no_match_threshold(writer: IndexWriter, version: int, known: NoMatchThreshold) -> None:
    """Store the threshold of a version of `features`."""
    writer.put(f"{no_match_uri(writer.index.uri)}/{_name(version)}", known.to_json())


def has_no_match_threshold(index: Index, version: int) -> bool:
    """Tell whether the threshold of just this version is stored."""
    return _name(version) in names_in(no_match_uri(index.uri))


def get_no_match_threshold(index: Index, version: int, bundle: str, pca: str) -> NoMatchThreshold | None:
    """Read the threshold of a version, or of the newest before it with the same models; None: there is none yet.

    A version is committed before its threshold can be stored, so for a moment that of the one before it stands in.
    """
    folder = no_match_uri(index.uri)
    for name in sorted((name for name in names_in(folder) if name <= _name(version)), reverse=True):
        known = NoMatchThreshold.from_json(get_file(f"{folder}/{name}"))
        if (known.bundle, known.pca) == (bundle, pca):
            return known
    return None


def _name(version: int) -> str:
    """Name the file of a version, so that names are in the order of versions."""
    return f"{version:020}.json"

"""When the best row is too far to be a match: a threshold with a stated rate of false matches.

What a query meets that has nothing like it here is seen at the index's own rows: each of a sample asks, and only rows
of other classes answer. The rate is so that of queries whose class the classifier knows and the index lacks; of classes
that the classifier has never seen it says less (the README has what was measured).
"""

import json
from typing import Final, NamedTuple, Self

import numpy as np

from rsir_core import search
from rsir_core.search import Doubles, Floats
from rsir_core.storage import file_system, put_file
from rsir_core.table import Index

RATE: Final = 0.01  # of such queries, the share whose best row is taken for a match all the same
QUERIES: Final = 1000
BLOCK: Final = 4096  # rows at once: 100 MB with so many queries


class Sample(NamedTuple):
    """Rows that ask."""

    feature: Floats  # (m, K)
    class_probabilities: Floats  # (m, C)


class NoMatch(NamedTuple):
    """The thresholds of a version; of other models than these they mean nothing.

    Attributes:
        bundle: fingerprint.
        pca: fingerprint.
        queries: that the thresholds come from.
        rows: that they were asked of.
        false_match_rate: which is so promised.
        weighted_distance: below it the best row is a match; None: too few queries to promise that.
        distance: the same for rankings by the distance alone.
    """

    bundle: str
    pca: str
    queries: int
    rows: int
    false_match_rate: float
    weighted_distance: float | None
    distance: float | None

    def to_json(self) -> bytes:
        """As it is stored."""
        return json.dumps(self._asdict(), allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The inverse of `to_json`."""
        return cls(**json.loads(data))

    def is_too_far(self, best: float, weighted: bool) -> bool | None:
        """Whether a ranking whose best row is so far has no match; None: nothing can be promised."""
        threshold = self.weighted_distance if weighted else self.distance
        return None if threshold is None else best >= threshold


def nearest_of_other_classes(sample: Sample, feature: Floats, class_probabilities: Floats) -> Doubles:
    """Smallest distance from each query to a row of another class than its own; of parts of the rows take the minimum.

    O(m·n·K) time.

    Args:
        sample: m queries.
        feature: (n, K) of the rows.
        class_probabilities: (n, C) of the rows.

    Returns:
        (2, m): the weighted distance and the distance alone; infinite where all rows are of the query's class.
    """
    asked, asked_complement = search.classes(sample.class_probabilities), search.complements(sample.class_probabilities)
    nearest = np.full((2, len(asked)), np.inf)
    for start in range(0, len(feature), BLOCK):
        p = class_probabilities[start : start + BLOCK]
        classes = search.classes(p)
        distance = search.distances(sample.feature, feature[start : start + BLOCK])  # (m, b)
        distance[asked[:, None] == classes] = np.inf
        nearest[1] = np.minimum(nearest[1], distance.min(axis=1))
        distance *= search.query_weights(asked_complement, classes)
        distance *= search.candidate_weights(search.complements(p), asked)
        nearest[0] = np.minimum(nearest[0], distance.min(axis=1))
    return nearest


def threshold(nearest: Doubles, rate: float = RATE) -> float | None:
    """What at most that share of further such queries lies below, on average over samples; None: too few for that.

    The k-th smallest of m, k = ⌊rate·(m + 1)⌋: another query is as likely to fall into each of the m + 1 gaps.
    """
    k = int(rate * (len(nearest) + 1))
    if k < 1 or not np.isfinite(kth := np.partition(nearest, k - 1)[k - 1]):
        return None
    return float(kth)


def put_no_match(index: Index, version: int, known: NoMatch) -> None:
    """Store the thresholds of a version of `features`."""
    put_file(f"{index.no_match_uri}/{_name(version)}", known.to_json())


def has_no_match(index: Index, version: int) -> bool:
    """Whether the thresholds of just this version are stored."""
    fs, folder = file_system(index.no_match_uri, use_listings_cache=False)
    return bool(fs.exists(f"{folder}/{_name(version)}"))


def get_no_match(index: Index, version: int, bundle: str, pca: str) -> NoMatch | None:
    """The thresholds of a version, or of the newest before it with the same models; None: there are none yet.

    A version is committed before its thresholds can be stored, so for a moment those of the one before it stand in.
    """
    fs, folder = file_system(index.no_match_uri, use_listings_cache=False)
    if not fs.exists(folder):
        return None
    names = {path.rsplit("/", 1)[1] for path in fs.ls(folder, detail=False)}
    for name in sorted((name for name in names if name <= _name(version)), reverse=True):
        known = NoMatch.from_json(fs.cat_file(f"{folder}/{name}"))
        if (known.bundle, known.pca) == (bundle, pca):
            return known
    return None


def _name(version: int) -> str:
    """Names are in the order of versions."""
    return f"{version:020}.json"

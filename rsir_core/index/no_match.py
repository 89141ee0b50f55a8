"""When the nearest row is too far to be a match: a threshold with a stated rate of false matches.

What a query meets that has nothing like it here is seen at the index's own rows: each of a sample asks, and only rows
of other classes answer. The rate is so that of queries whose class the classifier knows and no row was taken for; where
labels are known, `score_no_match` counts how much more it is with the rows that were taken for it wrongly, which are
near. By the weighted distance it would be several times as much: one such row has weights near 0. So the plain distance
decides, whatever ranks.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Self

import numpy as np

from rsir_core.arrays import Doubles, Floats, Ints, Mask
from rsir_core.index.index import Index
from rsir_core.index.layout import no_match_uri
from rsir_core.index.writer import IndexWriter
from rsir_core.search import exact as search
from rsir_core.storage.filesystem import get_file, names_in

RATE: Final = 0.01  # of such queries, the share whose best row is taken for a match all the same
QUERIES: Final = 1000
KEPT_UNTIL: Final = 0.01  # share of changed rows up to which a threshold is kept
BLOCK: Final = 4096  # rows at once: 35 MB with so many queries


class Sample(NamedTuple):
    """Rows that ask."""

    feature: Floats  # (m, K)
    class_probabilities: Floats  # (m, C)


class NoMatch(NamedTuple):
    """The threshold of a version; of other models than these it means nothing.

    Attributes:
        bundle: fingerprint.
        pca: fingerprint.
        queries: that the threshold comes from.
        rows: that they were asked of.
        false_match_rate: which is so promised.
        distance: below it the nearest row is a match; None: too few queries to promise that.
        changed: rows that have come or gone since it was measured.
    """

    bundle: str
    pca: str
    queries: int
    rows: int
    false_match_rate: float
    distance: float | None
    changed: int = 0

    def to_json(self) -> bytes:
        """Format as it is stored."""
        return json.dumps(self._asdict(), allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Parse the inverse of `to_json`; what earlier versions stored besides is left out."""
        stored = json.loads(data)
        return cls(**{name: stored[name] for name in cls._fields if name in stored or name != "changed"})

    def after(self, changed: int) -> Self | None:
        """Keep the threshold for a version some of whose rows are others; None: too many, measure it again.

        The nearest row of a query is one of the new ones as seldom as these are few. While at most `KEPT_UNTIL` of all
        rows have changed, no larger share of the queries has another nearest row than when it was measured: of a rate
        of 1 % that is a hundredth.
        """
        known = self._replace(changed=self.changed + changed)
        return known if known.changed <= KEPT_UNTIL * known.rows else None

    def is_too_far(self, nearest: float) -> bool | None:
        """Tell whether a query whose nearest row is so far has no match; None: nothing can be promised."""
        return None if self.distance is None else nearest >= self.distance


def nearest_of_other_classes(sample: Sample, feature: Floats, class_probabilities: Floats) -> Doubles:
    """Measure each query's distance to the nearest row of another class than its own; of parts, take the minimum.

    O(m·n·K) time.

    Args:
        sample: m queries.
        feature: (n, K) of the rows.
        class_probabilities: (n, C) of the rows.

    Returns:
        (m,): infinite where all rows are of the query's class.
    """
    asked, classes = (search.classes(p) for p in (sample.class_probabilities, class_probabilities))
    nearest = np.full(len(asked), np.inf)
    for start in range(0, len(feature), BLOCK):
        block = slice(start, start + BLOCK)
        distance = search.distances(sample.feature, feature[block])  # (m, b)
        distance[asked[:, None] == classes[block]] = np.inf
        nearest = np.minimum(nearest, distance.min(axis=1))
    return nearest


def threshold(nearest: Doubles, rate: float = RATE) -> float | None:
    """Find the distance below which at most that share of further such queries lies, on average; None: too few.

    The k-th smallest of m, k = ⌊rate·(m + 1)⌋: another query is as likely to fall into each of the m + 1 gaps.
    """
    k = int(rate * (len(nearest) + 1))
    if k < 1 or not np.isfinite(kth := np.partition(nearest, k - 1)[k - 1]):
        return None
    return float(kth)


def score_no_match(
    feature: Floats, class_probabilities: Floats, labels: Sequence[str], classes: Sequence[str]
) -> dict[str, Any] | None:
    """Score how often a threshold judges labelled images rightly and wrongly; None: no label is a known class.

    The threshold is that of an index of the images of known classes. Each of them asks it twice: without the images of
    its label, which is a query that the index has nothing for, and without itself alone. All others ask it once.

    Args:
        feature: (n, K).
        class_probabilities: (n, C).
        labels: (n,).
        classes: of the classifier.

    Returns:
        `false_match_rate` as stated, `queries` and `threshold` as `NoMatch` has them, and of the queries these shares:
        `false_matches` of those without the images of their label, `told_wrongly` of those without themselves alone,
        `unseen_told` of those of other labels (None: there are none). All None where there is no threshold.
    """
    names = np.asarray(labels)
    known: Mask = np.isin(names, classes)
    if not known.any():
        return None
    here = np.flatnonzero(known)
    asking = np.random.default_rng(0).permutation(here)[:QUERIES]
    sample = Sample(feature[asking], class_probabilities[asking])
    limit = threshold(nearest_of_other_classes(sample, feature[here], class_probabilities[here]))
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


def put_no_match(writer: IndexWriter, version: int, known: NoMatch) -> None:
    """Store the threshold of a version of `features`."""
    writer.put(f"{no_match_uri(writer.index.uri)}/{_name(version)}", known.to_json())


def has_no_match(index: Index, version: int) -> bool:
    """Tell whether the threshold of just this version is stored."""
    return _name(version) in names_in(no_match_uri(index.uri))


def get_no_match(index: Index, version: int, bundle: str, pca: str) -> NoMatch | None:
    """Read the threshold of a version, or of the newest before it with the same models; None: there is none yet.

    A version is committed before its threshold can be stored, so for a moment that of the one before it stands in.
    """
    folder = no_match_uri(index.uri)
    for name in sorted((name for name in names_in(folder) if name <= _name(version)), reverse=True):
        known = NoMatch.from_json(get_file(f"{folder}/{name}"))
        if (known.bundle, known.pca) == (bundle, pca):
            return known
    return None


def _name(version: int) -> str:
    """Name the file of a version, so that names are in the order of versions."""
    return f"{version:020}.json"

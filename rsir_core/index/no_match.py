"""No-match threshold: the distance beyond which the nearest row alone is no match, with a stated rate of false matches.

To learn how near an unrelated row can be, a sample of the indexed rows serves as queries, and only rows of other
classes may answer. The stated rate therefore holds for queries whose class the classifier knows but no row was assigned
to. Rows assigned to that class by mistake raise it; where labels exist, `evaluation.no_match` measures by how much. The
Euclidean distance decides, whatever ranks: by the weighted one the rate would be several times as high, since a single
wrongly assigned row has weights near 0.

Where rows are few, or the features do not part the classes well, that distance lies inside the classes. A query whose
nearest row is farther therefore has a match all the same if its five nearest rows are probably of its class, and no
farther than those of nearly all rows are.
"""

import json
from collections.abc import Sequence
from typing import Final, NamedTuple, Self

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
NEIGHBOURS: Final = 5  # nearest rows whose probabilities decide, here and whether `auto` weights
AGREEING_SHARE: Final = 0.98  # of the rows, whose nearest rows are near enough, see `agreeing_distance`
AGREEING_PROBABILITY: Final = 0.5  # mean of the query's class among its nearest rows, from which they agree
BLOCK: Final = 4096  # rows at a time: 80 MB for `QUERIES` queries


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
        agreeing_distance: mean Euclidean distance of a query's `NEIGHBOURS` nearest rows below which it has a match if
            they are probably of its class; `AGREEING_SHARE` of the sampled rows are below it. None: an earlier version
            did not measure it, or there are too few rows.
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
    agreeing_distance: float | None = None

    @classmethod
    def of(cls, bundle: str, pca: str, nearest: "NearestRows", rows: int) -> Self:
        """Set the threshold by what is nearest to queries that are rows themselves.

        Args:
            bundle: fingerprint of the model bundle.
            pca: fingerprint of the PCA.
            nearest: of the queries.
            rows: in all.
        """
        of_others, agreement = nearest.of_any[:, 1:], nearest.class_agreement
        measured = cls(
            bundle, pca, len(of_others), rows, RATE, threshold(nearest.of_other_classes), class_agreement=agreement,
            agreeing_distance=nearest.agreeing_distance,
        )  # fmt: skip
        if measured.distance is None:
            return measured
        rejected = measured.rejects(of_others, nearest.probability[:, 1:])
        return measured._replace(false_rejection_rate=float(rejected.mean()))

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

        That is so if too many have changed, or if something was not measured: by an earlier release, or because there
        were too few rows.

        A query's nearest row is a changed one with the probability that any row is. While at most `MAX_CHANGED` of the
        rows have changed, at most that share of the queries has another nearest row than when it was measured, and at
        most `NEIGHBOURS` times that share another one among the nearest.
        """
        known = self._replace(changed=self.changed + changed)
        is_whole = None not in (known.class_agreement, known.agreeing_distance)
        return known if is_whole and known.changed <= MAX_CHANGED * known.rows else None

    def is_too_far(self, nearest: float) -> bool:
        """Tell whether a query's nearest row is too far to be a match by itself; no, where nothing can be promised."""
        return self.distance is not None and nearest >= self.distance

    def rejects(self, distance: Doubles, probability: Floats) -> Mask:
        """Tell which of m queries have no match.

        Args:
            distance: (m, at most `NEIGHBOURS`), Euclidean, ascending, to a query's nearest rows.
            probability: (m, …), of the query's class, of the same rows.

        Returns:
            (m,); all False where nothing can be promised.
        """
        if self.distance is None:
            return np.zeros(len(distance), np.bool_)
        rejected: Mask = distance[:, 0] >= self.distance
        if self.agreeing_distance is not None and distance.shape[1] == NEIGHBOURS:
            is_near = distance.mean(axis=1) < self.agreeing_distance
            rejected &= ~(is_near & (probability.mean(axis=1) >= AGREEING_PROBABILITY))
        return rejected


class NearestRows(NamedTuple):
    """Hold the Euclidean distances of m queries to their nearest rows.

    Attributes:
        of_other_classes: (m,), to the nearest row of another class; infinite if all rows are of the query's class.
        of_any: (m, 1 + NEIGHBOURS), ascending, to the nearest rows; infinite where there are fewer. A query that is one
            of the rows is its own nearest, so the others are those after the first.
        probability: (m, 1 + NEIGHBOURS), of the query's class, of the rows of `of_any`; 0 where there are fewer.
    """

    of_other_classes: Doubles
    of_any: Doubles
    probability: Floats

    @classmethod
    def merge(cls, parts: "Sequence[NearestRows]") -> Self:
        """Merge the distances of the same queries to different rows."""
        of_other_classes, of_any, probability = zip(*parts, strict=True)
        found = nearest_of(np.concatenate(of_any, axis=1), np.concatenate(probability, axis=1), 1 + NEIGHBOURS)
        return cls(np.min(of_other_classes, axis=0), *found)

    @property
    def agreeing_distance(self) -> float | None:
        """Find the mean distance to the nearest other rows that `AGREEING_SHARE` of the queries (rows) are below."""
        found = float(np.quantile(self.of_any[:, 1:].mean(axis=1), AGREEING_SHARE, method="higher"))
        return found if np.isfinite(found) else None

    @property
    def class_agreement(self) -> float:
        """Compute the share of queries, each a row, whose nearest other row is nearer than any of other classes."""
        return float((self.of_any[:, 1] < self.of_other_classes).mean())


def nearest_of(distance: Doubles, probability: Floats, k: int) -> tuple[Doubles, Floats]:
    """Take the k smallest of (m, n) distances, ascending, and the probabilities (m, n) at their places.

    Where n < k, infinity and 0 fill up.
    """
    if (missing := k - distance.shape[1]) > 0:
        more = [(0, 0), (0, missing)]
        distance, probability = np.pad(distance, more, constant_values=np.inf), np.pad(probability, more)
    some = np.argpartition(distance, k - 1, axis=1)[:, :k]
    order = np.argsort(np.take_along_axis(distance, some, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(some, order, axis=1)
    return np.take_along_axis(distance, places, axis=1), np.take_along_axis(probability, places, axis=1)


def nearest_rows(sample: Sample, feature: Floats, class_probabilities: Floats) -> NearestRows:
    """Measure how far the nearest rows are from each query, in O(m·n·K) time.

    Args:
        sample: m queries.
        feature: (n, K) of the rows.
        class_probabilities: (n, C) of the rows.
    """
    asked, classes = (search.classes(p) for p in (sample.class_probabilities, class_probabilities))
    none = np.empty((len(asked), 0))
    no_rows = nearest_of(none, none.astype(np.float32), 1 + NEIGHBOURS)
    parts = [NearestRows(np.full(len(asked), np.inf), *no_rows)]
    for start in range(0, len(feature), BLOCK):
        block = slice(start, start + BLOCK)
        distance = search.distances(sample.feature, feature[block])  # (m, b)
        probability = probability_of(asked, class_probabilities[block])
        near = nearest_of(distance, probability, 1 + NEIGHBOURS)
        distance[asked[:, None] == classes[block]] = np.inf
        parts.append(NearestRows(distance.min(axis=1), *near))
    return NearestRows.merge(parts)


def probability_of(asked: Ints, class_probabilities: Floats) -> Floats:
    """Return how probable each query's class (m,) is for each row: (m, n); 0 where there are no classes."""
    if not class_probabilities.shape[1]:
        return np.zeros((len(asked), len(class_probabilities)), np.float32)
    found: Floats = class_probabilities.T[asked]
    return found


def threshold(nearest: Doubles, rate: float = RATE) -> float | None:
    """Find the distance below which on average at most a share of further queries lies; None: too few queries.

    It is the k-th smallest of m with k = ⌊rate·(m + 1)⌋, since another query falls into each of the m + 1 gaps with
    equal probability.
    """
    k = int(rate * (len(nearest) + 1))
    if k < 1 or not np.isfinite(kth := np.partition(nearest, k - 1)[k - 1]):
        return None
    return float(kth)


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

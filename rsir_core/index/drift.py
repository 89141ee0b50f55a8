"""Drift: how the images of a run differ from earlier ones, and whether the PCA should be fitted again.

It needs only sums over rows, which are computed while features are projected.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from rsir_core import schemas

ERROR: Final = "error"  # column: see `Pca.errors`
REFIT_RATIO: Final = 1.25  # mean error of new rows, relative to the rows that the PCA was fitted to
MIN_ROWS: Final = 50  # new rows for a meaningful mean
NEGLIGIBLE: Final = 1e-9  # error of a PCA fitted to hardly more images than components; vectors have length 1


@dataclass(frozen=True)
class FeatureStatistics:
    """Hold sums over rows; a monoid under `+` with the identity `FeatureStatistics()`.

    Attributes:
        count: number of rows.
        error: sum of their squared reconstruction errors (`Pca.errors`).
        without_object: number of rows without an object, whose key region is centred on the image.
        classes: number of rows by class.
    """

    count: int = 0
    error: float = 0.0
    without_object: int = 0
    classes: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, table: pa.Table, mean_error: float | None = None) -> "FeatureStatistics":
        """Compute the statistics of rows with the columns `class`, `object_class` and, unless it is given, `error`."""
        error = (pc.sum(table[ERROR]).as_py() or 0.0) if mean_error is None else mean_error * len(table)
        counts = table.group_by(schemas.CLASS).aggregate([([], "count_all")]).to_pylist()
        classes = Counter({row[schemas.CLASS]: row["count_all"] for row in counts})
        return cls(len(table), error, table[schemas.OBJECT_CLASS].null_count, classes)

    def __add__(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """Combine the statistics of two sets of rows."""
        return FeatureStatistics(
            self.count + other.count,
            self.error + other.error,
            self.without_object + other.without_object,
            self.classes + other.classes,
        )

    def to_json(self) -> str:
        """Encode as JSON."""
        return json.dumps([self.count, self.error, self.without_object, self.classes])

    @classmethod
    def from_json(cls, text: str) -> "FeatureStatistics":
        """Decode what `to_json` wrote."""
        count, error, without_object, classes = json.loads(text)
        return cls(count, error, without_object, Counter(classes))

    def share(self, name: str) -> float:
        """Compute the share of a class."""
        return self.classes[name] / self.count


@dataclass(frozen=True)
class Drift:
    """Compare new rows with those published before; there are some of both.

    Attributes:
        before: statistics of all earlier rows, with the error of the rows that the PCA was fitted to.
        new: statistics of new and changed rows.
    """

    before: FeatureStatistics
    new: FeatureStatistics

    @property
    def error_ratio(self) -> float | None:
        """Mean squared reconstruction error of the new rows, relative to the rows that the PCA was fitted to.

        None if the latter is negligible, because the PCA was fitted to hardly more rows than components.
        """
        fitted = self.before.error / self.before.count
        return self.new.error / self.new.count / fitted if fitted > NEGLIGIBLE else None

    @property
    def class_shift(self) -> float:
        """Total variation distance between the class distributions of new and earlier rows, 0 to 1."""
        return sum(abs(shift) for _, shift in self.shifts()) / 2

    def shifts(self) -> list[tuple[str, float]]:
        """Compute the change of each class's share, largest changes first."""
        names = sorted(self.before.classes | self.new.classes)
        return sorted(((n, self.new.share(n) - self.before.share(n)) for n in names), key=lambda s: -abs(s[1]))

    @property
    def suggests_refit(self) -> bool:
        """Tell whether the PCA reconstructs new rows so badly that it should be fitted again."""
        if self.new.count < MIN_ROWS:
            return False
        ratio = self.error_ratio
        return self.new.error / self.new.count > NEGLIGIBLE if ratio is None else ratio > REFIT_RATIO

    @property
    def summary(self) -> str:
        """The error ratio in a sentence."""
        if self.error_ratio is None:
            return (
                "the PCA was fitted to hardly more images than it has components, so its error on new ones says nothing"
            )
        return f"the PCA's error on them is {self.error_ratio:.2f} times its error on the images it was fitted to"

    def to_dict(self) -> dict[str, Any]:
        """Format for a report."""
        return {
            "new_rows": self.new.count,
            "error_ratio": None if self.error_ratio is None else round(self.error_ratio, 3),
            "told": self.summary,
            "class_shift": round(self.class_shift, 3),
            "largest_shifts": {name: round(shift, 3) for name, shift in self.shifts()[:5]},
            "without_object": round(self.new.without_object / self.new.count, 3),
            "without_object_before": round(self.before.without_object / self.before.count, 3),
            "suggests_refit_pca": self.suggests_refit,
        }


def total(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Sum statistics."""
    return sum(parts, FeatureStatistics())

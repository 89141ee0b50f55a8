"""How the images of a run differ from those before it, and whether the PCA should be fitted again.

All that is needed of rows are sums, which are taken while their features are made.
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
REFIT_FROM: Final = 1.25  # mean error of new rows, in those of the rows that the PCA was fitted to
FEWEST: Final = 50  # new rows whose mean says something
EXACT: Final = 1e-9  # error of a PCA that leaves nothing out, as one of few images; vectors have the length 1


@dataclass(frozen=True)
class FeatureStatistics:
    """Sums over rows; a monoid under `+`, with `Mix()` as its zero.

    Attributes:
        count: rows.
        error: the sum of their squared reconstruction errors (`Pca.errors`).
        without_object: rows whose key region is centred on the image because no object was found.
        classes: rows by class.
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
        """Add two statistics: those of both sets of rows."""
        return FeatureStatistics(
            self.count + other.count,
            self.error + other.error,
            self.without_object + other.without_object,
            self.classes + other.classes,
        )

    def to_json(self) -> str:
        """Format as JSON, for a column."""
        return json.dumps([self.count, self.error, self.without_object, self.classes])

    @classmethod
    def from_json(cls, text: str) -> "FeatureStatistics":
        """Parse the inverse of `to_json`."""
        count, error, without_object, classes = json.loads(text)
        return cls(count, error, without_object, Counter(classes))

    def share(self, name: str) -> float:
        """Compute the share of a class."""
        return self.classes[name] / self.count


@dataclass(frozen=True)
class Drift:
    """New rows against those published before; both have some.

    Attributes:
        before: of all rows before; their error is the one that the PCA was fitted with.
        new: of the new or changed ones.
    """

    before: FeatureStatistics
    new: FeatureStatistics

    @property
    def error_ratio(self) -> float | None:
        """Mean squared reconstruction error of the new rows, in that of those that the PCA was fitted to.

        None: it leaves nothing out of those, as happens where they are hardly more than its components.
        """
        fitted = self.before.error / self.before.count
        return self.new.error / self.new.count / fitted if fitted > EXACT else None

    @property
    def class_shift(self) -> float:
        """Total variation distance between the class mixes: the share of new rows that are of another class, 0 to 1."""
        return sum(abs(shift) for _, shift in self.shifts()) / 2

    def shifts(self) -> list[tuple[str, float]]:
        """Compute by how much each class's share has grown (or, negative, shrunk), the largest first."""
        names = sorted(self.before.classes | self.new.classes)
        return sorted(((n, self.new.share(n) - self.before.share(n)) for n in names), key=lambda s: -abs(s[1]))

    @property
    def suggests_refit(self) -> bool:
        """Tell whether the PCA leaves out so much of the new rows that it should be fitted again."""
        if self.new.count < FEWEST:
            return False
        ratio = self.error_ratio
        return self.new.error / self.new.count > EXACT if ratio is None else ratio > REFIT_FROM

    @property
    def told(self) -> str:
        """The error ratio in a sentence."""
        if self.error_ratio is None:
            return (
                "the PCA was fitted to so few images that it leaves nothing of them out: its error here tells nothing"
            )
        return f"the PCA's error on them is {self.error_ratio:.2f} times that on those that it was fitted to"

    def to_dict(self) -> dict[str, Any]:
        """Format for a report."""
        return {
            "new_rows": self.new.count,
            "error_ratio": None if self.error_ratio is None else round(self.error_ratio, 3),
            "told": self.told,
            "class_shift": round(self.class_shift, 3),
            "largest_shifts": {name: round(shift, 3) for name, shift in self.shifts()[:5]},
            "without_object": round(self.new.without_object / self.new.count, 3),
            "without_object_before": round(self.before.without_object / self.before.count, 3),
            "suggests_refit_pca": self.suggests_refit,
        }


def total(parts: Iterable[FeatureStatistics]) -> FeatureStatistics:
    """Add up statistics."""
    return sum(parts, FeatureStatistics())

"""Scores of every arm over one index, or over several that differ in their seed, with means and deviations."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from rsir_core.arrays import Doubles, Ints
from rsir_core.evaluation.arms import Arm, Variation
from rsir_core.evaluation.gallery import GalleryRow
from rsir_core.evaluation.metrics import PRECISION_AT, RECALL_LEVELS, Scores
from rsir_core.models.frozen import FROZEN


class Spread(NamedTuple):
    """Hold a figure over seeds."""

    mean: float
    sd: float | None  # sample standard deviation (n − 1); None: one seed

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Build from one figure per seed."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)


class ClassScores(NamedTuple):
    """Hold what the queries of one label scored."""

    map: Spread
    anmrr: Spread
    queries: int  # of the first seed


class Scored(NamedTuple):
    """Hold an arm's scores over one index."""

    dimensions: int  # of the vectors compared
    scores: Scores
    is_averaged: bool = False  # whether the vectors are averaged with their neighbours', as only stored features are


@dataclass(frozen=True)
class Run:
    """Hold all arms over one database of n labelled images, each of which is a query.

    Attributes:
        seed: of its models and split; None: there is one run only.
        arms: scored.
        labels: (n,).
        accuracy: share of images whose class is their label; None: labels are no class names.
        confusion: (L, L), see `metrics.top_confusion`, by the main arm; labels in the order of names.
        strips: typical queries with what several arms rank first; none where that was not asked for.
        protocol: how all that came about.
        findings: `unseen`, `no_match` and `calibration`, of its rows as they are stored; each may be None.
    """

    seed: str | None
    arms: Mapping[Arm, Scored]
    labels: Sequence[str]
    accuracy: float | None
    confusion: Ints
    strips: Sequence[GalleryRow]
    protocol: Mapping[str, Any]
    findings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """Hold the runs of all seeds, which have the same arms.

    Attributes:
        runs: one at least.
        main: the arm that figures without a name are of.
        duplicates: pictures that are there twice, and how they lie across the first run's split; None: not looked for.
    """

    runs: Sequence[Run]
    main: Arm
    duplicates: Mapping[str, Any] | None = None

    @property
    def arms(self) -> list[Arm]:
        """List the arms in the order in which they were asked for."""
        return list(self.runs[0].arms)

    def of(self, arm: Arm) -> list[Scores]:
        """Return an arm's scores, by seed."""
        return [run.arms[arm].scores for run in self.runs]

    def dimensions(self, arm: Arm) -> int:
        """Return how many dimensions the vectors have that the arm compares."""
        return self.runs[0].arms[arm].dimensions

    def is_averaged(self, arm: Arm) -> bool:
        """Tell whether the arm compares features that were averaged with their neighbours."""
        return arm in self.runs[0].arms and self.runs[0].arms[arm].is_averaged

    def map(self, arm: Arm) -> Spread:
        """Return an arm's mean average precision."""
        return Spread.of([scores.map for scores in self.of(arm)])

    def anmrr(self, arm: Arm) -> Spread:
        """Return an arm's ANMRR."""
        return Spread.of([scores.anmrr for scores in self.of(arm)])

    def precision_at(self, arm: Arm) -> dict[int, Spread]:
        """Return an arm's precision among the first k, by k."""
        found = [scores.precision_at for scores in self.of(arm)]
        return {k: Spread.of([precision[k] for precision in found]) for k in found[0]}

    @property
    def highest_precision_at(self) -> dict[int, float]:
        """Compute the precision of a perfect ranking: at most NG results are right for a query; mean over queries."""
        relevant_rows = [NG for run in self.runs for n in Counter(run.labels).values() for NG in [n - 1] * n if NG]
        return {k: float(np.mean(np.minimum(relevant_rows, k)) / k) for k in PRECISION_AT}

    def recall_precision(self, arm: Arm) -> Doubles:
        """Return interpolated precision at each of RECALL_LEVELS, mean over queries and seeds."""
        mean: Doubles = np.mean([scores.interpolated.mean(axis=0) for scores in self.of(arm)], axis=0)
        return mean

    def per_class(self, arm: Arm) -> dict[str, ClassScores]:
        """Return an arm's scores by label of the query."""
        found = [run.arms[arm].scores.per_label(run.labels) for run in self.runs]
        labels = sorted({label for of_run in found for label in of_run})  # of a small class a seed may have no query
        by_label = {label: [of_run[label] for of_run in found if label in of_run] for label in labels}
        return {
            label: ClassScores(
                Spread.of([s.map for s in all_]), Spread.of([s.anmrr for s in all_]), len(all_[0].queries)
            )
            for label, all_ in by_label.items()
        }

    @property
    def accuracy(self) -> Spread | None:
        """Share of images whose class is their label."""
        found = [run.accuracy for run in self.runs if run.accuracy is not None]
        return Spread.of(found) if len(found) == len(self.runs) else None

    @cached_property
    def protocol(self) -> dict[str, Any]:
        """Merge the protocols of all runs; of what differs, a list by run."""
        merged = {"main_arm": self.name(self.main), "excluded_queries": self.of(self.main)[0].excluded}
        for key in self.runs[0].protocol:
            values = [run.protocol.get(key) for run in self.runs]
            merged[key] = values[0] if all(value == values[0] for value in values) else values
        return merged

    @cached_property
    def findings(self) -> dict[str, Any]:
        """Merge other findings, by key of `metrics.json`; of what each run has, the mean."""
        of_runs = {name: over_seeds([run.findings[name] for run in self.runs]) for name in self.runs[0].findings}
        return of_runs if self.duplicates is None else {"duplicates": self.duplicates, **of_runs}

    def words(self, arm: Arm) -> tuple[str, str, str]:
        """Say what an arm describes, what it compares, and by which distance."""
        variation = arm.variation
        region = variation.region.replace("_", " ")
        if variation.tau not in (1, self.main.variation.tau):
            region = f"{region} {variation.tau:g}"
        if variation.peer is not None:
            frozen = "frozen " if variation.peer == FROZEN else ""
            which = "" if self._only_of_its_backbone(variation) else f" ({variation.peer})"
            region = f"{region}, {frozen}{variation.backbone}{which}"
        if variation.centre is not None:
            region = f"{region}, centred by {variation.centre}"
        if variation.views is not None:
            region = f"{region}, {variation.views} {'view' if variation.views == 1 else 'views'}"
        size = f"PCA {self.dimensions(arm)}" if arm.components else f"{self.dimensions(arm)} dimensions"
        return region, f"{size}, averaged" if self.is_averaged(arm) else size, arm.distance

    def _only_of_its_backbone(self, variation: Variation) -> bool:
        """Tell whether no other bundle in the comparison has the same backbone and describes as much of an image."""
        alike = (arm.variation for arm in self.arms if arm.variation.backbone == variation.backbone)
        return len({v.peer for v in alike if v.tau == variation.tau} - {None, FROZEN}) <= 1

    def name(self, arm: Arm) -> str:
        """Name an arm in words."""
        return ", ".join(self.words(arm))

    def row(self, arm: Arm) -> dict[str, Any]:
        """Format an arm as `metrics.json` and `arms.csv` have it."""
        variation = arm.variation
        return {
            "region": variation.region,
            "tau": variation.tau,
            "backbone": variation.backbone,
            "bundle": variation.peer,
            "centre": variation.centre,
            "views": variation.views,
            "pca": arm.components is not None,
            "distance": arm.distance,
            "weighted": None if arm.distance == "auto" else arm.distance == "weighted",
            "dimensions": self.dimensions(arm),
            **named("map", self.map(arm)),
            **named("anmrr", self.anmrr(arm)),
        }

    def metrics(self) -> dict[str, Any]:
        """Return the content of `metrics.json`."""
        return {
            **named("map", self.map(self.main)),
            **named("anmrr", self.anmrr(self.main)),
            **(named("accuracy", self.accuracy) if self.accuracy else {"accuracy": None}),
            "queries": len(self.of(self.main)[0].queries),
            "database": len(self.runs[0].labels),
            "per_class": {
                label: {**named("map", scores.map), **named("anmrr", scores.anmrr), "queries": scores.queries}
                for label, scores in self.per_class(self.main).items()
            },
            "protocol": self.protocol,
            "arms": [self._detailed(arm) for arm in self.arms],
            **self.findings,
            **({"seeds": [self._of_seed(run) for run in self.runs]} if len(self.runs) > 1 else {}),
        }

    def _detailed(self, arm: Arm) -> dict[str, Any]:
        curve = zip(RECALL_LEVELS, self.recall_precision(arm).tolist(), strict=True)
        return {
            **self.row(arm),
            "precision_at": {str(k): precision.mean for k, precision in self.precision_at(arm).items()},
            "precision_at_recall": {f"{level:g}": precision for level, precision in curve},
        }

    def _of_seed(self, run: Run) -> dict[str, Any]:
        scores = run.arms[self.main].scores
        counts = {"queries": len(scores.queries), "database": len(run.labels)}
        figures = {"map": scores.map, "anmrr": scores.anmrr, "accuracy": run.accuracy}
        return {"seed": run.seed, **figures, **counts, **run.findings}


def named(name: str, figure: Spread) -> dict[str, float]:
    """Format a figure as keys: its mean and, over several seeds, its deviation."""
    return {name: figure.mean} if figure.sd is None else {name: figure.mean, f"{name}_sd": figure.sd}


def over_seeds(found: Sequence[Any]) -> Any:
    """Merge what each seed has found, figures or trees of them: what all agree in, else means and all names.

    None: a seed has not found it.
    """
    first = found[0]
    if all(value == first for value in found):
        return first
    if any(value is None for value in found):
        return None
    if isinstance(first, Mapping):
        return {key: over_seeds([value[key] for value in found]) for key in first}
    if isinstance(first, list):
        return sorted({name for value in found for name in value})
    return float(np.mean(found))

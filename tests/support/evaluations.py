"""Evaluations with made-up scores, no two of whose arms score the same, for tests of what is told of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rsir_core.evaluation.arms import ArmSet, IndexSetup, Variation, main_arm, plan_arms
from rsir_core.evaluation.evaluation import Evaluation, Run, Scored
from rsir_core.evaluation.gallery import GalleryRow
from rsir_core.evaluation.metrics import PRECISION_AT, RECALL_LEVELS, Scores
from rsir_core.evaluation.paper import TABLE_4

UC_MERCED = sorted(TABLE_4)
OTHER = ["forest", "harbor", "river"]
OWN = IndexSetup(Variation(0.9, "resnet50"), components=19, most=1280, detector=True)


def some_scores(queries: int, rng: np.random.Generator) -> Scores:
    curve = np.sort(rng.random((queries, len(RECALL_LEVELS))))[:, ::-1]
    precision = rng.random((queries, len(PRECISION_AT)))
    return Scores(np.arange(queries), rng.random(queries), rng.random(queries), precision, curve, excluded=0)


def some_run(
    sets: Sequence[ArmSet],
    classes: Sequence[str],
    own: IndexSetup,
    seed: int,
    strips: Sequence[GalleryRow] = (),
    findings: Mapping[str, Any] | None = None,
) -> Run:
    """Three queries of each class by every arm; run by run the same but for the scores."""
    rng = np.random.default_rng(seed)
    labels = [name for name in classes for _ in range(3)]
    dimensions = {arm: arm.components or 2048 for arm in plan_arms(sets, own)}
    scored = {arm: Scored(size, some_scores(len(labels), rng)) for arm, size in dimensions.items()}
    confusion = rng.integers(0, 9, (len(classes), len(classes))) + 9 * np.eye(len(classes), dtype=np.int64)
    protocol = {"ties": "smaller image id first", "detector": "yolov5n", "index": f"index {seed}"}
    return Run(str(seed), scored, labels, float(rng.random()), confusion, strips, protocol, findings or {})


def some_evaluation(
    sets: Sequence[ArmSet],
    classes: Sequence[str] = OTHER,
    seeds: Sequence[int] = (0,),
    own: IndexSetup = OWN,
    findings: Mapping[str, Any] | None = None,
) -> Evaluation:
    """With what else was found, the same in each run."""
    of_runs = dict(findings or {})
    duplicates = of_runs.pop("duplicates", None)
    runs = [some_run(sets, classes, own, seed, findings=of_runs) for seed in seeds]
    return Evaluation(runs, main_arm(plan_arms(sets, own), own), duplicates)

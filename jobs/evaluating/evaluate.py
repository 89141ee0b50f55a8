"""Score retrieval over an index: `python -m jobs.evaluate --index URI --report DIR [--split CSV]`.

Every labelled image is a query once, ranked against all others. Labels come from a split CSV, else from folder names.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from jobs.command import Summary
from jobs.evaluating.describing import Described, describe_again, reading_of, stored
from jobs.evaluating.evaluated_index import SEED, EvaluatedIndex, of_seed, open_evaluated_index
from jobs.evaluating.gallery import choose_queries, make_strips
from jobs.evaluating.options import EvaluateConfig
from jobs.pipeline.cluster import joined
from rsir_core import schemas
from rsir_core.errors import ConfigError
from rsir_core.evaluation.arms import Arm, Variation, main_arm, parse_arms
from rsir_core.evaluation.auto import score_auto
from rsir_core.evaluation.duplicates import find_duplicates, write_duplicates
from rsir_core.evaluation.evaluation import Evaluation, Run, Scored
from rsir_core.evaluation.gallery import GalleryRow
from rsir_core.evaluation.metrics import score_retrieval, top_confusion
from rsir_core.evaluation.no_match import score_no_match
from rsir_core.evaluation.report import arms_table, write_report
from rsir_core.evaluation.unseen import score_unseen
from rsir_core.extras import require
from rsir_core.models.calibration import score_calibration
from rsir_core.storage.filesystem import make_folder

log = logging.getLogger("jobs.evaluate")


def evaluate(config: EvaluateConfig) -> Summary:
    """Run the job: measure, and write the report."""
    began = time.monotonic()
    require("matplotlib")  # for the plots, which come last
    evaluation, pairs = measure(config)
    write_duplicates(config.report, pairs)
    write_report(config.report, evaluation)
    Console().print(arms_table(evaluation))
    metrics = evaluation.metrics()
    names = ("map", "map_sd", "anmrr", "anmrr_sd", "accuracy", "queries", "database")
    return {
        **{name: metrics[name] for name in names if name in metrics},
        "seconds": round(time.monotonic() - began, 1),
        "report": config.report,
    }


def measure(config: EvaluateConfig) -> tuple[Evaluation, list[dict[str, Any]]]:
    """Label, rank and score by every arm for every seed; also returns all pairs of images that are one picture."""
    seeds = _checked(config)
    subjects = [open_evaluated_index(config, seed) for seed in seeds]
    if odd := [s.seed for s in subjects if s.arms != subjects[0].arms]:
        raise ConfigError(
            f"--seeds {','.join(config.seeds or ())}: seed {odd[0]} has another backbone, tau or dimensions than "
            "the first; compare indexes that were made alike"
        )
    with joined(config.address, config.needs, config.verbose) if subjects[0].again else nullcontext():
        runs = [evaluate_index(subject, config) for subject in subjects]
    first = subjects[0]
    duplicates, pairs = find_duplicates(
        features := first.index.features(first.version), of_seed(config.split, first.seed), reading_of(config, features)
    )
    return Evaluation(runs, main_arm(first.arms, first.own), duplicates), pairs


def of_probabilities(subject: EvaluatedIndex) -> dict[str, Any]:
    """Score the stored class probabilities: unseen classes, no-match and calibration."""
    feature, p = (schemas.to_matrix(subject.features[name]) for name in (schemas.FEATURE, schemas.CLASS_PROBABILITIES))
    labels, classifier, unaveraged = subject.labels, subject.classifier, schemas.unaveraged_features(subject.features)
    return {
        "unseen": score_unseen(feature, p, labels, classifier.classes, unaveraged),
        "no_match": score_no_match(unaveraged, p, labels, classifier.classes),
        "calibration": score_calibration(p, labels, classifier.classes, classifier.temperature),
    }


def evaluate_index(subject: EvaluatedIndex, config: EvaluateConfig) -> Run:
    """Score every arm over one index; what is not stored is described first."""
    own = stored(subject.index, subject.features)
    described = {subject.own.variation: own, **describe_again(subject, config)}
    scored = dict(scores for pair in by_vectors(subject.arms) for scores in score_arms(pair, described, subject.labels))
    main = main_arm(subject.arms, subject.own)
    if excluded := scored[main].scores.excluded:
        log.warning(
            "%d of %d images are the only one of their label here: they are in the database, but no queries",
            excluded, len(subject.labels),
        )  # fmt: skip
    database = described[main.variation]
    strips: list[GalleryRow] = []
    if "figure5" in subject.sets:
        pair = {Arm(subject.own.whole, None, "plain"): "whole image, plain", main: "the method"}
        strips = make_strips(subject, pair, described, choose_queries(scored[main].scores, subject.labels))
    return Run(
        subject.seed,
        {arm: scored[arm] for arm in subject.arms},
        subject.labels,
        _accuracy(subject.features, subject.labels, subject.classifier.classes),
        top_confusion(database.vectors(main.components), database.class_probabilities, subject.labels),
        strips,
        subject.protocol,
        of_probabilities(subject),
    )


def score_arms(
    arms: Sequence[Arm], described: Mapping[Variation, Described], labels: Sequence[str]
) -> Iterator[tuple[Arm, Scored]]:
    """Rank and score one database by one kind of vector, for each distance."""
    database = described[arms[0].variation]
    vectors, p = database.vectors(arms[0].components), database.class_probabilities
    for arm in arms:
        scores = score_retrieval(vectors, p, labels, arm.distance == "weighted")
        if arm.distance == "auto":  # with the weighted distance for some queries
            scores, _ = score_auto(vectors, p, labels, scores, database.unaveraged)
        log.info("%s, %d dimensions: mAP %.4f, ANMRR %.4f", arm, vectors.shape[1], scores.map, scores.anmrr)
        yield arm, Scored(vectors.shape[1], scores, vectors is database.feature and database.unaveraged is not None)


def by_vectors(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Group arms that compare the same vectors, so that these are computed once."""
    groups: dict[tuple[Variation, int | None], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.variation, arm.components), []).append(arm)
    return list(groups.values())


def _checked(config: EvaluateConfig) -> Sequence[str | None]:
    """Check the options, create the report folder, and return the seeds."""
    sets, arms = parse_arms(config.arms), ",".join(config.arms)
    if config.weights is not None and "frozen" not in sets:
        raise ConfigError(
            f"--weights {config.weights}: only the arm frozen uses them; add it to --arms {arms}, or drop this"
        )
    if config.peers and "table5" not in sets:
        raise ConfigError(
            f"--peers {','.join(config.peers)}: only table5 compares with them; add it to --arms {arms}, or drop this"
        )
    if "table5" in sets and not config.peers:
        raise ConfigError(
            "--arms table5 compares with whole images by other backbones; make a bundle of each, as by `python -m "
            "jobs.finetune_classifier --archive … --seed … --tau 1 --backbone vgg16 --models peers/vgg16` (and "
            "resnet50; --weights FILE where no ImageNet weights can be downloaded), and pass --peers "
            "peers/vgg16,peers/resnet50. The rows of the method itself are in --arms key_region"
        )
    seeds = config.seeds or ()
    if bool(seeds) != (SEED in config.index):
        raise ConfigError(
            f"--seeds {','.join(seeds)} and --index {config.index}: write {SEED} where the seed stands in the URI, "
            "as in --index runs/seed{seed}/index --seeds 0,1,2"
        )
    make_folder("--report", config.report)
    return seeds or (None,)


def _accuracy(features: pa.Table, labels: Sequence[str], classes: Sequence[str]) -> float | None:
    """Compute the share of images whose class is their label; None if a label is no class name."""
    if not set(labels) <= set(classes):
        return None
    return float(np.mean(np.array(features[schemas.CLASS].to_pylist()) == np.array(labels)))

"""Score retrieval over an index: `python -m jobs.evaluate --index URI --report DIR [--split CSV]`.

Every labelled image is a query once, against all others. Labels come from a split CSV, else from folder names.
"""

import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from rich.console import Console

from jobs.cluster import joined
from jobs.config import EvaluateConfig, Summary, run
from jobs.evaluate_describing import Described, describe_again, stored
from jobs.evaluate_duplicates import find_duplicates, write_duplicates
from jobs.evaluate_labels import count_trained_on, label_rows
from rsir_core import rows
from rsir_core.arms import Arm, Own, Variation, main_arm, parse_arms, plan_arms
from rsir_core.bundle import read_settings
from rsir_core.errors import ConfigError, TableError
from rsir_core.evaluation import Evaluation, Run, Scored
from rsir_core.metrics import PROTOCOL, score_retrieval, top_confusion
from rsir_core.report import arms_table, write_report
from rsir_core.table import Index
from rsir_core.unseen import score_unseen

log = logging.getLogger(__name__)
SEED = "{seed}"


@dataclass(frozen=True)
class Subject:
    """An index to evaluate, opened: what can be wrong with it is found out before anything is described."""

    seed: str | None
    index: Index
    features: pa.Table  # the rows to rank, schema `rows.FEATURES`, by image id
    labels: list[str]
    classes: tuple[str, ...]
    own: Own
    arms: list[Arm]
    protocol: dict[str, Any]

    @property
    def again(self) -> dict[Variation, Variation]:
        """The ways in which its images must be described again, each with what it is for this seed."""
        wanted = dict.fromkeys(arm.variation for arm in self.arms if arm.variation != self.own.variation)
        return {v: v._replace(peer=_of_seed(v.peer, self.seed)) for v in wanted}


def evaluate(config: EvaluateConfig) -> Summary:
    """Label, rank and score by every arm, for every seed, and write the report."""
    began = time.monotonic()
    seeds = _checked(config)
    subjects = [open_subject(config, seed) for seed in seeds]
    if odd := [s.seed for s in subjects if s.arms != subjects[0].arms]:
        raise ConfigError(
            f"--seeds {config.seeds}: seed {odd[0]} has another backbone, tau or dimensions than the first; "
            "compare indexes that were made alike"
        )
    with joined(config.address) if subjects[0].again else nullcontext():
        runs = [evaluate_subject(subject, config.batch_size) for subject in subjects]
    first = subjects[0]
    duplicates, pairs = find_duplicates(first.index.features(), _of_seed(config.split, first.seed))
    write_duplicates(config.report, pairs)
    findings = {"duplicates": duplicates, "unseen": unseen_of(first)}
    evaluation = Evaluation(runs, main_arm(first.arms, first.own), findings)
    write_report(config.report, evaluation)
    Console().print(arms_table(evaluation))
    metrics = evaluation.metrics()
    names = ("map", "map_sd", "anmrr", "anmrr_sd", "accuracy", "queries", "database")
    return {
        **{name: metrics[name] for name in names if name in metrics},
        "seconds": round(time.monotonic() - began, 1),
        "report": config.report,
    }


def unseen_of(subject: Subject) -> dict[str, Any] | None:
    """What `unseen` says of the rows as they are stored."""
    columns = (rows.to_matrix(subject.features[name]) for name in (rows.FEATURE, rows.CLASS_PROBABILITIES))
    return score_unseen(*columns, subject.labels, subject.classes)


def open_subject(config: EvaluateConfig, seed: str | None) -> Subject:
    """The newest version of a seed's index, its labelled rows, and the arms that it allows.

    Raises:
        TableError: no index, or an empty one.
        LabelError: rows and labels do not fit.
        BundleError: a bundle is missing.
    """
    index = Index(_of_seed(config.index, seed))
    version = index.version()
    features = index.features(version)
    if len(features) == 0:
        raise TableError(f"version {version} of the index {index.uri} has no rows; index an archive first")
    split = _of_seed(config.split, seed)
    features, labels, notes = label_rows(features, split)
    fingerprint, pca = (features[name][0].as_py() for name in (rows.BUNDLE, rows.PCA))
    settings, moments = index.bundle_settings(fingerprint), index.pca(pca).moments
    peers = {peer: _of_seed(peer, seed) for peer in _list(config.peers)}
    own = Own(
        Variation(settings.tau, settings.classifier.backbone),
        components=len(features[rows.FEATURE][0]),
        most=min(moments.count - 1, len(moments.mean)),
        peers=tuple(Variation(1.0, read_settings(uri).classifier.backbone, peer) for peer, uri in peers.items()),
    )
    protocol = {
        **PROTOCOL,
        **notes,
        "index": index.uri,
        "index_version": version,
        "bundle": fingerprint,
        "backbone": settings.classifier.backbone,
        "detector": settings.detector.model if settings.detector else None,
        "pca": pca,
        "pca_fitted_to": "key regions as stored: all images of the index; described again: those of the database",
        "tau": settings.tau,
    }
    if split is not None:
        bundles = {"own": f"{index.uri}/bundle", **peers}
        protocol["images_trained_on"] = {name: count_trained_on(uri, features) for name, uri in bundles.items()}
    return Subject(
        seed, index, features, labels, settings.classes, own, plan_arms(parse_arms(config.arms), own), protocol
    )


def evaluate_subject(subject: Subject, batch_size: int) -> Run:
    """Describe what is not stored, and score every arm."""
    again = describe_again(subject.index, subject.features, subject.again, batch_size)
    described = {subject.own.variation: stored(subject.index, subject.features), **again}
    scored = dict(scores for pair in by_vectors(subject.arms) for scores in score_arms(pair, described, subject.labels))
    arms = {arm: scored[arm] for arm in subject.arms}
    main = main_arm(subject.arms, subject.own)
    database = described[main.variation]
    confusion = top_confusion(database.vectors(main.components), database.class_probabilities, subject.labels)
    accuracy = _accuracy(subject.features, subject.labels, subject.classes)
    return Run(subject.seed, arms, subject.labels, accuracy, confusion, subject.protocol)


def score_arms(
    arms: Sequence[Arm], described: Mapping[Variation, Described], labels: Sequence[str]
) -> Iterator[tuple[Arm, Scored]]:
    """Rank and score one database by one kind of vectors, by each distance."""
    database = described[arms[0].variation]
    vectors = database.vectors(arms[0].components)
    for arm in arms:
        scores = score_retrieval(vectors, database.class_probabilities, labels, arm.weighted)
        log.info("%s, %d dimensions: mAP %.4f, ANMRR %.4f", arm, vectors.shape[1], scores.map, scores.anmrr)
        yield arm, Scored(vectors.shape[1], scores)


def by_vectors(arms: Sequence[Arm]) -> list[list[Arm]]:
    """Arms that compare the same vectors together, so that each kind is made once."""
    groups: dict[tuple[Variation, int | None], list[Arm]] = {}
    for arm in arms:
        groups.setdefault((arm.variation, arm.components), []).append(arm)
    return list(groups.values())


def _checked(config: EvaluateConfig) -> list[str | None]:
    """The seeds, after a look at what can be wrong with the command alone, and a report folder that can be made."""
    if "table5" in parse_arms(config.arms) and not config.peers:
        raise ConfigError(
            "--arms table5 compares with whole images by other backbones; make a bundle of each, as by `python -m "
            "jobs.finetune_classifier --archive … --seed … --tau 1 --backbone vgg16 --models peers/vgg16` (and "
            "resnet50; --weights FILE where no ImageNet weights can be downloaded), and pass --peers "
            "peers/vgg16,peers/resnet50. The rows of the method itself are in --arms key_region"
        )
    seeds = _list(config.seeds)
    if bool(seeds) != (SEED in config.index):
        raise ConfigError(
            f"--seeds {config.seeds or ''} and --index {config.index}: write {SEED} where the seed stands in the URI, "
            "as in --index runs/seed{seed}/index --seeds 0,1,2"
        )
    try:
        fs, path = fsspec.core.url_to_fs(config.report)
        fs.makedirs(path, exist_ok=True)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"--report {config.report}: the folder cannot be made: {error}") from error
    return list(seeds) or [None]


def _list(text: str | None) -> list[str]:
    """The parts of a comma-separated list, each once."""
    return list(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def _of_seed(uri: Any, seed: str | None) -> Any:
    """The URI of a seed's own."""
    return uri if uri is None or seed is None else uri.replace(SEED, seed)


def _accuracy(features: pa.Table, labels: Sequence[str], classes: Sequence[str]) -> float | None:
    """Share of images whose class is their label; None where a label is no class name."""
    if not set(labels) <= set(classes):
        return None
    return float(np.mean(np.array(features[rows.CLASS].to_pylist()) == np.array(labels)))


if __name__ == "__main__":
    sys.exit(run(evaluate, EvaluateConfig, "evaluate"))

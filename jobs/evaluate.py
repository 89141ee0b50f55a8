"""Score retrieval over an index: `python -m jobs.evaluate --index URI --report DIR [--split CSV]`.

Every labelled image is a query once, against all others. Labels come from a split CSV, else from folder names.
"""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
import torch
from ray.data import ActorPoolStrategy
from rich.console import Console

from jobs.cluster import joined
from jobs.config import EvaluateConfig, Summary, run
from jobs.describing import actor_count
from rsir_core import rows
from rsir_core.describe import Describer
from rsir_core.errors import ConfigError, ImageError, LabelError, TableError
from rsir_core.labels import folder_label, read_split
from rsir_core.metrics import PROTOCOL, score_retrieval
from rsir_core.pca import Moments, unit_length
from rsir_core.raster import read_picture
from rsir_core.report import ARM_REGIONS, Arm, ArmRegion, Evaluation, arms_table, write_report
from rsir_core.table import Index

log = logging.getLogger(__name__)


class Described(NamedTuple):
    """The database of an arm: n images."""

    feature: rows.Floats  # (n, K)
    embedding: rows.Floats  # (n, D)
    class_probabilities: rows.Floats  # (n, C)


class DescribeWhole:
    """Stage: describe whole images again, by an index's own bundle."""

    def __init__(self, index: str, bundle: str) -> None:
        torch.set_num_threads(1)
        self.describer = Describer(Index(index).bundle(bundle))

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
        """Columns `position`, `embedding` (D), `class_probabilities` (C), `message` (null: it was read) by `uri`."""
        images: list[npt.NDArray[np.uint8]] = []
        messages: list[str | None] = []
        for uri in batch[rows.URI]:
            try:
                images.append(read_picture(uri).pixels)
                messages.append(None)
            except ImageError as error:
                images.append(np.zeros((1, 1, 3), np.uint8))  # keeps the rows aligned; the job fails by its message
                messages.append(str(error))
        found = self.describer.describe(images, tau=1.0)
        return {
            "position": batch["position"],
            rows.EMBEDDING: found.embedding.astype(np.float32),
            rows.CLASS_PROBABILITIES: found.class_probabilities,
            rows.MESSAGE: messages,
        }


def evaluate(config: EvaluateConfig) -> Summary:
    """Label, rank and score by every arm, and write the report."""
    began = time.monotonic()
    regions = _checked_regions(config)
    index = Index(config.index)
    version = index.version()
    features = index.features(version)
    if len(features) == 0:
        raise TableError(f"version {version} of the index {config.index} has no rows; index an archive first")
    features, labels, notes = label_rows(features, config.split)
    fingerprint = features[rows.BUNDLE][0].as_py()
    bundle = index.bundle(fingerprint)
    arms = [
        arm
        for region in regions
        for arm in run_arms(region, _describe(region, index, features, config.batch_size, config.address), labels)
    ]
    protocol = {
        **PROTOCOL,
        **notes,
        "index": config.index,
        "index_version": version,
        "bundle": fingerprint,
        "pca": features[rows.PCA][0].as_py(),
        "pca_fitted_to": "key_region: all images of the index; whole_image: those of the database",
        "tau": bundle.tau,
    }
    evaluation = Evaluation(arms, labels, _accuracy(features, labels, bundle.classes), protocol)
    write_report(config.report, evaluation)
    Console().print(arms_table(evaluation))
    metrics = evaluation.metrics()
    return {
        **{name: metrics[name] for name in ("map", "anmrr", "accuracy", "queries", "database")},
        "seconds": round(time.monotonic() - began, 1),
        "report": config.report,
    }


def label_rows(features: pa.Table, split: str | None) -> tuple[pa.Table, list[str], dict[str, Any]]:
    """The rows to evaluate, their labels, and where both come from, for the protocol.

    Raises:
        LabelError: no label for a row, or no row for any test image.
    """
    if split is None:
        log.warning("no --split: every image is scored, those that the models were trained on included")
        labels = [folder_label(image_id) for image_id in features[rows.IMAGE_ID].to_pylist()]
        return features, labels, {"images": "all of the index, training images included", "labels": "folder names"}
    tests = {image.uri: image.label for image in read_split(split) if image.split == "test"}
    if not tests:
        raise LabelError(f"{split} has no row whose split is test; leave --split out to evaluate every image")
    places = match(list(tests), features)
    missing = [uri for uri in tests if uri not in places]
    if not places:
        raise LabelError(
            f"none of the {len(tests)} test images of {split} is in the index, such as {', '.join(missing[:3])}; "
            f"its first is {features[rows.URI][0]}: pass the split file of this archive"
        )
    if missing:
        log.warning("%d of %d test images are not in the index, such as %s", len(missing), len(tests), missing[0])
    chosen = sorted((place, tests[uri]) for uri, place in places.items())
    notes = {
        "images": "test images of the split file",
        "labels": "split file",
        "split": split,
        "split_test_images": len(tests),
        "split_not_in_index": len(missing),
    }
    return features.take([place for place, _ in chosen]), [label for _, label in chosen], notes


def match(uris: Sequence[str], features: pa.Table) -> dict[str, int]:
    """The row of each URI that has one.

    By URI; where not one URI is known, the archive has moved since, and an image id that ends the URI's path counts.

    Raises:
        LabelError: two URIs end in one image id.
    """
    known = {uri: i for i, uri in enumerate(features[rows.URI].to_pylist())}
    if places := {uri: known[uri] for uri in uris if uri in known}:
        return places
    known = {image_id: i for i, image_id in enumerate(features[rows.IMAGE_ID].to_pylist())}
    owner: dict[int, str] = {}
    for uri in uris:
        parts = uri.split("/")
        endings = ("/".join(parts[start:]) for start in range(len(parts)))
        place = next((known[ending] for ending in endings if ending in known), None)
        if place is not None and owner.setdefault(place, uri) != uri:
            raise LabelError(
                f"{owner[place]} and {uri} both end in the image id {features[rows.IMAGE_ID][place]}; "
                "pass a split file with the URIs of the index"
            )
    return {uri: place for place, uri in owner.items()}


def run_arms(region: ArmRegion, described: Described, labels: Sequence[str]) -> list[Arm]:
    """Score one database by features and by unit-length embeddings, by the plain and the weighted distance."""
    arms = []
    for pca, vectors in ((False, unit_length(described.embedding).astype(np.float32)), (True, described.feature)):
        for weighted in (False, True):
            scores = score_retrieval(vectors, described.class_probabilities, labels, weighted)
            arms.append(Arm(region, pca, weighted, vectors.shape[1], scores))
            log.info("%s: mAP %.4f, ANMRR %.4f", arms[-1].name, scores.map, scores.anmrr)
    return arms


def _describe(region: ArmRegion, index: Index, features: pa.Table, batch_size: int, address: str | None) -> Described:
    """The rows of an arm: as they are stored, or described again."""
    feature = rows.to_matrix(features[rows.FEATURE])
    if region == "key_region":
        probabilities = rows.to_matrix(features[rows.CLASS_PROBABILITIES])
        return Described(feature, index.embeddings(features), probabilities)
    with joined(address):
        whole = _describe_whole(index, features, batch_size)
    embedding = np.stack([row[rows.EMBEDDING] for row in whole])
    components = min(feature.shape[1], len(embedding) - 1)  # a small test half can have fewer rows than dimensions
    pca = Moments.of(embedding).fit(components)
    probabilities = np.stack([row[rows.CLASS_PROBABILITIES] for row in whole])
    return Described(pca.transform(embedding), embedding, probabilities)


def _describe_whole(index: Index, features: pa.Table, batch_size: int) -> list[dict[str, Any]]:
    images = [{"position": i, rows.URI: uri} for i, uri in enumerate(features[rows.URI].to_pylist())]
    stage = ray.data.from_items(images).map_batches(
        DescribeWhole,
        fn_constructor_args=(index.uri, features[rows.BUNDLE][0].as_py()),
        compute=ActorPoolStrategy(size=actor_count(num_gpus=0)),
        batch_size=batch_size,
        num_cpus=1,
    )
    whole = sorted(stage.take_all(), key=lambda row: row["position"])
    if unread := [row[rows.MESSAGE] for row in whole if row[rows.MESSAGE] is not None]:
        raise ImageError(
            f"{len(unread)} images cannot be read again for the arm whole_image, for example: {unread[0]}; "
            "bring the index up to date with jobs.index, or pass --arms key_region",
            "read",
            "error",
        )
    return whole


def _checked_regions(config: EvaluateConfig) -> list[ArmRegion]:
    """The arms asked for, and a report folder that can be made: found out before anything is described."""
    names = {name.strip() for name in config.arms.split(",")}
    if unknown := sorted(names - set(ARM_REGIONS)):
        raise ConfigError(f"--arms {config.arms}: {unknown[0]!r} is none; known are {', '.join(ARM_REGIONS)}")
    try:
        fs, path = fsspec.core.url_to_fs(config.report)
        fs.makedirs(path, exist_ok=True)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"--report {config.report}: the folder cannot be made: {error}") from error
    return [region for region in ARM_REGIONS if region in names]


def _accuracy(features: pa.Table, labels: Sequence[str], classes: Sequence[str]) -> float | None:
    """Share of images whose class is their label; None where a label is no class name."""
    if not set(labels) <= set(classes):
        return None
    return float(np.mean(np.array(features[rows.CLASS].to_pylist()) == np.array(labels)))


if __name__ == "__main__":
    sys.exit(run(evaluate, EvaluateConfig, "evaluate"))

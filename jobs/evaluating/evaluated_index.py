"""An index to evaluate, opened: its labelled rows and the arms that it allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from jobs.evaluating.options import EvaluateConfig
from rsir_core import schemas
from rsir_core.errors import ConfigError, TableError
from rsir_core.evaluation.arms import Arm, ArmSet, IndexSetup, Variation, parse_arms, plan_arms
from rsir_core.evaluation.labelled_rows import count_trained_on, label_rows
from rsir_core.evaluation.metrics import PROTOCOL
from rsir_core.index.index import Index
from rsir_core.index.layout import bundle_uri
from rsir_core.models.bundle import Bundle, read_settings
from rsir_core.models.frozen import frozen_bundle
from rsir_core.models.settings import ClassifierSettings

SEED: Final = "{seed}"


@dataclass(frozen=True)
class EvaluatedIndex:
    """Hold an opened index to evaluate; its errors are found before anything is described."""

    seed: str | None
    index: Index
    version: int
    features: pa.Table  # the rows to rank, schema `schemas.FEATURES`, by image id
    labels: list[str]
    classifier: ClassifierSettings
    own: IndexSetup
    sets: list[ArmSet]
    arms: list[Arm]  # of those sets
    protocol: dict[str, Any]
    frozen: Bundle | None  # the bundle of the arms of set `frozen`; None: not asked for

    @property
    def again(self) -> dict[Variation, Variation]:
        """The variations that need its images described again, mapped to those with this seed's URIs."""
        wanted = dict.fromkeys(arm.variation for arm in self.arms if arm.variation != self.own.variation)
        return {v: v._replace(peer=of_seed(v.peer, self.seed)) for v in wanted}


def open_evaluated_index(config: EvaluateConfig, seed: str | None) -> EvaluatedIndex:
    """Open the newest version of a seed's index, with its labelled rows and the arms that it allows.

    Raises:
        TableError: the index does not exist, or is empty.
        ConfigError: an arm needs a detector, and the index has none.
        LabelError: rows and labels do not fit.
        BundleError: a bundle is missing.
        WeightsError: the weights of the arm `frozen` cannot be read, or do not fit.
    """
    index = Index(of_seed(config.index, seed))
    version = index.version()
    features = index.features(version)
    if len(features) == 0:
        raise TableError(f"version {version} of the index {index.uri} has no rows; index an archive first")
    split = of_seed(config.split, seed)
    features, labels, notes = label_rows(features, split)
    fingerprint, pca = (features[name][0].as_py() for name in (schemas.BUNDLE, schemas.PCA))
    settings, moments = index.bundle_settings(fingerprint), index.pca(pca).moments
    trained = settings.classifier
    peers = {peer: of_seed(peer, seed) for peer in config.peers or ()}
    own = IndexSetup(
        Variation(settings.tau, settings.classifier.backbone),
        components=len(features[schemas.FEATURE][0]),
        most=min(moments.count - 1, len(moments.mean)),
        peers=tuple(Variation(1.0, read_settings(uri).classifier.backbone, peer) for peer, uri in peers.items()),
        detector=settings.detector is not None,
    )
    protocol = {**PROTOCOL, **notes, "index": index.uri, "index_version": version, **_setup(index, fingerprint, pca)}
    if split is not None:
        bundles = {"own": bundle_uri(index.uri), **peers}
        protocol["images_trained_on"] = {name: count_trained_on(uri, features) for name, uri in bundles.items()}
    sets = parse_arms(config.arms)
    if "objects" in sets and not own.detector:
        raise ConfigError(
            f"--arms {','.join(config.arms)}: what described {index.uri} has no detector, so there are no objects to "
            "compare; jobs.finetune_detector adds one to a bundle, or leave objects out"
        )
    arms = plan_arms(sets, own)
    if not settings.has_backbone:
        _check_described(arms, own, index.uri)
    frozen = frozen_bundle(trained.backbone, config.weights, trained.image_size) if "frozen" in sets else None
    if frozen is not None:
        protocol["frozen_weights"] = config.weights or "as the backbone ships them"
    return EvaluatedIndex(
        seed, index, version, features, labels, settings.classifier, own, sets, arms, protocol, frozen
    )


def _setup(index: Index, fingerprint: str, pca: str) -> dict[str, Any]:
    """Say, for the protocol, by what the stored rows were described."""
    settings = index.bundle_settings(fingerprint)
    detector = settings.detector
    return {
        "bundle": fingerprint,
        "backbone": settings.classifier.backbone,
        "classes": len(settings.classes),
        "detector": detector.model if detector else None,
        "object": detector.rule if detector else None,
        "trained_side": detector.trained_side if detector else None,
        "pca": pca,
        "averaged_neighbours": index.pca(pca).neighbours,
        "pca_fitted_to": "key regions as stored: all images of the index; described again: those of the database",
        "tau": settings.tau,
        "temperature": settings.classifier.temperature,
    }


def _check_described(arms: Sequence[Arm], own: IndexSetup, uri: str) -> None:
    """Check that arms need no more than what an index of embeddings by others has.

    Raises:
        ConfigError: an arm's images would have to be described.
    """
    for arm in arms:
        if arm.variation != own.variation:
            raise ConfigError(
                f"--arms: {uri} was made of embeddings without the model that made them, so no image can be described "
                f"as for {arm}; pass --arms key_region"
            )


def of_seed(uri: Any, seed: str | None) -> Any:
    """Format the URI of a seed's own file or folder."""
    return uri if uri is None or seed is None else uri.replace(SEED, seed)

"""Everything about models but their weights."""

from dataclasses import dataclass, field
from typing import Final

from rsir_core.models.regions import ObjectRule

RANDOM: Final = "random"  # in place of a weights file: train from scratch
EXTERNAL: Final = "external"  # in place of a backbone's name: somebody else made the embeddings


@dataclass(frozen=True)
class ClassifierSettings:
    """Hold everything but the weights that is needed to run the classifier as it was trained.

    Attributes:
        backbone: name, see `build_classifier`; `torchscript` for a program in the bundle, `EXTERNAL` for none.
        classes: names, in the order of the logits.
        image_size: side in pixels to which key regions are resized, without keeping the aspect ratio.
        mean: subtracted per channel, for values in 0..1.
        std: divisor per channel.
        temperature: divisor of the logits before the softmax, see `calibration`; 1: not calibrated.
        views: number of rotations that are averaged, one of `VIEWS`.
        source: hash of what a bundle without classes was made from, see `jobs.indexing.frozen`; empty: it was trained.
        dimensions: of embeddings that somebody else made (`EXTERNAL`); None: the backbone's.
    """

    backbone: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float = 1.0  # bundles of earlier versions lack this
    views: int = 1  # and this
    source: str = ""  # and this
    dimensions: int | None = None  # and this


@dataclass(frozen=True)
class DetectorSettings:
    """Hold everything about a detector but its weights.

    Attributes:
        model: one of `MODELS`.
        classes: names of the object classes, in the order of the head's outputs.
        image_size: pixels of the longer side to which images are letterboxed, as in training.
        min_score: confidence from which a detection counts as an object.
        rule: which object represents the image; bundles written before there was a choice use the most confident.
        trained_side: pixels of the longer side of the classifier's training images, with which key regions of larger
            images take the size of their objects, see `object_tau`; None: tau is fixed.
    """

    model: str
    classes: tuple[str, ...]
    image_size: int
    min_score: float
    rule: ObjectRule = "confidence"
    trained_side: int | None = None


@dataclass(frozen=True)
class BundleSettings:
    """Hold a model bundle without its weights.

    Attributes:
        classifier: settings of the classifier.
        detector: settings of the detector; None: every key region is centred on the image.
        tau: key region's share of height and width.
        fingerprint: hash of all of this and of the weights; equal fingerprints describe equally.
        regions: how many regions of an image are described at most: the key region, and those of its objects.
    """

    classifier: ClassifierSettings
    detector: DetectorSettings | None
    tau: float
    fingerprint: str
    regions: int = field(default=1, kw_only=True)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the class probabilities."""
        return self.classifier.classes

    @property
    def has_backbone(self) -> bool:
        """Tell whether images can be described."""
        return self.classifier.backbone != EXTERNAL

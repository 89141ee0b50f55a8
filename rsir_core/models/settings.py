"""What models are besides their weights."""

from dataclasses import dataclass

from rsir_core.models.regions import ObjectRule


@dataclass(frozen=True)
class ClassifierSettings:
    """Hold what is needed, besides the weights, to run the classifier as it was trained.

    Attributes:
        backbone: name, see `build_classifier`.
        classes: names, in the order of the logits.
        image_size: side in pixels to which key regions are resized (both sides; the aspect is not kept).
        mean: subtracted per channel from values in 0..1.
        std: divided by per channel.
        temperature: by which logits are divided before the softmax, see `calibration`; 1: not calibrated.
        views: of VIEWS, how many of each image are averaged.
    """

    backbone: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    temperature: float = 1.0  # bundles of earlier versions say nothing about this
    views: int = 1  # nor about this


@dataclass(frozen=True)
class DetectorSettings:
    """Hold what a detector is besides its weights.

    Attributes:
        model: one of `MODELS`.
        classes: names of the object classes, in the order of the head's outputs.
        image_size: pixels of the longer side to which images are letterboxed, as in training.
        min_score: confidence from which a detection counts as an object.
        rule: which object represents the image; bundles from before there was a choice have the surest.
    """

    model: str
    classes: tuple[str, ...]
    image_size: int
    min_score: float
    rule: ObjectRule = "confidence"


@dataclass(frozen=True)
class BundleSettings:
    """A model bundle without its weights.

    Attributes:
        classifier: settings of the classifier.
        detector: settings of the detector; None: every key region is centred on the image.
        tau: key region's share of height and width.
        fingerprint: hash of all of this and of the weights; equal fingerprints describe equally.
    """

    classifier: ClassifierSettings
    detector: DetectorSettings | None
    tau: float
    fingerprint: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the class probabilities."""
        return self.classifier.classes

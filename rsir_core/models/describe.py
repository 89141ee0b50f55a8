"""Describe images, for the index and for queries alike: detect, crop the key region, embed, classify."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from rsir_core.arrays import Floats, Pixels
from rsir_core.models.bundle import Bundle
from rsir_core.models.classifier import Classifier
from rsir_core.models.detector import Detector
from rsir_core.models.regions import (
    GIVEN,
    Box,
    DetectedObject,
    ObjectRule,
    Region,
    key_region,
    object_region,
    object_tau,
)
from rsir_core.models.representative import MAX_COMPARED, representative_first


@dataclass(frozen=True)
class Descriptions:
    """Hold the descriptions of n images.

    Attributes:
        embedding: (n, D) float16, the backbone's pooled vector of the key region.
        class_probabilities: (n, C) float32, softmax.
        regions: the key regions.
        objects: the representative objects; None: no object was found, and the key region is centred on the image.
    """

    embedding: npt.NDArray[np.float16]
    class_probabilities: Floats
    regions: list[Region]
    objects: list[DetectedObject | None]


@dataclass(frozen=True)
class DescribedObjects:
    """Hold the descriptions of the m objects of n images.

    Attributes:
        counts: (n,) objects of each image.
        regions: those of the first image first, most confident first, each with its object; `objects` has no None.
    """

    counts: list[int]
    regions: Descriptions


class Describer:
    """Run a model bundle on one device.

    Args:
        bundle: the models.
        device: `cpu`, `cuda`, …
    """

    def __init__(self, bundle: Bundle, device: str = "cpu") -> None:
        self.bundle = bundle
        self._classifier = Classifier(bundle.classifier, bundle.classifier_state, device)
        self._detector = (
            None if bundle.detector is None else Detector(bundle.detector, bundle.detector_state, device)
        )  # fmt: skip

    def describe(
        self,
        images: Sequence[Pixels],
        boxes: Sequence[Box | None] | None = None,
        tau: float | None = None,
        rule: ObjectRule | None = None,
        views: int | None = None,
    ) -> Descriptions:
        """Describe images of any sizes, H×W×3 uint8 RGB.

        Args:
            images: any number, also none.
            boxes: representative objects given by a person, in place of the detector's; None within: the image centre.
            tau: overrides the bundle's, also where key regions take their objects' sizes; 1 describes whole images and
                skips the detector.
            rule: overrides the bundle's rule of which detected object is the representative one.
            views: overrides the bundle's number of rotations that are averaged.
        """
        tau = self.bundle.tau if tau is None else tau
        return self._described(images, self._objects(images, boxes, tau, rule), tau, views)

    def _described(
        self, images: Sequence[Pixels], objects: list[DetectedObject | None], tau: float, views: int | None
    ) -> Descriptions:
        """Describe the key regions around objects."""
        regions = [
            self._key_region(image, found and found.box, tau) for image, found in zip(images, objects, strict=True)
        ]
        return replace(self.describe_regions(images, regions, views), objects=objects)

    def _key_region(self, image: Pixels, box: Box | None, tau: float) -> Region:
        """Choose the key region; it may take its object's size where `tau` is the bundle's."""
        height, width = image.shape[:2]
        trained_side = None if self.bundle.detector is None else self.bundle.detector.trained_side
        if box is not None and trained_side is not None and tau == self.bundle.tau:
            tau = object_tau(height, width, box, trained_side, tau)
        return key_region(height, width, box, tau)

    def describe_with_objects(self, images: Sequence[Pixels], most: int) -> tuple[Descriptions, DescribedObjects]:
        """Describe images as `describe` does, and besides the regions around their objects (see `object_region`).

        The representative object is among them, since a key region shows far more than its object.

        Args:
            images: any number, also none, H×W×3 uint8 RGB.
            most: objects of each image, at most; the most confident ones.
        """
        found = [[] for _ in images] if self._detector is None else self._detector.detect_all(images)
        tau = self.bundle.tau
        first = [[] for _ in images] if tau == 1 else self._ordered(images, found, tau, None)
        representative = [next(iter(of_image), None) for of_image in first]
        key = self._described(images, representative, tau, None)
        chosen = [of_image[:most] for of_image in found]
        places = [(image, o) for image, of_image in zip(images, chosen, strict=True) for o in of_image]
        regions = [object_region(image.shape[0], image.shape[1], o.box) for image, o in places]
        further = self.describe_regions([image for image, _ in places], regions)
        return key, DescribedObjects([len(o) for o in chosen], replace(further, objects=[o for _, o in places]))

    def describe_regions(
        self, images: Sequence[Pixels], regions: Sequence[Region], views: int | None = None
    ) -> Descriptions:
        """Describe a given region of each image; no object is looked for."""
        crops = [_crop(image, region) for image, region in zip(images, regions, strict=True)]
        embedding, logits = self._classifier.embed(crops, views)
        logits = logits.double() / self.bundle.classifier.temperature
        probabilities = torch.softmax(logits, dim=1).float()  # float64: small probabilities matter (complements)
        return Descriptions(embedding.half().numpy(), probabilities.numpy(), list(regions), [None] * len(regions))

    def all_objects(
        self, images: Sequence[Pixels], tau: float | None = None, rule: ObjectRule | None = None
    ) -> list[list[DetectedObject]]:
        """Find all objects of each image: the representative one first, the others by confidence. See `describe`."""
        if self._detector is None:
            return [[] for _ in images]
        return self._ordered(images, self._detector.detect_all(images), self.bundle.tau if tau is None else tau, rule)

    def _ordered(
        self, images: Sequence[Pixels], found: list[list[DetectedObject]], tau: float, rule: ObjectRule | None
    ) -> list[list[DetectedObject]]:
        """Put the representative object of each image first."""
        rule = rule or (self._detector.settings.rule if self._detector else "confidence")
        if not self.bundle.classes and rule == "agreement":  # there is no class to agree on
            rule = "confidence"
        agreement = self._agreement(images, found, tau) if rule == "agreement" else [()] * len(images)
        return [representative_first(of_image, rule, a) for of_image, a in zip(found, agreement, strict=True)]

    def _objects(
        self, images: Sequence[Pixels], boxes: Sequence[Box | None] | None, tau: float, rule: ObjectRule | None
    ) -> list[DetectedObject | None]:
        if boxes is not None:
            return [None if box is None else DetectedObject(box, 1.0, GIVEN) for box in boxes]
        if self._detector is None or tau == 1:
            return [None] * len(images)
        if (rule or self._detector.settings.rule) == "confidence":
            return self._detector.detect(images)  # needs no NMS
        return [next(iter(found), None) for found in self.all_objects(images, tau, rule)]

    def _agreement(
        self, images: Sequence[Pixels], found: Sequence[Sequence[DetectedObject]], tau: float
    ) -> list[Sequence[float]]:
        """Compute the probability of the whole image's class for key regions around its first objects.

        An image with fewer than two objects gets an empty list: there is nothing to choose.
        """
        compared = [of_image[:MAX_COMPARED] if len(of_image) > 1 else [] for of_image in found]
        crops: list[Pixels] = []
        for image, objects in zip(images, compared, strict=True):
            regions = [self._key_region(image, o.box, tau) for o in objects]
            crops += [image, *(_crop(image, region) for region in regions)] if regions else []
        probabilities = torch.softmax(self._classifier.embed(crops, views=1)[1], dim=1)
        agreement: list[Sequence[float]] = []
        start = 0
        for objects in compared:
            stop = start + len(objects) + bool(objects)
            of_image = probabilities[start:stop]
            agreement.append(of_image[1:, of_image[0].argmax()].tolist() if objects else [])
            start = stop
        return agreement


def _crop(image: Pixels, region: Region) -> Pixels:
    return image[region.y : region.y + region.height, region.x : region.x + region.width]

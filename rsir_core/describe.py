"""The one path from pixels to a descriptor, for the index and for queries: detect, crop, embed, classify."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from rsir_core.bundle import Bundle
from rsir_core.classifier import Classifier, Pixels
from rsir_core.detector import DetectedObject, Detector
from rsir_core.regions import Box, Region, key_region

GIVEN: Final = "given"  # the class of an object that a person drew


@dataclass(frozen=True)
class Descriptions:
    """What is known of n images.

    Attributes:
        embedding: (n, D) float16, the backbone's pooled vector of the key region.
        class_probabilities: (n, C) float32, softmax.
        regions: the key regions.
        objects: the representative objects; None: none found, the key region is centred on the image.
    """

    embedding: npt.NDArray[np.float16]
    class_probabilities: npt.NDArray[np.float32]
    regions: list[Region]
    objects: list[DetectedObject | None]


class Describer:
    """A model bundle on one device.

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
        self, images: Sequence[Pixels], boxes: Sequence[Box | None] | None = None, tau: float | None = None
    ) -> Descriptions:
        """Describe images of any sizes, H×W×3 uint8 RGB.

        Args:
            images: any number, none included.
            boxes: representative objects given by a person, instead of the detector's; None: the image centre.
            tau: instead of the bundle's; 1 describes whole images and skips the detector.
        """
        tau = self.bundle.tau if tau is None else tau
        objects = self._objects(images, boxes, tau)
        regions = [
            key_region(image.shape[0], image.shape[1], found and found.box, tau)
            for image, found in zip(images, objects, strict=True)
        ]
        crops = [image[r.y : r.y + r.height, r.x : r.x + r.width] for image, r in zip(images, regions, strict=True)]
        embedding, logits = self._classifier.embed(crops)
        logits = logits.double() / self.bundle.classifier.temperature
        probabilities = torch.softmax(logits, dim=1).float()  # float64: the small ones matter (complement)
        return Descriptions(embedding.half().numpy(), probabilities.numpy(), regions, objects)

    def all_objects(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
        """Of each image all objects, best first: the first is the representative one."""
        return [[] for _ in images] if self._detector is None else self._detector.detect_all(images)

    def _objects(
        self, images: Sequence[Pixels], boxes: Sequence[Box | None] | None, tau: float
    ) -> list[DetectedObject | None]:
        if boxes is not None:
            return [None if box is None else DetectedObject(box, 1.0, GIVEN) for box in boxes]
        if self._detector is None or tau == 1:
            return [None] * len(images)
        return self._detector.detect(images)

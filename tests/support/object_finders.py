"""Ways to find the object that a key region is centred on: by a detector, or where a classifier sees what."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from scipy.ndimage import uniform_filter
from scipy.special import softmax

from rsir_core.arrays import Floats, Pixels
from rsir_core.models.bundle import Bundle
from rsir_core.models.cam import ActivationMaps, boxes_of
from rsir_core.models.detector import Detector
from rsir_core.models.regions import Box

ENLARGEMENT: Final = 2  # of the side that the classifier was trained with, as `jobs.propose_boxes` has it
BLUR: Final = 3  # places of a map that are averaged, on each side
TOGETHER: Final = 8  # images at once
WAYS: Final = ("class map", "unlike the rest", "object classes", "detector", "both")
Boxes = list[list[Box]]  # of each image, the representative one first


class Finders:
    """Find objects of images by every way that the models allow.

    Args:
        bundle: of the classifier, and perhaps a detector.
        detecting: a bundle with another detector; None: the bundle's own, if it has one.
        objects: names of the classes that stand for objects, as a person would list them.
        threshold: share of a map's maximum that bounds an object.
    """

    def __init__(self, bundle: Bundle, detector: Detector | None, objects: Sequence[str], threshold: float) -> None:
        settings = replace(bundle.classifier, image_size=ENLARGEMENT * bundle.classifier.image_size)
        self._maps = ActivationMaps(settings, bundle.classifier_state)
        self._temperature, self._detector, self._threshold = settings.temperature, detector, threshold
        self._objects = [i for i, name in enumerate(settings.classes) if name in objects]

    def find(self, images: Sequence[Pixels]) -> dict[str, Boxes]:
        """Find the objects of images, at any number; by the name of the way."""
        found: dict[str, Boxes] = {}
        for start in range(0, len(images), TOGETHER):
            part = images[start : start + TOGETHER]
            for name, boxes in self._find(part).items():
                found.setdefault(name, []).extend(boxes)
        return found

    def _find(self, images: Sequence[Pixels]) -> dict[str, Boxes]:
        logits = self._maps.logit_maps(images)  # N × C × h × w
        found = {
            "class map": self._boxes(images, logits, predicted_class),
            "unlike the rest": self._boxes(images, logits, lambda z: unlike_the_rest(z / self._temperature)),
            "object classes": self._boxes(
                images, logits, lambda z: object_probability(z / self._temperature, self._objects)
            ),
        }
        if self._detector is not None:
            detected = [[o.box for o in objects] for objects in self._detector.detect_all(images)]
            found["detector"] = detected
            found["both"] = [a or b for a, b in zip(detected, found["object classes"], strict=True)]
        return found

    def _boxes(self, images: Sequence[Pixels], logits: Floats, evidence: Callable[[Floats], Floats]) -> Boxes:
        return [
            strongest_first(evidence(z), image.shape[0], image.shape[1], self._threshold)
            for image, z in zip(images, logits, strict=True)
        ]


def predicted_class(logits: Floats) -> Floats:
    """Map the image's most probable class, (C, h, w) to (h, w)."""
    found: Floats = logits[logits.mean(axis=(1, 2)).argmax()]
    return found


def unlike_the_rest(logits: Floats) -> Floats:
    """Map how far class probabilities are from the image's mean (Kullback-Leibler), (C, h, w) to (h, w)."""
    p = np.maximum(softmax(logits, axis=0), 1e-9)
    return _blurred((p * np.log(p / p.mean(axis=(1, 2), keepdims=True))).sum(axis=0))


def object_probability(logits: Floats, objects: Sequence[int]) -> Floats:
    """Map the probability of any of some classes, (C, h, w) to (h, w)."""
    return _blurred(softmax(logits, axis=0)[list(objects)].sum(axis=0))


def _blurred(found: Floats) -> Floats:
    blurred: Floats = uniform_filter(found, BLUR, mode="nearest")
    return blurred


def strongest_first(evidence: Floats, height: int, width: int, threshold: float) -> list[Box]:
    """Find boxes around the parts of a map that reach half of its maximum, the one with the maximum first."""
    best = boxes_of(evidence, height, width, threshold, 1.0)
    return [
        *best,
        *(box for box in boxes_of(evidence, height, width, threshold, max(threshold, 0.5)) if box not in best),
    ]

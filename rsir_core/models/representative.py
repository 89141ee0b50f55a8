"""The representative object, on which an image's key region is centred (paper section 2.1.3).

The paper leaves the choice open: one "representative object" out of the objects G of an image of known category, with
their probabilities P and scores S, gives the centre.
"""

from collections.abc import Sequence
from typing import Final

from rsir_core.models.regions import Box, DetectedObject, ObjectRule

MAX_COMPARED: Final = 5  # most confident objects whose agreement with the scene is computed, a forward pass each


def representative_first(
    objects: Sequence[DetectedObject], rule: ObjectRule, agreement: Sequence[float] = ()
) -> list[DetectedObject]:
    """Order an image's objects, the representative one first and the others by confidence.

    Args:
        objects: best first, any number.
        rule: `confidence` takes the detector's most confident object; `largest` the one of the largest box;
            `agreement`, among the first `MAX_COMPARED`, the one whose key region most probably has the scene's class;
            `centre` the box around all objects, with class and score of the most confident one, put before them.
        agreement: for that rule, the probabilities of the first `MAX_COMPARED` objects.

    Returns:
        The objects; ties go to the most confident one.
    """
    if len(objects) < 2 or rule == "confidence":
        return list(objects)
    if rule == "centre":
        return [objects[0]._replace(box=_around([found.box for found in objects])), *objects]
    worth = agreement if rule == "agreement" else [_area(found.box) for found in objects]
    first = max(range(len(worth)), key=worth.__getitem__)  # the first of equals
    return [objects[first], *objects[:first], *objects[first + 1 :]]


def _area(box: Box) -> float:
    return (box.x1 - box.x0) * (box.y1 - box.y0)


def _around(boxes: Sequence[Box]) -> Box:
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return Box(min(x0), min(y0), max(x1), max(y1))

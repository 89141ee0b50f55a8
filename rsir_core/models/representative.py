"""The representative object: which of an image's objects its key region is centred on (paper section 2.1.3).

The paper leaves the choice open: of the objects G of an image of known category, with their probabilities P and scores
S, one "representative object" gives the centre.
"""

from collections.abc import Sequence
from typing import Final

from rsir_core.models.regions import Box, DetectedObject, ObjectRule

ASKED: Final = 5  # objects, the most confident ones, whose agreement with the scene is asked for: a forward pass each


def representative_first(
    objects: Sequence[DetectedObject], rule: ObjectRule, agreement: Sequence[float] = ()
) -> list[DetectedObject]:
    """Order an image's objects, the representative one first and the others by confidence.

    Args:
        objects: best first, any number.
        rule: `confidence`, the detector's surest; `largest`, that of the largest box; `agreement`, of the first `ASKED`
            the one whose key region is most probably of the scene's class; `centre`, all of them: an object of the
            surest one's class and score in the box around all, which precedes them where there are several.
        agreement: for that rule, the probabilities, one for each of the first `ASKED`.

    Returns:
        The objects; of equals the surest comes first.
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

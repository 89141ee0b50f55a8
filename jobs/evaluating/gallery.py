"""Figure 5: typical queries of some classes, with what each of several arms ranks first."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from jobs.evaluating.describing import Described
from jobs.evaluating.evaluated_index import EvaluatedIndex
from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.evaluation.arms import Arm, Variation
from rsir_core.evaluation.gallery import GalleryImage, GalleryRow
from rsir_core.evaluation.metrics import Scores, ranked
from rsir_core.evaluation.paper import FIGURE_5
from rsir_core.models.regions import Box, Region, whole_image
from rsir_core.search.distance import most_probable

QUERIES: Final = 6
RESULTS: Final = 10


def choose_queries(scores: Scores, labels: Sequence[str]) -> dict[int, str]:
    """Choose queries to show, with the reason: neither the best ones nor only such as all methods answer.

    Of each class of the paper's figure, where there is one, that of median average precision; of the classes of lowest
    mAP one that nine of ten queries surpass.
    """
    per_label = scores.per_label(labels)
    typical = [label for label in FIGURE_5 if label in per_label]
    lowest = sorted(set(per_label) - set(typical), key=lambda label: (per_label[label].map, label))
    chosen = [(label, 0.5, "a median query") for label in typical]
    chosen += [(label, 0.1, "among the worst tenth of its class") for label in lowest[: QUERIES - len(chosen)]]
    return dict(_query(per_label[label], quantile, words) for label, quantile, words in chosen)


def _query(scores: Scores, quantile: float, words: str) -> tuple[int, str]:
    order = np.argsort(scores.average_precision, kind="stable")
    place = order[int(quantile * (len(order) - 1))]
    return int(scores.queries[place]), f"{words}, average precision {100 * scores.average_precision[place]:.1f} %"


def make_strips(
    subject: EvaluatedIndex,
    arms: Mapping[Arm, str],
    described: Mapping[Variation, Described],
    queries: Mapping[int, str],
) -> list[GalleryRow]:
    """Make one gallery row per query (its position, with the reason to show it) and arm (with its name), by query."""
    by_arm = {name: _strips(subject, arm, described[arm.variation], list(queries)) for arm, name in arms.items()}
    return [by_arm[name][i]._replace(way=name, note=note) for i, note in enumerate(queries.values()) for name in by_arm]


def _strips(subject: EvaluatedIndex, arm: Arm, database: Described, queries: Sequence[int]) -> list[GalleryRow]:
    labels, p = subject.labels, database.class_probabilities
    count = min(RESULTS, len(labels) - 1)
    blocks = ranked(np.array(queries), database.vectors(arm.components), p if arm.distance == "weighted" else None)
    strips = []
    for query, order, distance in (of_query for block in blocks for of_query in zip(*block, strict=True)):
        found = order[:count].tolist()
        shown = [_shown(subject, arm, p, place, float(distance[place])) for place in found]
        right = [labels[place] == labels[int(query)] for place in found]
        asked = _shown(subject, arm, p, int(query), 0.0)
        strips.append(
            GalleryRow(labels[int(query)], "", "", "WD" if arm.distance == "weighted" else "d", asked, shown, right)
        )
    return strips


def _shown(subject: EvaluatedIndex, arm: Arm, p: Floats, place: int, distance: float) -> GalleryImage:
    row = subject.features.slice(place, 1).select(
        [schemas.URI, schemas.REGION, schemas.OBJECT_BOX, schemas.HEIGHT, schemas.WIDTH]
    )
    (values,) = row.to_pylist()
    whole = arm.variation.tau == 1
    region = whole_image(values[schemas.HEIGHT], values[schemas.WIDTH]) if whole else Region(**values[schemas.REGION])
    box = None if whole or values[schemas.OBJECT_BOX] is None else Box(**values[schemas.OBJECT_BOX])
    name, probability = most_probable(p[place], subject.classifier.classes)
    return GalleryImage(values[schemas.URI], region, box, name, probability, distance)

"""The order that queries get unless they ask for another: weighted or not, as each one's nearest rows say."""

from collections.abc import Iterator, Sequence

import numpy as np

from rsir_core.arrays import Floats, Mask
from rsir_core.evaluation.metrics import Scores, score_retrieval
from rsir_core.index.no_match import FITTING, NEIGHBOURS
from rsir_core.retrieval.query import LEAST_WEIGHT, Neighbour, Ranking
from rsir_core.search.distance import classes as classes_of
from rsir_core.search.exact import Searcher


def score_auto(
    feature: Floats,
    class_probabilities: Floats,
    labels: Sequence[str],
    plain: Scores,
    unaveraged: Floats | None = None,
) -> tuple[Scores, Mask]:
    """Score the order of `auto` for rows that are the whole index, and tell which queries (q,) it weights.

    Args:
        feature: (n, K), by image id.
        class_probabilities: (n, C).
        labels: (n,).
        plain: their scores by the distance alone.
        unaveraged: (n, K), features before they were averaged with their neighbours; None: they were not.
    """
    is_weighted = weighted_by_auto(feature, class_probabilities, unaveraged)[plain.queries]
    if not is_weighted.any():  # ranking all rows again would take as long as for `plain`
        return plain, is_weighted
    weighted = score_retrieval(feature, class_probabilities, labels, least_weight=LEAST_WEIGHT)
    return weighted.where(is_weighted, plain), is_weighted


def weighted_by_auto(feature: Floats, class_probabilities: Floats, unaveraged: Floats | None = None) -> Mask:
    """Tell which rows `auto` weights, (n,) bool, where they are the whole index: see `Ranking.settled`.

    Whether the classes fit is measured by features before averaging, as `jobs.index` does; what the nearest rows of a
    query are is told by those that are searched.
    """
    n, classes = class_probabilities.shape
    if not classes or not _fits(feature if unaveraged is None else unaveraged, class_probabilities):
        return np.zeros(n, bool)
    near = _nearest(feature, class_probabilities, NEIGHBOURS)
    return np.array([Ranking(1).settled(others).ranked_by == "weighted_distance" for others in near])


def _fits(feature: Floats, class_probabilities: Floats) -> bool:
    """Tell whether rows have their class in common with their nearest other row often enough."""
    assigned = classes_of(class_probabilities)
    nearest = [int(first.image_id) for first, *_ in _nearest(feature, class_probabilities, 1)]
    return float((assigned[nearest] == assigned).mean()) >= FITTING


def _nearest(feature: Floats, class_probabilities: Floats, k: int) -> Iterator[list[Neighbour]]:
    """Find the k other rows nearest to each row; their image ids are their places."""
    ids = [f"{row:012}" for row in range(len(feature))]
    order, searcher = Searcher.of(ids, feature, class_probabilities)
    for row, of_class in enumerate(classes_of(class_probabilities)):
        hits = searcher.search(feature[row], class_probabilities[row], k + 1, euclidean=True)
        near = zip(order[hits.rows].tolist(), hits.distance.tolist(), strict=True)
        found = [Neighbour(at, ids[i], float(class_probabilities[i, of_class])) for i, at in near if i != row]
        yield found[:k]

"""The default order weights those queries whose nearest rows are probably of their class, if the classes fit."""

import numpy as np
import pytest

from rsir_core.arrays import Floats, Mask
from rsir_core.evaluation.auto import score_auto
from rsir_core.evaluation.metrics import score_retrieval
from rsir_core.search.distance import classes as classes_of
from rsir_core.search.distance import distances

LABELS = [name for name in "abc" for _ in range(40)]


def rows(rng: np.random.Generator, sure: float, apart: float) -> tuple[Floats, Floats]:
    centre = {name: rng.normal(size=4) * apart for name in "abc"}
    feature = np.stack([centre[name] + rng.normal(size=4) for name in LABELS]).astype(np.float32)
    p = np.stack([rng.dirichlet([sure if c == name else 0.3 for c in "abc"]) for name in LABELS]).astype(np.float32)
    return feature, p


def weighted_one_by_one(feature: Floats, p: Floats) -> Mask:
    distance, assigned = distances(feature, feature), classes_of(p)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argsort(axis=1)[:, :5]
    if (assigned[nearest[:, 0]] == assigned).mean() < 0.975:
        return np.zeros(len(p), bool)
    return np.array([p[near, assigned[row]].mean() >= 0.8 for row, near in enumerate(nearest)])


@pytest.mark.parametrize(("sure", "apart"), [(4, 20), (40, 20), (4, 0.3)])
def test_queries_are_weighted_as_their_nearest_rows_before_averaging_say(sure: float, apart: float) -> None:
    rng = np.random.default_rng(1)
    unaveraged, p = rows(rng, sure, apart)
    feature = unaveraged + rng.normal(size=unaveraged.shape).astype(np.float32) * apart
    plain = score_retrieval(feature, p, LABELS, weighted=False)
    found, is_weighted = score_auto(feature, p, LABELS, plain, unaveraged)
    chosen = weighted_one_by_one(unaveraged, p)
    assert is_weighted.tolist() == chosen.tolist()
    assert (chosen != weighted_one_by_one(feature, p)).any() or not chosen.any()  # by others it would be others
    floored = score_retrieval(feature, p, LABELS, least_weight=0.1)
    expected = np.where(chosen, floored.average_precision, plain.average_precision)
    assert found.average_precision.tolist() == expected.tolist()


def test_without_classes_nothing_is_weighted() -> None:
    feature, _ = rows(np.random.default_rng(1), 4, 20)
    p = np.empty((len(feature), 0), np.float32)
    plain = score_retrieval(feature, p, LABELS, weighted=False)
    found, is_weighted = score_auto(feature, p, LABELS, plain)
    assert not is_weighted.any() and found.map == plain.map

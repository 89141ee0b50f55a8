import numpy as np
import pytest

from rsir_core.evaluation.metrics import score_retrieval
from rsir_core.evaluation.unseen import score_unseen
from rsir_core.search.distance import classes as classes_of
from rsir_core.search.distance import distances

CLASSES = ("a", "b", "c")


def drawn(n: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(2)
    labels = [str(name) for name in rng.choice([*CLASSES, "x", "y"], n)]
    centre = {name: rng.normal(size=4) * 20 for name in (*CLASSES, "x", "y")}
    feature = np.stack([centre[name] + rng.normal(size=4) for name in labels]).astype(np.float32)
    p = np.stack([rng.dirichlet([99 if c == name else 0.2 for c in CLASSES]) for name in labels]).astype(np.float32)
    return feature, p, labels


def test_both_kinds_are_scored_among_their_own() -> None:
    feature, p, labels = drawn(240)
    found = score_unseen(feature, p, labels, CLASSES)
    assert found is not None and found["labels"] == ["x", "y"]
    for kind, names in (("unseen", "xy"), ("known", "abc"), ("mixed", "abcxy")):
        mine = np.isin(labels, list(names))
        own = [label for label in labels if label in names]
        weighted, plain = (score_retrieval(feature[mine], p[mine], own, w) for w in (True, False))
        for way, scores in (("weighted", weighted), ("plain", plain)):
            assert found[kind][way] == {"map": scores.map, "anmrr": scores.anmrr, "precision_at": scores.precision_at}
        chosen = np.array(by_auto(feature[mine], p[mine]))
        assert found[kind]["sure"] == pytest.approx(chosen.mean())
        by_floored = score_retrieval(feature[mine], p[mine], own, least_weight=0.1)
        expected = np.where(chosen, by_floored.average_precision, plain.average_precision).mean()
        assert found[kind]["auto"]["map"] == pytest.approx(expected)
    assert found["known"]["sure"] > 0.9 and found["unseen"]["sure"] == 0  # whose classes are drawn at random


def by_auto(feature: np.ndarray, p: np.ndarray) -> list[bool]:
    """Which rows `auto` weights, one after another."""
    distance, assigned = distances(feature, feature), classes_of(p)
    np.fill_diagonal(distance, np.inf)
    nearest = distance.argsort(axis=1)[:, :5]
    fit = (assigned[nearest[:, 0]] == assigned).mean() >= 0.975
    return [bool(fit and p[near, assigned[row]].mean() >= 0.8) for row, near in enumerate(nearest)]


def test_labels_that_are_all_known_or_all_others_are_nothing_to_say() -> None:
    feature, p, labels = drawn(20)
    assert score_unseen(feature, p, labels, [*CLASSES, "x", "y"]) is None
    assert score_unseen(feature, p, labels, ["site"]) is None

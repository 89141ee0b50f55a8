import numpy as np
import pytest

from rsir_core.evaluation.no_match import score_no_match
from rsir_core.index.no_match import NoMatchThreshold, Sample, nearest_rows
from rsir_core.search.exact import Searcher


def test_labelled_images_are_told_what_a_searcher_finds_without_their_class() -> None:
    rng = np.random.default_rng(3)
    labels = [str(name) for name in rng.choice(["a", "b", "c", "x"], 600)]
    centre = {name: rng.normal(size=4) * 2 for name in "abcx"}
    feature = np.stack([centre[name] + rng.normal(size=4) for name in labels]).astype(np.float32)
    p = np.stack([rng.dirichlet([20 if c == name else 0.9 for c in "abc"]) for name in labels]).astype(np.float32)
    here = np.flatnonzero(np.isin(labels, list("abc")))
    found = score_no_match(feature, p, labels, list("abc"))
    assert found is not None and found["queries"] == len(here)
    limits = NoMatchThreshold.of(
        "", "", nearest_rows(Sample(feature[here], p[here]), feature[here], p[here]), len(here)
    )
    assert found["threshold"] == limits.distance
    order, searcher = Searcher.of([f"{i:03}" for i in here], feature[here], p[here])
    rows = here[order]
    assert limits.distance is not None and limits.agreeing_distance is not None
    limit, agreeing = limits.distance, limits.agreeing_distance

    def has_match(i: int, allowed: np.ndarray) -> bool:
        near = searcher.search(feature[i], p[i], 5, allowed, euclidean=True)
        of_class = p[rows[near.rows], p[i].argmax()]
        together = near.distance.mean() < agreeing and of_class.mean() >= 0.5
        return bool(near.distance[0] < limit or together)

    names = np.array(labels)
    without = np.array([has_match(i, names[rows] != names[i]) for i in here.tolist()])
    others = np.array([has_match(i, rows != i) for i in range(600)])
    assert 0 < found["false_matches"] == pytest.approx(np.mean(without))
    assert 0 < found["told_wrongly"] == pytest.approx(np.mean(~others[here]))
    assert 0 < found["unseen_told"] == pytest.approx(np.mean(~np.delete(others, here)))


def test_of_few_labelled_images_or_unknown_labels_nothing_is_said() -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=(40, 4)).astype(np.float32), rng.dirichlet(np.full(3, 0.3), 40).astype(np.float32)
    assert score_no_match(*few, ["site"] * 40, list("abc")) is None
    found = score_no_match(*few, ["a"] * 40, list("abc"))
    assert found is not None and found["threshold"] is None and found["false_matches"] is None

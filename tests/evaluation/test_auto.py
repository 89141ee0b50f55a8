"""The default order weights those queries whose nearest rows are probably of their class, if the classes fit."""

from pathlib import Path

import numpy as np
import pytest

import rsir_core as rsir
from rsir_core import schemas
from rsir_core.arrays import Doubles, Floats, Mask
from rsir_core.evaluation.auto import score_auto, weighted_by_auto
from rsir_core.evaluation.metrics import score_retrieval
from rsir_core.index.index import Index
from rsir_core.search.distance import classes as classes_of
from rsir_core.search.distance import distances
from tests.support.made_up import write_index

LABELS = [name for name in "abc" for _ in range(40)]


def rows(rng: np.random.Generator, sure: float, apart: float) -> tuple[Floats, Floats]:
    centre = {name: rng.normal(size=4) * apart for name in "abc"}
    feature = np.stack([centre[name] + rng.normal(size=4) for name in LABELS]).astype(np.float32)
    p = np.stack([rng.dirichlet([sure if c == name else 0.3 for c in "abc"]) for name in LABELS]).astype(np.float32)
    return feature, p


def weighted_one_by_one(feature: Floats, p: Floats, unaveraged: Floats) -> Mask:
    assigned = classes_of(p)
    near, first = (others.argsort(axis=1) for others in (apart_of(feature), apart_of(unaveraged)))
    if (assigned[first[:, 0]] == assigned).mean() < 0.975:
        return np.zeros(len(p), bool)
    return np.array([p[of_row[:5], assigned[row]].mean() >= 0.8 for row, of_row in enumerate(near)])


def apart_of(feature: Floats) -> Doubles:
    distance = distances(feature, feature)
    np.fill_diagonal(distance, np.inf)
    return distance


@pytest.mark.parametrize(("sure", "apart"), [(4, 20), (40, 20), (4, 0.3)])
def test_queries_are_weighted_as_their_nearest_rows_say(sure: float, apart: float) -> None:
    rng = np.random.default_rng(1)
    unaveraged, p = rows(rng, sure, apart)
    feature = unaveraged + rng.normal(size=unaveraged.shape).astype(np.float32) * apart
    plain = score_retrieval(feature, p, LABELS, weighted=False)
    found, is_weighted = score_auto(feature, p, LABELS, plain, unaveraged)
    chosen = weighted_one_by_one(feature, p, unaveraged)
    assert is_weighted.tolist() == chosen.tolist()
    floored = score_retrieval(feature, p, LABELS, least_weight=0.1)
    expected = np.where(chosen, floored.average_precision, plain.average_precision)
    assert found.average_precision.tolist() == expected.tolist()
    (_, alone) = score_auto(feature, p, LABELS, plain)
    assert alone.tolist() == weighted_one_by_one(feature, p, feature).tolist()


def test_an_opened_index_of_averaged_features_ranks_each_query_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overlapping classes, by which nothing would be weighted; an index without a threshold has no such measure."""
    monkeypatch.setattr("rsir_core.evaluation.auto.FITTING", 0)
    rng = np.random.default_rng(3)
    centre, label = 0.9 * rng.normal(size=(3, 8)), rng.integers(0, 3, 200)
    embedding = (centre[label] + rng.normal(size=(200, 8))).astype(np.float16).astype(np.float32)
    odds = np.exp(-np.square(embedding[:, None] - centre).sum(axis=2) / 6)
    p = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    ids = [f"{row:03}.png" for row in range(200)]
    index = write_index(tmp_path, ids, described=(embedding, p), neighbours=3)
    table = Index(index).features().sort_by(schemas.IMAGE_ID)
    feature, unaveraged = schemas.to_matrix(table[schemas.FEATURE]), schemas.unaveraged_features(table)
    opened = rsir.open(index)
    found = [opened.search(image_id, k=1).ranked_by == "weighted_distance" for image_id in ids]
    assert weighted_by_auto(feature, p, unaveraged).tolist() == found
    assert weighted_by_auto(unaveraged, p).tolist() != found  # by others it would be others


def test_without_classes_nothing_is_weighted() -> None:
    feature, _ = rows(np.random.default_rng(1), 4, 20)
    p = np.empty((len(feature), 0), np.float32)
    plain = score_retrieval(feature, p, LABELS, weighted=False)
    found, is_weighted = score_auto(feature, p, LABELS, plain)
    assert not is_weighted.any() and found.map == plain.map

import math
from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir_core.search.clusters import make_clusters
from rsir_core.search.distance import SMALLEST, classes, complements
from rsir_core.search.exact import Hits, Searcher
from tests.support.rankings import Rows, reference, reference_complement, some_rows


def search(
    rows: Rows, q: int, k: int, allowed: npt.NDArray[np.bool_] | None = None, euclidean: bool = False, least: float = 0
) -> Hits:
    """The hits of one row among all, as positions in `rows`."""
    order, searcher = Searcher.of(*rows)
    mask = None if allowed is None else allowed[order]
    hits = searcher.search(rows.feature[q], rows.probabilities[q], k, mask, euclidean, least)
    return replace(hits, rows=order[hits.rows])


def as_list(hits: Hits) -> list[tuple[int, list[float]]]:
    factors = np.stack([hits.weighted_distance, hits.distance, hits.query_weight, hits.candidate_weight], axis=1)
    return list(zip(hits.rows.tolist(), factors.tolist(), strict=True))


@settings(deadline=None)  # the machine may be busy
@given(some_rows(), st.data())
def test_equals_the_equations_as_a_loop(rows: Rows, data: st.DataObject) -> None:
    n = len(rows.ids)
    q = data.draw(st.integers(0, n - 1))
    k = data.draw(st.integers(1, n + 3))
    euclidean = data.draw(st.booleans())
    allowed = data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    least = 0 if euclidean else data.draw(st.sampled_from([0, 1e-3, 0.1, 0.9]))
    expected = reference(rows, q, k, allowed or [True] * n, euclidean, least)
    mask = None if allowed is None else np.array(allowed)
    hits = search(rows, q, k, mask, euclidean, least)
    assert as_list(hits) == expected


@settings(deadline=None)  # the machine may be busy
@given(some_rows(), st.randoms(use_true_random=False), st.integers(1, 10))
def test_the_order_of_the_rows_does_not_matter(rows: Rows, random: Random, k: int) -> None:
    order = list(range(len(rows.ids)))
    random.shuffle(order)
    there = Rows([rows.ids[i] for i in order], rows.feature[order], rows.probabilities[order])
    found = search(there, order.index(0), k).rows
    assert np.array_equal(np.array(order)[found], search(rows, 0, k).rows)


@settings(deadline=None)  # the machine may be busy
@given(some_rows())
def test_complements_are_the_sum_of_the_others(rows: Rows) -> None:
    result = complements(rows.probabilities)
    p = rows.probabilities.tolist()
    assert result.dtype == np.float32
    assert result.tolist() == [[reference_complement(row, c) for c in range(len(row))] for row in p]


def test_complements_do_not_collapse_where_one_minus_p_does() -> None:
    p = np.array([[1, 1e-12, 2e-12], [1, 0, 0], [0.25, 0.5, 0.25]], np.float32)
    assert (1 - p[:2, 0] == 0).all()
    assert complements(p)[0, 0] == pytest.approx(3e-12, rel=1e-6)
    assert complements(p)[1].tolist() == [SMALLEST, 1, 1]
    assert complements(p)[2].tolist() == [0.75, 0.5, 0.75]


def test_a_saturated_class_is_ordered_by_distance_and_comes_before_the_others() -> None:
    feature = np.array([[3], [1], [2], [0.125]], np.float32)
    p = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    order, searcher = Searcher.of(["a", "b", "c", "other"], feature, p)
    hits = searcher.search(np.zeros(1, np.float32), p[0], 4)
    assert order[hits.rows].tolist() == [1, 2, 0, 3]
    assert (np.diff(hits.weighted_distance) > 0).all()
    assert hits.weighted_distance[0] == float(SMALLEST) ** 2  # 1e-76: far from the edge of float64


class OneByOne:
    """Ids of which nothing joins the chunks."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids

    def __getitem__(self, row: int) -> pa.Scalar:
        return pa.scalar(self._ids[row])


def test_a_tie_looks_at_the_ids_of_the_hits_alone() -> None:
    _, searcher = Searcher.of(["c", "a", "b"], np.zeros((3, 2), np.float32), np.full((3, 2), 0.5, np.float32))
    searcher._ids = OneByOne(["c", "a", "b"])
    hits = searcher.search(np.zeros(2, np.float32), np.full(2, 0.5, np.float32), 2)
    assert hits.rows.tolist() == [1, 2]


def test_an_identical_image_is_at_zero_and_ties_go_to_the_smaller_id() -> None:
    feature = np.full((4, 3), 1e3, np.float32) + np.array([[0.1], [0.1], [0.1], [0.2]], np.float32)
    p = np.full((4, 2), 0.5, np.float32)
    hits = search(Rows(["b10", "b9", "a", "0"], feature, p), 0, 3)
    assert hits.rows.tolist() == [2, 0, 1]
    assert hits.distance.tolist() == hits.weighted_distance.tolist() == [0, 0, 0]


def test_a_filter_that_matches_nothing_and_an_index_without_rows_find_nothing() -> None:
    one = np.ones((1, 2), np.float32)
    half = np.full((1, 2), 0.5, np.float32)
    assert len(Searcher.of(["a"], one, half)[1].search(one[0], half[0], 5, np.array([False])).rows) == 0
    assert len(Searcher.of([], one[:0], half[:0])[1].search(one[0], half[0], 5).rows) == 0


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2**32 - 1))
def test_real_valued_features_agree_with_their_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(60, 19)).astype(np.float32)
    p = rng.dirichlet(np.ones(4), 60).astype(np.float32)
    hits = search(Rows([f"{i:02}" for i in range(60)], feature, p), 7, 60)
    expected = np.linalg.norm(feature.astype(np.float64) - feature[7], axis=1)
    assert hits.rows[0] == 7
    assert sorted(hits.rows.tolist()) == list(range(60))
    assert (np.diff(hits.weighted_distance) >= 0).all()
    np.testing.assert_allclose(hits.distance, expected[hits.rows], rtol=1e-13)
    np.testing.assert_array_equal(hits.weighted_distance, hits.query_weight * hits.candidate_weight * hits.distance)


@pytest.mark.parametrize(
    ("message", "feature", "p", "k", "allowed"),
    [
        ("k is 0", [0, 0], [0.5, 0.5], 0, None),
        ("feature have shape", [0, 0, 0], [0.5, 0.5], 1, None),
        ("probabilities have shape", [0, 0], [1], 1, None),
        ("NaN", [0, math.nan], [0.5, 0.5], 1, None),
        ("filter is", [0, 0], [0.5, 0.5], 1, [True]),
        ("filter is", [0, 0], [0.5, 0.5], 1, [0, 1]),
    ],
)
def test_queries_that_do_not_fit_are_refused(
    message: str, feature: list[float], p: list[float], k: int, allowed: list[int] | None
) -> None:
    _, searcher = Searcher.of(["a", "b"], np.zeros((2, 2), np.float32), np.full((2, 2), 0.5, np.float32))
    mask = None if allowed is None else np.array(allowed)
    with pytest.raises(ValueError, match=message):
        searcher.search(np.array(feature, np.float32), np.array(p, np.float32), k, mask)


def test_rows_that_do_not_fit_are_refused() -> None:
    feature, p = np.zeros((2, 2), np.float32), np.full((2, 2), 0.5, np.float32)
    ids, complement = pa.chunked_array([["a", "b"]]), complements(p).T
    _, clusters = make_clusters(feature, classes(p), complements(p))
    with pytest.raises(ValueError, match="1 image ids, 2 features"):
        Searcher(ids[:1], feature, complement, clusters)
    with pytest.raises(ValueError, match="NaN"):
        Searcher(ids, np.full_like(feature, math.inf), complement, clusters)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-18, 1e-6, 1.0, 1e6, 1e17]), st.integers(1, 30), st.booleans())
def test_bounds_hold_whatever_the_scale_and_the_confidence(seed: int, scale: float, k: int, euclidean: bool) -> None:
    rng = np.random.default_rng(seed)
    n, K, C = 700, int(rng.integers(1, 40)), int(rng.integers(1, 5))
    centres = rng.normal(size=(12, K))
    feature = centres[rng.integers(12, size=n)] + rng.choice([0, 1e-7, 1e-3, 1]) * rng.normal(size=(n, K))
    feature = (feature * scale + rng.choice([0, 100 * scale])).astype(np.float32)
    odds = np.exp(rng.choice([0, 1, 30, 200]) * rng.normal(size=(n, C)).clip(-3, 0))
    p = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    q = int(rng.integers(n))
    complement = complements(p)
    distance = np.linalg.norm(feature.astype(np.float64) - feature[q], axis=1)
    of_class = p.argmax(axis=1)
    weights = complement[q][of_class].astype(np.float64) * complement[:, of_class[q]].astype(np.float64)
    key = distance if euclidean else weights * distance
    found = search(Rows([f"{i:03}" for i in range(n)], feature, p), q, k, euclidean=euclidean).rows
    np.testing.assert_allclose(key[found], np.sort(key)[:k], rtol=1e-12)

"""Averages with the nearest rows against brute force, and clusters around other features of the same rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.search.averaging import NeighbourSearcher, averaged_query, mean_of
from rsir_core.search.clusters import make_clusters


@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_neighbours_are_those_of_brute_force(n: int, count: int, seed: int) -> None:
    count = min(count, n)
    wide = np.random.default_rng(seed).normal(size=(n, 6)).astype(np.float32)
    found = NeighbourSearcher(wide).nearest(wide, count)
    distance = np.linalg.norm(wide[:, None].astype(np.float64) - wide[None], axis=2)
    np.testing.assert_array_equal(found, np.argsort(distance, axis=1, kind="stable")[:, :count])
    assert (found[:, 0] == np.arange(n)).all()
    feature = np.random.default_rng(seed + 1).normal(size=(n, 3)).astype(np.float32)
    wanted = [
        (feature[i] + 0.9 * feature[near[1:]].sum(axis=0)) / (1 + 0.9 * (count - 1)) for i, near in enumerate(found)
    ]
    np.testing.assert_allclose(mean_of(feature, found), wanted, rtol=1e-6, atol=1e-6)


def test_ties_go_to_the_first_rows() -> None:
    wide = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    found = NeighbourSearcher(wide).nearest(wide, 3)
    np.testing.assert_array_equal(found, np.repeat([[0, 1, 2], [4, 5, 6], [8, 9, 10]], 4, axis=0))


def test_a_query_is_averaged_with_its_rows() -> None:
    rows = np.array([[1, 2], [3, 4]], np.float32)
    assert averaged_query(np.array([2, 0], np.float32), rows) == pytest.approx([(2 + 0.9 * 4) / 2.8, 0.9 * 6 / 2.8])
    assert averaged_query(np.array([2, 0], np.float32), rows[:0]) == pytest.approx([2, 0])


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_clusters_around_other_features_hold_their_rows(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    feature, other = rng.normal(size=(2, n, 4)).astype(np.float32)
    complement = np.ones((n, 1), np.float32)
    order, clusters = make_clusters(feature, np.zeros(n, np.int64), complement)
    moved = clusters.around(other[order])
    run = np.repeat(np.arange(len(moved.count)), moved.count)
    distance = np.linalg.norm(other[order].astype(np.float64) - moved.centre[run], axis=1)
    assert (distance <= moved.radius[run]).all() and (moved.count == clusters.count).all()

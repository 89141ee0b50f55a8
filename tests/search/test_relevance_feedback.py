"""Relevance feedback: Rocchio's formula by hand, and what must hold whatever is marked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rsir_core.search.relevance_feedback import Example, refine

K, C = 3, 4


@st.composite
def examples(draw: st.DrawFn) -> Example:
    feature = draw(hnp.arrays(np.float32, K, elements=st.floats(-2, 2, width=32)))
    odds = draw(hnp.arrays(np.float64, C, elements=st.floats(0, 1).map(lambda x: x**8)).filter(lambda p: p.sum() > 0))
    return Example(feature, (odds / odds.sum()).astype(np.float32))


groups = st.lists(examples(), max_size=4)


def example(feature: list[float], p: list[float]) -> Example:
    return Example(np.array(feature, np.float32), np.array(p, np.float32))


def test_by_hand() -> None:
    query = example([1, 0], [1, 0])
    good = [example([0, 1], [0.5, 0.5]), example([0, 3], [0.5, 0.5])]
    bad = [example([2, 2], [0, 1])]
    # 1·(1, 0) + 0.75·(0, 2) − 0.15·(2, 2) = (0.7, 1.2), by 1 + 0.75 − 0.15 = 1.6
    found = refine(query, good, bad)
    assert found.feature == pytest.approx([0.4375, 0.75])
    # 1·(1, 0) + 0.75·(0.5, 0.5) − 0.15·(0, 1) = (1.375, 0.225)
    assert found.class_probabilities == pytest.approx([0.859375, 0.140625])
    assert found.feature.dtype == found.class_probabilities.dtype == np.float32


def test_good_examples_alone_are_their_mean() -> None:
    found = refine(None, [example([0, 1], [1, 0]), example([2, 3], [0, 1])], [])
    assert found.feature == pytest.approx([1, 2])
    assert found.class_probabilities == pytest.approx([0.5, 0.5])


def test_a_class_that_would_be_less_than_impossible_is_impossible() -> None:
    # (1, 0)·1 − (0, 1)·0.15, by 0.85
    found = refine(example([0, 0], [1, 0]), [], [example([0, 0], [0, 1])])
    assert found.class_probabilities.tolist() == [1, 0]


@given(examples(), st.integers(0, 4), st.integers(0, 4))
def test_identical_examples_stay(one: Example, good: int, bad: int) -> None:
    found = refine(one, [one] * good, [one] * bad)
    np.testing.assert_allclose(found.feature, one.feature, atol=1e-5)
    np.testing.assert_allclose(found.class_probabilities, one.class_probabilities, atol=1e-5)


@given(examples(), examples())
def test_bad_examples_push_away_and_good_ones_draw(query: Example, other: Example) -> None:
    def distance(moved: Example) -> float:
        return float(np.linalg.norm(moved.feature.astype(float) - other.feature))

    there = distance(query)
    assert distance(refine(query, [], [other])) == pytest.approx(there / 0.85, abs=1e-5)
    assert distance(refine(query, [other], [])) == pytest.approx(there / 1.75, abs=1e-5)


@given(st.none() | examples(), groups, groups)
def test_probabilities_stay_a_distribution(query: Example | None, good: list[Example], bad: list[Example]) -> None:
    if query is None and not good:
        return
    p = refine(query, good, bad).class_probabilities
    assert (p >= 0).all() and p.sum(dtype=np.float64) == pytest.approx(1, abs=1e-6)


@given(groups, st.permutations(range(4)))
def test_the_order_of_examples_does_not_matter(good: list[Example], order: list[int]) -> None:
    query = example([0, 0, 0], [1, 0, 0, 0])
    other = [good[i] for i in order if i < len(good)]
    np.testing.assert_allclose(refine(query, good, []).feature, refine(query, other, []).feature, atol=1e-6)


def test_good_and_bad_ones_that_cancel_leave_a_distribution() -> None:
    """The weights sum to 1, so the probabilities do before any is set to 0: something is always left."""
    one, other = example([1, 1], [1, 0]), example([1, 1], [0, 1])
    for good, bad in (([one], [other]), ([one, other], [one, other]), ([one], [one]), ([other], [one] * 5)):
        found = refine(None, good, bad)
        assert found.class_probabilities.sum() == 1
        assert found.feature.tolist() == [1, 1]

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.nomatch import NoMatch, Sample, get_no_match, nearest_of_other_classes, put_no_match, threshold
from rsir_core.search import Searcher
from rsir_core.table import Index


def drawn(rng: np.random.Generator, n: int) -> Sample:
    return Sample(rng.normal(size=(n, 4)).astype(np.float32), rng.dirichlet(np.full(3, 0.3), n).astype(np.float32))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
def test_the_nearest_of_other_classes_is_what_the_search_finds_among_them(seed: int, n: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    queries, rows = drawn(rng, 5), drawn(rng, n)
    whole = nearest_of_other_classes(queries, *rows)
    parts = [nearest_of_other_classes(queries, *(a[s] for a in rows)) for s in (slice(cut), slice(cut, None))]
    np.testing.assert_array_equal(np.minimum(*parts), whole)
    order, searcher = Searcher.of([f"{i:03}" for i in range(n)], *rows)
    classes = rows.class_probabilities.argmax(axis=1)[order]
    for i, (feature, p) in enumerate(zip(*queries, strict=True)):
        for plain, found in ((False, whole[0, i]), (True, whole[1, i])):
            hits = searcher.search(feature, p, 1, classes != p.argmax(), plain)
            best = hits.distance if plain else hits.weighted_distance
            assert found == (pytest.approx(best[0], rel=1e-9) if len(best) else np.inf)


def test_no_more_than_the_stated_share_of_other_queries_lies_below_the_threshold() -> None:
    rng, shares = np.random.default_rng(0), []
    for _ in range(400):
        limit = threshold(rng.exponential(size=299), 0.05)
        assert limit is not None
        shares.append(1 - np.exp(-limit))
    assert np.mean(shares) == pytest.approx(0.05, abs=0.003)


def test_too_few_queries_promise_nothing() -> None:
    assert threshold(np.arange(98.0)) is None
    assert threshold(np.arange(99.0)) == 0.0
    assert threshold(np.full(200, np.inf)) is None  # an index of one class


def test_it_is_stored_by_version_and_models_and_asked(tmp_path: Path) -> None:
    index, known = Index(str(tmp_path)), NoMatch("b", "p", 1000, 2100, 0.01, 0.25, None)
    assert get_no_match(index, 3, "b", "p") is None
    put_no_match(index, 2, known)
    put_no_match(index, 10, known._replace(rows=5))
    put_no_match(index, 11, known._replace(pca="other"))
    assert [get_no_match(index, v, "b", "p") for v in (1, 2, 9)] == [None, known, known]
    assert get_no_match(index, 12, "b", "p") == known._replace(rows=5)  # those of another PCA mean nothing here
    assert known.is_too_far(0.2, weighted=True) is False
    assert known.is_too_far(0.25, weighted=True) is True
    assert known.is_too_far(0.2, weighted=False) is None

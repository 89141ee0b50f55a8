import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.index.index import Index
from rsir_core.index.no_match import (
    NEIGHBOURS,
    NearestRows,
    NoMatchThreshold,
    Sample,
    get_no_match_threshold,
    nearest_rows,
    put_no_match_threshold,
    threshold,
)
from rsir_core.search.exact import Searcher
from tests.support.writing import writer_of


def drawn(rng: np.random.Generator, n: int) -> Sample:
    return Sample(rng.normal(size=(n, 4)).astype(np.float32), rng.dirichlet(np.full(3, 0.3), n).astype(np.float32))


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60))
def test_the_nearest_of_other_classes_is_what_the_search_finds_among_them(seed: int, n: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    queries, rows = drawn(rng, 5), drawn(rng, n)
    whole = nearest_rows(queries, *rows).of_other_classes
    parts = [nearest_rows(queries, *(a[s] for a in rows)) for s in (slice(cut), slice(cut, None))]
    np.testing.assert_allclose(NearestRows.merge(parts).of_other_classes, whole, rtol=1e-12)
    order, searcher = Searcher.of([f"{i:03}" for i in range(n)], *rows)
    classes = rows.class_probabilities.argmax(axis=1)[order]
    for i, (feature, p) in enumerate(zip(*queries, strict=True)):
        best = searcher.search(feature, p, 1, classes != p.argmax(), euclidean=True).distance
        assert whole[i] == (pytest.approx(best[0], rel=1e-9) if len(best) else np.inf)


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
    index, known = Index(str(tmp_path)), NoMatchThreshold("b", "p", 1000, 2100, 0.01, 0.25)
    assert get_no_match_threshold(index, 3, "b", "p") is None
    put_no_match_threshold(writer_of(index), 2, known)
    put_no_match_threshold(writer_of(index), 10, known._replace(rows=5))
    put_no_match_threshold(writer_of(index), 11, known._replace(pca="other"))
    assert [get_no_match_threshold(index, v, "b", "p") for v in (1, 2, 9)] == [None, known, known]
    assert get_no_match_threshold(index, 12, "b", "p") == known._replace(
        rows=5
    )  # those of another PCA mean nothing here
    assert [known.is_too_far(nearest) for nearest in (0.2, 0.25)] == [False, True]
    assert not known._replace(distance=None).is_too_far(9.0)
    of_before = json.dumps({**known._asdict(), "weighted_distance": 0.1}).encode()  # by version 0.1
    assert NoMatchThreshold.from_json(of_before) == NoMatchThreshold.from_json(known.to_json()) == known


def test_a_threshold_is_kept_while_few_rows_have_changed_since_it_was_measured() -> None:
    measured = NoMatchThreshold("bundle", "pca", 1000, 10_000, 0.01, 0.5, 0, 0.02, 0.99, 0.7)
    once = measured.after(60)
    assert once == measured._replace(changed=60)
    assert once is not None and once.after(40) == measured._replace(changed=100) and once.after(41) is None
    for by_earlier_release in (measured._replace(class_agreement=None), measured._replace(agreeing_distance=None)):
        assert by_earlier_release.after(1) is None
    assert NoMatchThreshold.from_json(once.to_json()) == once
    stored = json.loads(measured.to_json())
    del stored["changed"]  # as versions before wrote it
    assert NoMatchThreshold.from_json(json.dumps(stored).encode()) == measured


@given(st.integers(0, 2**32 - 1), st.integers(1, 600), st.integers(1, 600))
def test_the_nearest_of_any_class_are_those_of_brute_force_also_in_parts(seed: int, n: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    queries, rows = drawn(rng, 5), drawn(rng, n)
    distance = np.linalg.norm(queries.feature[:, None].astype(float) - rows.feature[None], axis=2)
    parts = [nearest_rows(queries, *(a[s] for a in rows)) for s in (slice(cut), slice(cut, None))]
    found, count = NearestRows.merge(parts), min(n, 1 + NEIGHBOURS)
    order = np.argsort(distance, axis=1)[:, :count]
    np.testing.assert_allclose(found.of_any[:, :count], np.take_along_axis(distance, order, axis=1), rtol=1e-6)
    classes = queries.class_probabilities.argmax(axis=1)
    np.testing.assert_array_equal(found.probability[:, :count], rows.class_probabilities[order, classes[:, None]])
    assert np.isinf(found.of_any[:, count:]).all() and not found.probability[:, count:].any()


def test_a_far_query_has_a_match_where_its_nearest_rows_are_near_enough_and_of_its_class() -> None:
    known = NoMatchThreshold("b", "p", 1000, 2100, 0.01, 0.5, agreeing_distance=0.8)
    rows = {  # distances and probabilities of the five nearest rows
        "near": ([0.4, 9, 9, 9, 9], [0, 0, 0, 0, 0], False),
        "far and of its class": ([0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 0.5, 0, 0], False),
        "far and of another class": ([0.5, 0.6, 0.7, 0.8, 0.9], [1, 1, 0.4, 0, 0], True),
        "farther than other rows": ([0.5, 0.6, 0.7, 1.0, 1.2], [1, 1, 1, 1, 1], True),
    }
    distance, probability = (np.array([row[i] for row in rows.values()]) for i in (0, 1))
    expected = [row[2] for row in rows.values()]
    assert known.rejects(distance, probability).tolist() == expected
    alone = known._replace(agreeing_distance=None)  # as earlier releases did
    assert alone.rejects(distance, probability).tolist() == [False, True, True, True]
    assert known.rejects(distance[:, :4], probability[:, :4]).tolist() == [False, True, True, True]
    assert not known._replace(distance=None).rejects(distance, probability).any()


def test_nearly_all_rows_are_nearer_to_their_nearest_than_the_agreeing_distance() -> None:
    rng = np.random.default_rng(1)
    rows = drawn(rng, 500)
    nearest = nearest_rows(rows, *rows)
    measured = NoMatchThreshold.of("b", "p", nearest, 500)
    between = np.linalg.norm(rows.feature[:, None].astype(float) - rows.feature[None], axis=2)
    of_five = np.sort(between, axis=1)[:, 1 : 1 + NEIGHBOURS].mean(axis=1)
    assert measured.agreeing_distance is not None and measured.distance is not None
    assert np.mean(of_five < measured.agreeing_distance) == pytest.approx(0.98, abs=0.002)
    assert measured.false_rejection_rate == np.mean(measured.rejects(nearest.of_any[:, 1:], nearest.probability[:, 1:]))
    few = Sample(*(a[:5] for a in rows))
    assert NoMatchThreshold.of("b", "p", nearest_rows(few, *few), 5).agreeing_distance is None


def test_a_threshold_of_an_earlier_version_is_read() -> None:
    known = NoMatchThreshold("b", "p", 1000, 2100, 0.01, 0.25, 3, 0.1, 0.97, 0.4)
    stored = json.loads(known.to_json())
    assert NoMatchThreshold.from_json(json.dumps(stored).encode()) == known
    for name in ("false_rejection_rate", "class_agreement", "agreeing_distance", "changed"):
        del stored[name]
    assert NoMatchThreshold.from_json(json.dumps(stored).encode()) == known._replace(
        changed=0, false_rejection_rate=None, class_agreement=None, agreeing_distance=None
    )

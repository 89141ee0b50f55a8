import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.index.index import Index
from rsir_core.index.no_match import (
    NearestRows,
    NoMatchThreshold,
    Sample,
    get_no_match_threshold,
    nearest_rows,
    put_no_match_threshold,
    score_no_match,
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
    assert known._replace(distance=None).is_too_far(0.2) is None
    of_before = json.dumps({**known._asdict(), "weighted_distance": 0.1}).encode()  # by version 0.1
    assert NoMatchThreshold.from_json(of_before) == NoMatchThreshold.from_json(known.to_json()) == known


def test_labelled_images_are_told_what_a_searcher_finds_without_their_class() -> None:
    rng = np.random.default_rng(3)
    labels = [str(name) for name in rng.choice(["a", "b", "c", "x"], 600)]
    centre = {name: rng.normal(size=4) * 2 for name in "abcx"}
    feature = np.stack([centre[name] + rng.normal(size=4) for name in labels]).astype(np.float32)
    p = np.stack([rng.dirichlet([20 if c == name else 0.9 for c in "abc"]) for name in labels]).astype(np.float32)
    here = np.flatnonzero(np.isin(labels, list("abc")))
    found = score_no_match(feature, p, labels, list("abc"))
    assert found is not None and found["queries"] == len(here)
    null = nearest_rows(Sample(feature[here], p[here]), feature[here], p[here]).of_other_classes
    assert found["threshold"] == threshold(null)
    order, searcher = Searcher.of([f"{i:03}" for i in here], feature[here], p[here])
    rows = here[order]

    def nearest(i: int, allowed: np.ndarray) -> float:
        return float(searcher.search(feature[i], p[i], 1, allowed, euclidean=True).distance[0])

    names = np.array(labels)
    without = np.array([nearest(i, names[rows] != names[i]) for i in here.tolist()])
    others = np.array([nearest(i, rows != i) for i in range(600)])
    assert 0 < found["false_matches"] == pytest.approx(np.mean(without < found["threshold"]))
    assert 0 < found["told_wrongly"] == pytest.approx(np.mean(others[here] >= found["threshold"]))
    assert 0 < found["unseen_told"] == pytest.approx(np.mean(np.delete(others, here) >= found["threshold"]))


def test_of_few_labelled_images_or_unknown_labels_nothing_is_said() -> None:
    few = drawn(np.random.default_rng(0), 40)
    assert score_no_match(*few, ["site"] * 40, list("abc")) is None
    found = score_no_match(*few, ["a"] * 40, list("abc"))
    assert found is not None and found["threshold"] is None and found["false_matches"] is None


def test_a_threshold_is_kept_while_few_rows_have_changed_since_it_was_measured() -> None:
    measured = NoMatchThreshold("bundle", "pca", 1000, 10_000, 0.01, 0.5, class_agreement=0.99)
    once = measured.after(60)
    assert once == measured._replace(changed=60)
    assert once is not None and once.after(40) == measured._replace(changed=100) and once.after(41) is None
    assert measured._replace(class_agreement=None).after(1) is None  # as an earlier release measured it
    assert NoMatchThreshold.from_json(once.to_json()) == once
    stored = json.loads(measured.to_json())
    del stored["changed"]  # as versions before wrote it
    assert NoMatchThreshold.from_json(json.dumps(stored).encode()) == measured


@given(st.integers(0, 2**32 - 1), st.integers(2, 600), st.integers(1, 600))
def test_the_two_nearest_are_those_of_brute_force_also_in_parts(seed: int, n: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    queries, rows = drawn(rng, 5), drawn(rng, n)
    distance = np.linalg.norm(queries.feature[:, None].astype(float) - rows.feature[None], axis=2)
    parts = [nearest_rows(queries, *(a[s] for a in rows)) for s in (slice(cut), slice(cut, None))]
    np.testing.assert_allclose(NearestRows.merge(parts).of_any, np.sort(distance, axis=1)[:, :2], rtol=1e-6)


def test_a_threshold_of_an_earlier_version_is_read() -> None:
    known = NoMatchThreshold("b", "p", 1000, 2100, 0.01, 0.25, 3, 0.1, 0.97)
    stored = json.loads(known.to_json())
    assert NoMatchThreshold.from_json(json.dumps(stored).encode()) == known
    for name in ("false_rejection_rate", "class_agreement", "changed"):
        del stored[name]
    assert NoMatchThreshold.from_json(json.dumps(stored).encode()) == known._replace(
        changed=0, false_rejection_rate=None, class_agreement=None
    )

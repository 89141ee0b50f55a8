import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir_core.errors import LabelError
from rsir_core.evaluation import metrics
from rsir_core.evaluation.metrics import PRECISION_AT, mpeg7_cutoff, score_ranked, score_retrieval, top_confusion
from tests.support.rankings import Rows, reference, some_rows


def reference_scores(relevant: Sequence[bool], K: int) -> tuple[float, float, list[float], list[float]]:
    """Average precision, NMRR, precision at k and at recall levels of one ranking, as a loop."""
    ranks = [rank for rank, is_relevant in enumerate(relevant, 1) if is_relevant]
    ng = len(ranks)
    average_precision = math.fsum(i / rank for i, rank in enumerate(ranks, 1)) / ng
    avr = math.fsum(rank if rank <= K else 1.25 * K for rank in ranks) / ng
    mrr = avr - 0.5 - ng / 2
    nmrr = mrr / (1.25 * K - 0.5 * (1 + ng))
    points = [(i, i / rank) for i, rank in enumerate(ranks, 1)]
    curve = [max(precision for i, precision in points if 10 * i >= tenth * ng) for tenth in range(11)]
    return average_precision, nmrr, [sum(relevant[:k]) / k for k in PRECISION_AT], curve


def test_worked_by_hand() -> None:
    # Relevant at ranks 1, 3 and 8 of 10: NG = 3. The largest NG of all queries is 3 too: K = min(4·3, 2·3) = 6.
    # AP = (1/1 + 2/3 + 3/8) / 3 = (24 + 16 + 9) / 24 / 3 = 49/72.
    # Ranks for AVR: 1, 3 and, as 8 > K, 1.25·6 = 7.5. AVR = 11.5/3. MRR = 11.5/3 − 0.5·(1 + 3) = 11/6.
    # NMRR = MRR / (1.25·6 − 0.5·(1 + 3)) = (11/6) / 5.5 = 1/3.
    # Precision is 1 of 1, 2 of 5, 3 of 10, 3 of 20, 3 of 50.
    # Recall 1/3 at precision 1, 2/3 at 2/3, 1 at 3/8: levels 0 to 0.3 take the first, to 0.6 the second.
    relevant = np.zeros((1, 10), np.bool_)
    relevant[0, [0, 2, 7]] = True
    K = mpeg7_cutoff(np.array([3]))
    average_precision, nmrr, precision, curve = score_ranked(relevant, K)
    assert K.tolist() == [6]
    assert average_precision[0] == pytest.approx(49 / 72, abs=1e-15)
    assert nmrr[0] == pytest.approx(1 / 3, abs=1e-15)
    assert precision[0].tolist() == [1, 0.4, 0.3, 0.15, 0.06]
    assert curve[0].tolist() == [1] * 4 + [2 / 3] * 3 + [3 / 8] * 4


def test_the_cutoff_is_four_times_the_relevant_but_at_most_twice_the_most_relevant() -> None:
    # max NG = 10, so 2·max NG = 20: NG = 2 gives 8, NG = 5 gives 20, NG = 10 gives 20 and not 40.
    assert mpeg7_cutoff(np.array([2, 5, 10])).tolist() == [8, 20, 20]


def test_the_best_and_the_worst_ranking() -> None:
    # All relevant first: AVR = (1 + NG) / 2, so MRR = 0 and NMRR = 0; AP = 1.
    # All relevant below K = 8: AVR = 1.25·K, so NMRR = 1; AP = (1/9 + 2/10) / 2.
    first, last = np.zeros((2, 1, 10), np.bool_)
    first[0, :2], last[0, 8:] = True, True
    assert [float(a[0]) for a in score_ranked(first, np.array([8]))[:2]] == [1, 0]
    assert [float(a[0]) for a in score_ranked(last, np.array([8]))[:2]] == pytest.approx([(1 / 9 + 0.2) / 2, 1])


def test_rank_k_counts_and_the_next_is_penalised() -> None:
    # NG = 1, K = 4 of 6 ranks: at rank 4, NMRR = (4 − 1) / (5 − 1) = 3/4; at rank 5, (5 − 1) / (5 − 1) = 1.
    relevant = np.eye(6, dtype=np.bool_)[3:5]
    assert score_ranked(relevant, np.array([4, 4]))[1].tolist() == [0.75, 1]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.lists(st.booleans(), min_size=60, max_size=60).filter(any), min_size=1, max_size=6))
def test_equals_the_definitions_as_a_loop(rankings: list[list[bool]]) -> None:
    K = mpeg7_cutoff(np.array([sum(r) for r in rankings]))
    average_precision, nmrr, precision, curve = score_ranked(np.array(rankings), K)
    for i, ranking in enumerate(rankings):
        expected = reference_scores(ranking, int(K[i]))
        assert average_precision[i] == pytest.approx(expected[0], abs=1e-12)
        assert nmrr[i] == pytest.approx(expected[1], abs=1e-12)
        assert precision[i].tolist() == pytest.approx(expected[2], abs=1e-12)
        assert curve[i].tolist() == pytest.approx(expected[3], abs=1e-12)
        assert 0 < average_precision[i] <= 1
        assert -1e-15 <= nmrr[i] <= 1


@settings(deadline=None)  # the machine may be busy
@given(some_rows(most=25), st.data(), st.booleans())
def test_retrieval_equals_search_and_the_definitions_as_a_loop(rows: Rows, data: st.DataObject, weighted: bool) -> None:
    rows = Rows(sorted(rows.ids), rows.feature, rows.probabilities)
    n = len(rows.ids)
    labels = data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    ng = [labels.count(label) - 1 for label in labels]
    if not any(ng):
        with pytest.raises(LabelError, match="share a label"):
            score_retrieval(rows.feature, rows.probabilities, labels, weighted)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "PAIRS", data.draw(st.sampled_from([1, 60, 10_000])))
        scores = score_retrieval(rows.feature, rows.probabilities, labels, weighted)
    expected, confused = [], np.zeros((3, 3), np.int64)
    for q in (q for q in range(n) if ng[q]):
        ranked = reference(rows, q, n, [r != q for r in range(n)], euclidean=not weighted)
        for r, _ in ranked[: ng[q]]:
            confused["abc".index(labels[q]), "abc".index(labels[r])] += 1
        expected.append(reference_scores([labels[r] == labels[q] for r, _ in ranked], min(4 * ng[q], 2 * max(ng))))
    assert scores.queries.tolist() == [q for q in range(n) if ng[q]]
    assert scores.excluded == ng.count(0)
    np.testing.assert_allclose(scores.average_precision, [e[0] for e in expected], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.nmrr, [e[1] for e in expected], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.precision, [e[2] for e in expected], rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores.interpolated, [e[3] for e in expected], rtol=0, atol=1e-12)
    if weighted:
        known = ["abc".index(label) for label in sorted(set(labels))]
        assert (top_confusion(rows.feature, rows.probabilities, labels) == confused[np.ix_(known, known)]).all()
    assert scores.map == pytest.approx(np.mean([e[0] for e in expected]), abs=1e-12)
    assert scores.anmrr == pytest.approx(np.mean([e[1] for e in expected]), abs=1e-12)


def test_retrieval_worked_by_hand() -> None:
    # Points on a line, plain distance; label in brackets: 0[a] 1[b] 3[a] 7[b] 20[c]. NG = 1 for a and b, none for c.
    # Query 0: 1[b], 3[a], …: rank 2, AP 1/2. Query 3: 1[b] 2 away, 0[a] 3 away: rank 2, AP 1/2.
    # Query 1: 0[a], 3[a], 7[b]: rank 3, AP 1/3. Query 7: 3[a], 1[b]: rank 2, AP 1/2. mAP = (3/2 + 1/3) / 4 = 11/24.
    # K = min(4·1, 2·1) = 2, so that rank 2 has NMRR (2 − 1)/(2.5 − 1) = 2/3 and rank 3 has 1. ANMRR = 3/4.
    # Precision at 1 is 0; at 5 each found its one: 1/5.
    feature = np.array([[0], [1], [3], [7], [20]], np.float32)
    scores = score_retrieval(feature, np.full((5, 2), 0.5, np.float32), ["a", "b", "a", "b", "c"], weighted=False)
    assert scores.map == pytest.approx(11 / 24, abs=1e-15)
    assert scores.anmrr == pytest.approx(3 / 4, abs=1e-15)
    assert scores.precision_at == pytest.approx({1: 0, 5: 0.2, 10: 0.1, 20: 0.05, 50: 0.02})
    assert scores.excluded == 1
    per_label = scores.per_label(["a", "b", "a", "b", "c"])
    assert {label: s.map for label, s in per_label.items()} == pytest.approx({"a": 1 / 2, "b": 5 / 12})
    assert {label: len(s.queries) for label, s in per_label.items()} == {"a": 2, "b": 2}


def test_equal_distances_are_ranked_by_row() -> None:
    # All at distance 0. Row 0 [a] sees b, a: rank 2. Row 1 [b] sees a, a, b: rank 3. Row 2 [a] sees a first: rank 1.
    feature, p = np.zeros((4, 1), np.float32), np.full((4, 2), 0.5, np.float32)
    scores = score_retrieval(feature, p, ["a", "b", "a", "b"])
    assert scores.average_precision.tolist() == pytest.approx([1 / 2, 1 / 3, 1, 1 / 2])

"""Figure 5 shows the ranking that is scored."""

import numpy as np
import pytest

from jobs.evaluating.describing import stored
from jobs.evaluating.evaluated_index import EvaluatedIndex, open_evaluated_index
from jobs.evaluating.gallery import QUERIES, RESULTS, choose_queries, make_strips
from jobs.evaluating.options import EvaluateConfig
from rsir_core.evaluation.arms import Arm
from rsir_core.evaluation.gallery import GalleryRow
from rsir_core.evaluation.metrics import Scores, score_retrieval
from rsir_core.evaluation.paper import FIGURE_5
from tests.support.made_up import CLASSES, ROOT, write_index
from tests.support.rankings import Rows, reference


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> EvaluatedIndex:
    """As many images as a strip has, so that it is the whole ranking."""
    folder = tmp_path_factory.mktemp("gallery")
    image_ids = [f"{CLASSES[i % 3]}/{i:02}.jpg" for i in range(RESULTS + 1)]
    index = write_index(folder, sorted(image_ids))
    return open_evaluated_index(EvaluateConfig(index=index, report=str(folder), arms="key_region"), None)


def test_strips_are_the_rankings_that_are_scored(subject: EvaluatedIndex) -> None:
    database, own = stored(subject.index, subject.features), subject.own
    image_ids = subject.features["image_id"].to_pylist()
    arms = {Arm(own.variation, None, "plain"): "plain", own.main: "the method"}
    queries = {q: f"query {q}" for q in range(len(image_ids))}
    strips = make_strips(subject, arms, {own.variation: database}, queries)
    assert [(strip.way, strip.note) for strip in strips] == [(w, n) for n in queries.values() for w in arms.values()]

    def check(strip: GalleryRow, query: int, arm: Arm, scores: Scores) -> None:
        vectors = database.vectors(arm.components)
        rows = Rows(image_ids, vectors, database.class_probabilities)
        others = [row != query for row in range(len(image_ids))]  # never itself
        expected = reference(rows, query, RESULTS, others, euclidean=arm.distance == "plain")
        assert [f"{ROOT}/{image_ids[row]}" for row, _ in expected] == [shown.uri for shown in strip.results]
        assert strip.query.uri == f"{ROOT}/{image_ids[query]}"
        factor = 0 if arm.distance == "weighted" else 1
        assert [s.distance for s in strip.results] == pytest.approx([f[factor] for _, f in expected], rel=1e-9)
        assert (strip.measure, strip.query.distance) == ("WD" if arm.distance == "weighted" else "d", 0)
        assert strip.right == [subject.labels[row] == subject.labels[query] == strip.label for row, _ in expected]
        ranks = np.flatnonzero(strip.right) + 1  # all relevant rows are among those shown
        average_precision = np.mean(np.arange(1, len(ranks) + 1) / ranks)
        assert scores.average_precision[scores.queries == query] == pytest.approx(average_precision, abs=1e-12)
        p = database.class_probabilities[query]
        assert strip.query.class_name == CLASSES[p.argmax()]
        assert strip.query.probability == p.max()

    for place, arm in enumerate(arms):
        vectors = database.vectors(arm.components)
        scores = score_retrieval(vectors, database.class_probabilities, subject.labels, arm.distance == "weighted")
        for query in queries:
            check(strips[len(arms) * query + place], query, arm, scores)


def test_typical_queries_of_the_paper_s_classes_and_bad_ones_of_the_worst() -> None:
    rng = np.random.default_rng(3)
    names = [*FIGURE_5, *(f"class {i}" for i in range(9))]
    labels = [name for name in names for _ in range(10)]
    n = len(labels)
    precision = rng.random(n)
    scores = Scores(np.arange(n), precision, rng.random(n), rng.random((n, 5)), rng.random((n, 11)), 0)
    chosen = choose_queries(scores, labels)
    of_label = {name: precision[np.array(labels) == name] for name in names}
    worst = sorted(names[len(FIGURE_5) :], key=lambda name: of_label[name].mean())[: QUERIES - len(FIGURE_5)]
    assert [labels[query] for query in chosen] == [*FIGURE_5, *worst]
    for query, note in chosen.items():
        surpassed = np.sum(of_label[labels[query]] > precision[query])
        assert surpassed == (5 if labels[query] in FIGURE_5 else 9)
        assert note.startswith("a median query" if labels[query] in FIGURE_5 else "among the worst tenth of its class")
        assert f"{100 * precision[query]:.1f} %" in note

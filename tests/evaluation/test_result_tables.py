"""Every figure of a table is that of the arm that its row and column name, and the paper's is the paper's."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rsir_core.evaluation import paper
from rsir_core.evaluation.arms import ARM_SETS, CENTRES, FIXED, TAUS, Arm, ArmSet, Variation
from rsir_core.evaluation.evaluation import Evaluation, Spread, over_seeds
from rsir_core.evaluation.paper import Published
from rsir_core.evaluation.tables import PaperTable, Tables
from rsir_core.models.frozen import FROZEN
from rsir_core.models.regions import VIEWS
from tests.support.evaluations import OTHER, OWN, UC_MERCED, some_evaluation

EVERY: list[ArmSet] = list(ARM_SETS)
SEEDS = (0, 1, 2)
PEERS = (Variation(1.0, "vgg16", "peers/vgg16"), Variation(1.0, "vit_b_16", "peers/vit"))
MAIN, K = OWN.variation, OWN.components


@pytest.fixture(scope="module")
def everything() -> Evaluation:
    return some_evaluation(EVERY, UC_MERCED, SEEDS, OWN._replace(peers=PEERS))


def by_name(evaluation: Evaluation) -> dict[str, PaperTable]:
    tables = Tables(evaluation)
    return {table.name: table for table in (*tables.all(), tables.classes())}


def ours(evaluation: Evaluation, arm: Arm) -> tuple[Spread, Spread]:
    return evaluation.map(arm), evaluation.anmrr(arm)


def cell(table: PaperTable, row: int, group: str) -> tuple[Spread, Spread]:
    cells = table.rows[row][1]
    return cells[f"{group}_map"], cells[f"{group}_anmrr"]


def as_printed(published: Published) -> tuple[Spread, Spread]:
    return Spread(published.map / 100, None), Spread(published.anmrr, None)


def test_table_3_has_every_size(everything: Evaluation) -> None:
    table = by_name(everything)["table3"]
    assert [heading for heading, _ in table.rows] == [f"{tau:g}" for tau in TAUS]
    for row, tau in enumerate(TAUS):
        cut = MAIN._replace(tau=tau)
        assert cell(table, row, "plain") == ours(everything, Arm(cut, None, "plain"))
        assert cell(table, row, "weighted") == ours(everything, Arm(cut, K, "weighted"))
        assert cell(table, row, "paper") == as_printed(paper.TABLE_3[tau])


def test_figure_4_has_every_number_of_dimensions(everything: Evaluation) -> None:
    table = by_name(everything)["figure4"]
    sizes = (8, 16, 19, 32, 64, 128, 256, None)
    assert [heading for heading, _ in table.rows] == [str(size or "no PCA (2048)") for size in sizes]
    for row, size in enumerate(sizes):
        for distance in FIXED:
            assert cell(table, row, distance) == ours(everything, Arm(MAIN, size, distance))
        assert ("paper_map" in table.rows[row][1]) == (size in paper.FIGURE_4)
        if size in paper.FIGURE_4:
            assert cell(table, row, "paper") == as_printed(paper.FIGURE_4[size])


def test_table_4_has_every_class_and_their_mean(everything: Evaluation) -> None:
    table = by_name(everything)["table4"]
    whole = MAIN._replace(tau=1.0)
    arms = {"whole_plain": Arm(whole, None, "plain"), "whole": Arm(whole, K, "weighted"), "key_region": everything.main}
    assert [heading for heading, _ in table.rows] == [*UC_MERCED, "mean"]
    for group, arm in arms.items():
        for row, label in enumerate(UC_MERCED):
            scores = everything.per_class(arm)[label]
            assert cell(table, row, group) == (scores.map, scores.anmrr)
        assert cell(table, len(UC_MERCED), group) == ours(everything, arm)
        of_classes = [cell(table, row, group)[0].mean for row in range(len(UC_MERCED))]
        assert np.mean(of_classes) == pytest.approx(everything.map(arm).mean)  # classes of equal size
    for row, published in enumerate([*(paper.TABLE_4[label] for label in UC_MERCED), paper.TABLE_4_AVERAGE]):
        assert (cell(table, row, "paper_whole"), cell(table, row, "paper")) == tuple(map(as_printed, published))


def test_table_5_has_the_parts_and_the_peers_and_no_frozen_backbone(everything: Evaluation) -> None:
    table = by_name(everything)["table5"]
    vgg, other = (Arm(peer, None, "weighted") for peer in PEERS)
    parts: dict[str, Arm] = {
        "plain": Arm(MAIN, None, "plain"),
        "pca": Arm(MAIN, K, "plain"),
        "pca weighted": Arm(MAIN, K, "weighted"),
    }
    arms = [vgg, None, other, *parts.values()]
    published = [paper.TABLE_5["vgg16"], paper.TABLE_5["resnet50"], None, *(paper.TABLE_5[part] for part in parts)]
    for row, (arm, printed) in enumerate(zip(arms, published, strict=True)):
        cells = table.rows[row][1]
        assert ("ours_map" in cells, "paper_map" in cells) == (arm is not None, printed is not None)
        assert arm is None or cell(table, row, "ours") == ours(everything, arm)
        assert printed is None or cell(table, row, "paper") == as_printed(printed)
    assert [heading for heading, _ in table.rows][:2] == [
        f"whole image, {name}, weighted" for name in ("vgg16 fc7", "resnet50 pool5")
    ]


def test_the_baseline_goes_from_imagenet_alone_to_the_method(everything: Evaluation) -> None:
    table = by_name(everything)["baseline"]
    whole = MAIN._replace(tau=1.0)
    frozen = [Arm(whole._replace(peer=FROZEN), size, "plain") for size in (None, K)]
    steps = [*frozen, Arm(whole, None, "plain"), Arm(MAIN, None, "plain"), Arm(MAIN, K, "plain"), everything.main]
    assert [cell(table, row, "ours") for row in range(len(table.rows))] == [ours(everything, arm) for arm in steps]
    assert [heading for heading, _ in table.rows] == [everything.name(arm) for arm in steps]
    assert "baseline" not in by_name(some_evaluation(["frozen"]))  # nothing to set beside it


@pytest.mark.parametrize(("name", "field", "ways"), [("objects", "centre", CENTRES), ("views", "views", VIEWS)])
def test_what_the_recipe_chose_is_set_beside_every_other_way(
    everything: Evaluation, name: str, field: str, ways: Sequence[object]
) -> None:
    table = by_name(everything)[name]
    assert [heading for heading, _ in table.rows] == [str(way) for way in ways]
    for row, way in enumerate(ways):
        v = MAIN._replace(**{field: way})  # type: ignore[arg-type]
        assert cell(table, row, "plain") == ours(everything, Arm(v, None, "plain"))
        assert cell(table, row, "weighted") == ours(everything, Arm(v, K, "weighted"))


def test_classes_that_an_object_helps_come_first(everything: Evaluation) -> None:
    table = by_name(everything)["objects_per_class"]
    arms = [Arm(MAIN._replace(centre=centre), K, "weighted") for centre in ("image", "confidence")]
    image, surest = (everything.per_class(arm) for arm in arms)
    for row, (label, _) in enumerate(table.rows):
        assert cell(table, row, "image") == (image[label].map, image[label].anmrr)
        assert cell(table, row, "object") == (surest[label].map, surest[label].anmrr)
    gains = [surest[label].map.mean - image[label].map.mean for label, _ in table.rows]
    assert gains == sorted(gains, reverse=True) and gains[0] > gains[-1] and len(gains) == len(UC_MERCED)


def test_the_marked_row_is_the_method_s_own(everything: Evaluation) -> None:
    tables = by_name(everything)
    groups = {"table3": "weighted", "figure4": "weighted", "table4": "key_region", "table5": "ours", "baseline": "ours"}
    for name, group in groups.items():
        marked = tables[name].marked
        assert marked is not None and cell(tables[name], marked, group) == ours(everything, everything.main)


def test_classes_come_hardest_first(everything: Evaluation) -> None:
    table, scores = by_name(everything)["classes"], everything.per_class(everything.main)
    found = [cell(table, row, "key_region")[0].mean for row in range(len(table.rows))]
    assert found == sorted(found) and len(found) == len(UC_MERCED)
    for row, (label, _) in enumerate(table.rows):
        assert cell(table, row, "key_region") == (scores[label].map, scores[label].anmrr)
        assert cell(table, row, "paper") == as_printed(paper.TABLE_4[label][1])


def test_on_another_archive_nothing_of_the_paper_is_told() -> None:
    for classes in (OTHER, UC_MERCED[:-1], [*UC_MERCED, "volcano"]):
        tables = by_name(some_evaluation(EVERY, classes))
        assert set(tables) >= {"table3", "figure4", "table4", "table5", "classes"}
        for table in tables.values():
            assert not [group for group in table.groups if group.startswith("paper")]
            assert not [key for _, cells in table.rows for key in cells if key.startswith("paper")]


@pytest.mark.parametrize(
    ("sets", "filled"),
    [
        (["key_region"], {"table5"}),
        (["whole_image"], {"table5"}),  # of whole images, which are the method then
        (["key_region", "whole_image"], {"table4", "table5"}),
        (["table3"], {"table3", "table4"}),
        (["figure4"], {"figure4", "table5"}),
        (["table4"], {"table4"}),
        (["table5"], {"table5"}),
        (["figure5"], set()),
        (["objects"], {"objects", "objects_per_class"}),
        (["views"], {"views"}),
        (["key_region", "frozen"], {"table5", "baseline"}),
        (["frozen"], set()),  # nothing is weighted, so nothing tells what weights bring
    ],
)
def test_a_table_is_there_when_its_arms_are(sets: list[ArmSet], filled: set[str]) -> None:
    assert {table.name for table in Tables(some_evaluation(sets)).all()} == filled


def test_lines_have_every_cell_and_deviations_where_there_are_several_seeds(everything: Evaluation) -> None:
    for table in by_name(everything).values():
        lines = table.lines()
        assert len({tuple(line) for line in lines}) == 1
        for line, (heading, cells) in zip(lines, table.rows, strict=True):
            told: dict[str, Any] = {table.first: heading}
            for key, figure in cells.items():
                told |= {key: figure.mean} | ({f"{key}_sd": figure.sd} if figure.sd is not None else {})
            assert {key: value for key, value in line.items() if value is not None} == told
    one_seed = by_name(some_evaluation(EVERY, UC_MERCED))["table4"].lines()
    assert not [key for line in one_seed for key in line if key.endswith("_sd")]


def test_peers_of_one_backbone_have_names_of_their_own() -> None:
    peers = (*PEERS, Variation(1.0, "vgg16", "peers/other"))
    evaluation = some_evaluation(["table5"], own=OWN._replace(peers=peers))
    names = [evaluation.words(arm)[0] for arm in evaluation.arms if arm.variation.peer]
    assert names == ["whole image, vgg16 (peers/vgg16)", "whole image, vit_b_16", "whole image, vgg16 (peers/other)"]


def test_unseen_classes_are_a_table_of_what_was_found() -> None:
    def found(step: float) -> dict[str, Any]:
        ways = {way: {"map": step * i, "anmrr": 0.9 - step * i} for i, way in enumerate(("plain", "weighted", "auto"))}
        return {"labels": ["lake"], "unseen": {"queries": 7, "sure": 0.5, **ways}, "known": None}

    evaluation = some_evaluation(["key_region"], seeds=(0, 1))
    runs = [
        replace(run, findings={"unseen": found(step)}) for run, step in zip(evaluation.runs, (0.1, 0.2), strict=True)
    ]
    (table,) = (t for t in Tables(replace(evaluation, runs=runs)).all() if t.name == "unseen")
    assert [heading for heading, _ in table.rows] == ["classes never seen (7 queries)"]
    for i, way in enumerate(("plain", "weighted", "auto")):
        steps = [0.1 * i, 0.2 * i]
        assert cell(table, 0, way) == (Spread.of(steps), Spread.of([0.9 - step for step in steps]))


@pytest.mark.parametrize(
    ("found", "as_one"),
    [
        ([{"a": 1, "b": ["x"]}, {"a": 1, "b": ["x"]}], {"a": 1, "b": ["x"]}),
        ([{"a": {"b": 1.0}}, {"a": {"b": 2.0}}], {"a": {"b": 1.5}}),
        ([{"a": None, "b": 1}, {"a": 2.0, "b": 3}], {"a": None, "b": 2.0}),
        ([["y", "x"], ["x", "z"]], ["x", "y", "z"]),
        ([None, {"a": 1}], None),
    ],
)
def test_what_seeds_have_found_is_one(found: list[Any], as_one: Any) -> None:
    assert over_seeds(found) == as_one


def test_the_paper_s_figures_agree_where_it_prints_one_twice() -> None:
    assert paper.FIGURE_4[None] == paper.TABLE_3[0.9] == paper.TABLE_5["plain"]
    assert paper.FIGURE_4[19] == paper.TABLE_5["pca"]
    assert (paper.TABLE_3[1.0], paper.MAIN) == paper.TABLE_4_AVERAGE
    for column, average in enumerate(paper.TABLE_4_AVERAGE):
        of_classes = [published[column] for published in paper.TABLE_4.values()]
        assert np.mean([p.map for p in of_classes]) == pytest.approx(average.map, abs=0.006)
        assert np.mean([p.anmrr for p in of_classes]) == pytest.approx(average.anmrr, abs=0.00006)

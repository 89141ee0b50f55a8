"""Learning from labels: laws of the scorer, and the way from labels to scored images over HTTP and from Python."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import geopandas
import httpx
import numpy as np
import pyarrow as pa
import pytest

import rsir_core as rsir
from rsir_core import schemas
from rsir_core.arrays import Floats
from rsir_core.errors import LabelError, TableError
from rsir_core.index.index import Index
from rsir_core.index.labels import save_labels
from rsir_core.index.layout import scorer_uri
from rsir_core.index.vacuum import vacuum
from rsir_core.learning.archive_scores import _groups, learn, read_scorer, score_index
from rsir_core.learning.scorer import FEWEST, LabelledEmbeddings, Scorer, fit_scorer
from rsir_core.retrieval.scored_rows import Order, ScoredQuery, in_order
from tests.support.serving import ONE, copy_of, local_app, serving
from tests.support.writing import writer_of

D = 40


def drawn(n: int, seed: int = 0) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Embeddings of two kinds that overlap a little."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3 == 0
    x = rng.gamma(0.5, 1.0, (n, D)) + y[:, None] * np.linspace(0, 1.5, D)
    return x.astype(np.float32), y


def labelled(n: int, seed: int = 0) -> LabelledEmbeddings:
    x, y = drawn(n, seed)
    return LabelledEmbeddings(x, y, np.arange(n), "scenes")


def test_a_scorer_tells_what_it_has_not_seen_and_survives_being_kept() -> None:
    x, y = drawn(500, seed=1)
    scorer = fit_scorer(labelled(60), x, "good", "b")
    p = scorer.score(x)
    assert p.shape == (500,) and p.dtype == np.float32 and 0 <= p.min() <= p.max() <= 1
    assert p[y].mean() > 0.8 and p[~y].mean() < 0.2
    np.testing.assert_allclose(scorer.score(7 * x), p, atol=1e-5)  # only the direction of an embedding counts
    again = Scorer.from_bytes(scorer.to_bytes())
    assert (again.score(x) == p).all() and again.estimate == scorer.estimate
    assert b"pickle" not in scorer.to_bytes() and json.loads(scorer.to_bytes())["positives"] == 20


@pytest.mark.slow
def test_the_estimate_is_near_what_others_turn_out_to_be() -> None:
    from sklearn.metrics import average_precision_score  # noqa: PLC0415

    x, y = drawn(3000, seed=2)
    found = [fit_scorer(labelled(120, seed), x, "good", "b") for seed in range(10, 16)]
    true = np.mean([average_precision_score(y, scorer.score(x)) for scorer in found])
    told = np.mean([scorer.estimate.average_precision for scorer in found if scorer.estimate])
    assert told == pytest.approx(true, abs=0.06)


def test_an_estimate_does_not_profit_from_neighbours() -> None:
    """Each image is there five times, as its neighbours are; labels are drawn, so nothing can be learned."""
    rng = np.random.default_rng(0)
    x, y = np.repeat(rng.gamma(0.5, 1.0, (40, D)), 5, axis=0).astype(np.float32), np.repeat(rng.random(40) < 0.5, 5)
    apart = fit_scorer(LabelledEmbeddings(x, y, np.repeat(np.arange(40), 5), "cells"), x, "good", "b").estimate
    mixed = fit_scorer(LabelledEmbeddings(x, y, np.arange(200), "cells"), x, "good", "b").estimate
    assert apart is not None and mixed is not None
    assert apart.average_precision < 0.75 and mixed.average_precision > 0.95


def test_few_labels_have_no_estimate_and_one_kind_is_refused() -> None:
    x, _ = drawn(50)
    few = labelled(9)
    assert few.is_positive.sum() < FEWEST and fit_scorer(few, x, "good", "b").estimate is None
    alike = LabelledEmbeddings(few.embedding, np.ones(9, bool), few.groups, "scenes")
    with pytest.raises(LabelError, match="all 9 labelled images are 'good'; label some that are not"):
        fit_scorer(alike, x, "good", "b")
    with pytest.raises(LabelError, match=r"none of the 9 .* is 'good'; label some that are"):
        fit_scorer(replace(alike, is_positive=np.zeros(9, bool)), x, "good", "b")
    together = LabelledEmbeddings(labelled(60).embedding, labelled(60).is_positive, np.zeros(60, np.int64), "cells")
    assert fit_scorer(together, x, "good", "b").estimate is None


def test_folds_share_neither_cells_nor_scenes() -> None:
    boxes = [{"xmin": x, "ymin": 0.0, "xmax": x + 0.1, "ymax": 0.1} for x in (0.0, 0.02, 5.0, 9.99)]
    field = schemas.FEATURES.field(schemas.BBOX)
    ids = ["a#xywh=0,0,9,9", "a#xywh=9,0,9,9", "b#xywh=0,0,9,9", "c"]
    cells, by = _groups(pa.table([pa.array(boxes, field.type), ids], [schemas.BBOX, schemas.IMAGE_ID]))
    assert by == "cells" and cells[0] == cells[1] and len(set(cells)) == 3
    wests = (179.0, 179.5, 179.95, -179.95, -179.5, -179.1)
    around = [{"xmin": x, "ymin": 0.0, "xmax": -180 + x % 1 if x == 179.95 else x + 0.1, "ymax": 0.1} for x in wests]
    around_ids = [str(x) for x in wests]
    across, _ = _groups(pa.table([pa.array(around, field.type), around_ids], [schemas.BBOX, schemas.IMAGE_ID]))
    assert len(set(across)) == 5  # 2 degrees apart at most, not 360
    missing = pa.array([None, *boxes[1:]], field.type)
    scenes, by = _groups(pa.table([missing, ids], [schemas.BBOX, schemas.IMAGE_ID]))
    assert by == "scenes" and scenes[0] == scenes[1] and len(set(scenes)) == 3


@pytest.fixture
def marked(index: str, tmp_path: Path) -> Index:
    """An index with labels: all beaches and rivers are good, some others bad."""
    copy = copy_of(index, tmp_path / "index")
    names = copy.features(columns=[schemas.IMAGE_ID])[schemas.IMAGE_ID].to_pylist()
    labels: dict[str, str | None] = {n: "good" if n.startswith(("beach", "river")) else "bad" for n in names[::2]}
    save_labels(copy, "water", labels, dict.fromkeys(names, "u"), None)
    return copy


@pytest.fixture
def endpoint(marked: Index) -> Iterator[httpx.Client]:
    """Its endpoint."""
    with serving(local_app(marked.uri, parts=2)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_every_image_is_scored_by_its_embedding(marked: Index) -> None:
    index = marked
    scorer = learn(index, "water", "good")
    rows = index.features()
    expected = dict(zip(rows[schemas.IMAGE_ID].to_pylist(), scorer.score(index.embeddings(rows)), strict=True))
    found = {
        name: score
        for piece, scores in score_index(index, index.version(), scorer)
        for name, score in zip(piece[schemas.IMAGE_ID].to_pylist(), scores, strict=True)
    }
    assert found == pytest.approx(expected, abs=1e-6)
    table = rsir.open(index.uri).collection("water").scored(len(rows))
    assert table["score"].to_pylist() == sorted(expected.values(), reverse=True)
    assert dict(zip(table[schemas.IMAGE_ID].to_pylist(), table["score"].to_pylist(), strict=True)) == pytest.approx(
        expected, abs=1e-6
    )
    vacuum(writer_of(index), 0)
    assert read_scorer(index, "water") is not None


def test_learning_by_http(marked: Index, endpoint: httpx.Client, tmp_path: Path) -> None:
    index, client = marked, endpoint
    assert client.get("/collections/water/scorer").status_code == 404
    assert client.get("/collections/water/scored").status_code == 404
    told = client.post("/collections/water/learn", json={}).json()
    assert (told["positive"], told["positives"], told["negatives"], told["estimate"]) == ("good", 2, 12, None)
    assert client.get("/collections/water/scorer").json() == told
    answer = client.get("/collections/water/scored", params={"limit": 28}).json()
    table = rsir.open(index.uri).collection("water").scored(28)
    assert [row["image_id"] for row in answer["results"]] == table[schemas.IMAGE_ID].to_pylist()
    scores = {row["image_id"]: row["score"] for row in answer["results"]}
    assert {name.split("/")[0] for name in list(scores)[:2]} == {"beach", "river"}
    assert answer["total"] == sum(answer["counts"]) == 28
    second = client.get("/collections/water/scored", params={"offset": 3, "limit": 2}).json()["results"]
    assert [row["image_id"] for row in second] == list(scores)[3:5]
    next_ones = client.get("/collections/water/scored", params={"order": "uncertain", "labelled": False}).json()
    assert next_ones["total"] == 14
    doubts = [abs(row["score"] - 0.5) for row in next_ones["results"]]
    assert doubts == sorted(doubts)
    few = client.get("/collections/water/scored", params={"order": "uncertain", "labelled": False, "limit": 3}).json()
    assert few["results"] == next_ones["results"][:3]
    threshold = sorted(scores.values())[-5]
    above = client.get("/collections/water/scored", params={"threshold": threshold}).json()
    assert above["total"] == 5 and min(row["score"] for row in above["results"]) >= threshold
    file = client.get("/collections/water/scored/download", params={"format": "gpkg", "threshold": threshold})
    (tmp_path / "water.gpkg").write_bytes(file.content)
    frame = geopandas.read_file(tmp_path / "water.gpkg")
    assert frame["image_id"].tolist() == list(scores)[:5] and frame["rank"].tolist() == [1, 2, 3, 4, 5]


def test_what_cannot_be_learned_is_refused(marked: Index, endpoint: httpx.Client) -> None:
    index, client = marked, endpoint
    for name, sent, status in (("water", {"positive": "ships"}, 422), ("none", {}, 422), ("water", {"x": 1}, 422)):
        assert client.post(f"/collections/{name}/learn", json=sent).status_code == status
    save_labels(index, "alike", {ONE: "good"}, {ONE: "u"}, None)
    refused = client.post("/collections/alike/learn", json={})
    assert (refused.status_code, "label some that are not" in refused.json()["detail"]) == (422, True)
    with pytest.raises(LabelError, match="nobody has learned"):
        rsir.open(index.uri).collection("water").scored()


def test_a_scorer_of_another_model_and_a_damaged_one_are_told(marked: Index) -> None:
    index = marked
    scorer = learn(index, "water", "good")
    (file,) = Path(scorer_uri(index.uri, "x")).parent.iterdir()
    file.write_bytes(scorer.to_bytes().replace(scorer.bundle.encode(), b"another"))
    with pytest.raises(LabelError, match="another model"):
        rsir.open(index.uri).collection("water").scored()
    file.write_text("{}")
    with pytest.raises(TableError, match="damaged"):
        read_scorer(index, "water")


@pytest.mark.parametrize("first", [15, 1000])
@pytest.mark.parametrize("order", ["best", "uncertain"])
def test_the_first_rows_are_those_of_a_full_sort(order: Order, first: int) -> None:
    rng = np.random.default_rng(0)
    scores = (rng.integers(0, 9, 200) / 8).astype(np.float32)  # most are tied
    ids = [f"{i:03}" for i in rng.permutation(200)]
    left_out = rng.choice(200, 20, replace=False)
    scorer = Scorer("good", "bundle", np.zeros(1, np.float32), 0.0, 1, 1, None)
    wanted = ScoredQuery(scorer, order, 0.2, first)
    rows, total = in_order(scores, wanted, left_out, pa.chunked_array([ids[:70], ids[70:]]))
    kept = [i for i in range(200) if scores[i] >= 0.2 and i not in left_out]
    key = {"best": -scores, "uncertain": abs(scores - 0.5)}[order]
    assert rows.tolist() == sorted(kept, key=lambda i: (key[i], ids[i]))[:first] and total == len(kept)

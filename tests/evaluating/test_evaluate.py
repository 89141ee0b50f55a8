import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from PIL import Image
from safetensors.torch import save_file

import jobs.evaluate
from jobs.demo.scenes import draw_scene
from jobs.evaluating.evaluate import evaluate, measure
from jobs.evaluating.options import EvaluateConfig
from jobs.pipeline.cluster import joined
from rsir_core import schemas
from rsir_core.errors import ConfigError, ImageError, LabelError, TableError, WeightsError
from rsir_core.evaluation.auto import score_auto
from rsir_core.evaluation.metrics import PROTOCOL, score_retrieval
from rsir_core.evaluation.unseen import score_unseen
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index
from rsir_core.models.backbones import EFFICIENTNET_LITE0
from rsir_core.models.calibration import score_calibration
from rsir_core.models.classifier import build_classifier
from rsir_core.models.describe import Describer
from rsir_core.models.frozen import frozen_bundle
from rsir_core.models.pca import Moments, unit_length
from tests.support.made_up import CLASSES, ROOT, K, write_index, write_split


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_index(tmp_path_factory.mktemp("made_up"), [f"{c}/{i}.jpg" for c in CLASSES for i in range(8)])


def config_of(index: str, report: Path, **more: Any) -> EvaluateConfig:
    return EvaluateConfig(index=index, report=str(report), **{"arms": "key_region", **more})


def score(index: str, report: Path, **more: Any) -> dict[str, Any]:
    """What metrics.json would say; tables, plots and page are not made."""
    metrics: dict[str, Any] = json.loads(json.dumps(measure(config_of(index, report, **more))[0].metrics()))
    return metrics


def report_of(index: str, report: Path, **more: Any) -> dict[str, Any]:
    evaluate(config_of(index, report, **more))
    metrics: dict[str, Any] = json.loads((report / "metrics.json").read_text())
    return metrics


def test_key_regions_are_scored_as_they_are_stored(made_up: str, tmp_path: Path) -> None:
    running = ray.is_initialized()
    metrics = score(made_up, tmp_path)
    assert ray.is_initialized() == running  # nothing of this needs it
    features = Index(made_up).features()
    labels = [c for c in CLASSES for _ in range(8)]
    p, embedding = schemas.to_matrix(features["class_probabilities"]), Index(made_up).embeddings(features)
    for arm, feature in ((0, unit_length(embedding).astype(np.float32)), (2, schemas.to_matrix(features["feature"]))):
        for weighted in (False, True):
            found, expected = metrics["arms"][arm + weighted], score_retrieval(feature, p, labels, weighted)
            assert (found["map"], found["anmrr"]) == (expected.map, expected.anmrr)
            assert (found["pca"], found["weighted"], found["dimensions"]) == (arm == 2, weighted, K if arm else 8)
    auto, _ = score_auto(feature, p, labels, score_retrieval(feature, p, labels, weighted=False))
    told = metrics["arms"][4]
    assert (told["distance"], told["weighted"], told["map"], told["anmrr"]) == ("auto", None, auto.map, auto.anmrr)
    assert len(metrics["arms"]) == 5
    assert metrics["map"] == metrics["arms"][3]["map"]
    assert (metrics["queries"], metrics["database"]) == (24, 24)
    assert metrics["accuracy"] == np.mean(np.array(features["class"].to_pylist()) == labels)
    protocol = metrics["protocol"]
    assert protocol.items() >= PROTOCOL.items()
    assert protocol.items() >= {"labels": "folder names", "index": made_up, "index_version": 1, "tau": 0.5}.items()
    assert [protocol["bundle"], protocol["pca"]] == [features[c][0].as_py() for c in ("bundle", "pca")]


def test_a_split_restricts_queries_and_database_and_gives_the_labels(made_up: str, tmp_path: Path) -> None:
    tests = {f"{ROOT}/{c}/{i}.jpg": f"site {i % 2}" for c in CLASSES for i in range(5)}
    split = write_split(tmp_path / "s.csv", tests, {f"{ROOT}/{CLASSES[0]}/7.jpg": "site 0"})
    metrics = score(made_up, tmp_path, split=split)
    features = Index(made_up).features()
    chosen = [i for i, uri in enumerate(features["uri"].to_pylist()) if uri in tests]
    feature, p = (schemas.to_matrix(features[c])[chosen] for c in ("feature", "class_probabilities"))
    assert metrics["map"] == score_retrieval(feature, p, [f"site {i % 2}" for _ in CLASSES for i in range(5)]).map
    assert (metrics["queries"], metrics["database"]) == (15, 15)
    assert list(metrics["per_class"]) == ["site 0", "site 1"]
    assert metrics["accuracy"] is None  # a site is no class
    assert metrics["protocol"]["split"] == split


def test_an_image_that_is_alone_with_its_label_is_no_query_and_that_is_said(
    made_up: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tests = {f"{ROOT}/{c}/{i}.jpg": c for c in CLASSES for i in range(1 if c == CLASSES[0] else 4)}
    metrics = score(made_up, tmp_path, split=write_split(tmp_path / "s.csv", tests, {}))
    assert (metrics["queries"], metrics["database"], metrics["protocol"]["excluded_queries"]) == (8, 9, 1)
    assert "1 of 9 images" in caplog.text
    caplog.clear()
    score(made_up, tmp_path)
    assert "only one of their label" not in caplog.text


def test_a_split_of_the_archive_before_it_moved_still_matches(made_up: str, tmp_path: Path) -> None:
    here = {f"{ROOT}/{c}/{i}.jpg": c for c in CLASSES for i in range(5)}
    there = {f"s3://elsewhere/deep/{c}/{i}.jpg": c for c in CLASSES for i in range(5)} | {
        "s3://elsewhere/0.jpg": "river"
    }
    moved = score(made_up, tmp_path / "a", split=write_split(tmp_path / "a.csv", there, {}))
    stayed = score(made_up, tmp_path / "b", split=write_split(tmp_path / "b.csv", here, {}))
    assert moved["map"] == stayed["map"]
    assert moved["protocol"]["split_test_images"] == 16
    assert moved["protocol"]["split_not_in_index"] == 1


def test_where_uris_match_no_other_folder_is_taken_for_the_archive(made_up: str, tmp_path: Path) -> None:
    tests = {f"{ROOT}/{c}/{i}.jpg": c for c in CLASSES for i in range(2)} | {"/other/river/5.jpg": "river"}
    metrics = score(made_up, tmp_path, split=write_split(tmp_path / "s.csv", tests, {}))
    assert (metrics["database"], metrics["protocol"]["split_not_in_index"]) == (6, 1)


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ({"/other/lake/1.jpg": "lake", "/other/lake/2.jpg": "lake"}, "none of the 2 test images.*/other/lake/1.jpg"),
        ({"/one/river/1.jpg": "river", "/two/river/1.jpg": "river"}, "both end in the image id river/1.jpg"),
        ({}, "no row whose split is test"),
        ({f"{ROOT}/river/1.jpg": "river", f"{ROOT}/forest/1.jpg": "forest"}, "share a label"),
    ],
)
def test_splits_that_cannot_be_scored_are_refused(
    made_up: str, tmp_path: Path, tests: dict[str, str], message: str
) -> None:
    split = write_split(tmp_path / "s.csv", tests, {f"{ROOT}/river/3.jpg": "river"})
    with pytest.raises(LabelError, match=message):
        evaluate(config_of(made_up, tmp_path / "report", split=split))
    assert not list((tmp_path / "report").iterdir())


def test_images_without_a_class_folder_need_a_split(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no class folder"):
        score(write_index(tmp_path, ["river/1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]), tmp_path / "report")


def test_an_index_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no rows"):
        score(write_index(tmp_path, []), tmp_path / "report")


def test_arms_and_reports_that_cannot_be_are_found_out_first(made_up: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'centre'.*key_region, whole_image"):
        score(made_up, tmp_path, arms="centre,key_region")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        score(made_up, tmp_path / "file")


def test_peers_are_asked_for_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--arms table5 .*jobs\.finetune_classifier .*--backbone vgg16.* --peers "):
        score(str(tmp_path / "no index"), tmp_path / "report", arms="key_region,table5")
    assert not (tmp_path / "report").exists()


def test_arms_that_say_nothing_are_refused(made_up: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--peers p.*table5.*--arms key_region"):
        score(made_up, tmp_path, arms="key_region", peers="p")
    with pytest.raises(ConfigError, match="--arms table5 compares"):
        score(made_up, tmp_path, arms="table5")
    with pytest.raises(ConfigError, match="--peers  , : "):
        score(made_up, tmp_path, arms="table5", peers=" , ")
    with pytest.raises(ConfigError, match=r"--arms objects.*detector"):
        score(made_up, tmp_path, arms="objects")
    assert not (tmp_path / "report.html").exists()


def test_weights_that_cannot_be_used_are_found_out_first(made_up: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--weights w\.pth.*frozen.*--arms key_region,whole_image"):
        score(made_up, tmp_path, arms="key_region,whole_image", weights="w.pth")
    running = ray.is_initialized()
    with pytest.raises(WeightsError, match=r"w\.pth: not a readable"):
        score(made_up, tmp_path, arms="frozen", weights="w.pth")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors"):
        score(made_up, tmp_path, arms="frozen", weights=str(tmp_path / "other.safetensors"))
    assert ray.is_initialized() == running  # nothing was described


@pytest.mark.slow
def test_labels_that_are_no_class_are_told_apart(made_up: str, tmp_path: Path) -> None:
    labels = ["lake" if c == "forest" else c for c in CLASSES for _ in range(8)]
    uris = [f"{ROOT}/{c}/{i}.jpg" for c in CLASSES for i in range(8)]
    split = write_split(tmp_path / "s.csv", dict(zip(uris, labels, strict=True)), {})
    metrics = report_of(made_up, tmp_path / "report", split=split)
    features = Index(made_up).features()
    feature, p = (schemas.to_matrix(features[c]) for c in ("feature", "class_probabilities"))
    assert metrics["unseen"] == json.loads(json.dumps(score_unseen(feature, p, labels, CLASSES)))
    assert metrics["unseen"]["labels"] == ["lake"]
    assert metrics["calibration"] == score_calibration(p, labels, CLASSES, 1.0)
    assert metrics["calibration"]["images"] == 16
    (unseen, known, mixed) = csv.DictReader((tmp_path / "report" / "unseen.csv").read_text().splitlines())
    assert float(unseen["auto_map"]) == metrics["unseen"]["unseen"]["auto"]["map"]
    assert float(known["weighted_anmrr"]) == metrics["unseen"]["known"]["weighted"]["anmrr"]
    assert float(mixed["plain_map"]) == metrics["unseen"]["mixed"]["plain"]["map"]
    assert score(made_up, tmp_path / "all")["unseen"] is None


def draw_archive(archive: Path, image_ids: list[str]) -> None:
    """Pictures of which no two are alike."""
    for i, image_id in enumerate(image_ids):
        (archive / image_id).parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(i).integers(0, 250, (8, 8, 3), np.uint8)
        Image.fromarray(blocks.repeat(32, 0).repeat(32, 1)).save(archive / image_id)


@pytest.mark.slow
def test_duplicates_are_counted_and_those_across_the_split_come_first(tmp_path: Path) -> None:
    image_ids, archive = [f"{c}/{i}.png" for c in CLASSES for i in range(4)], tmp_path / "archive"
    draw_archive(archive, image_ids)
    shutil.copy(archive / "harbor/1.png", archive / "river/2.png")
    Image.fromarray(np.asarray(Image.open(archive / "forest/0.png")) + 2).save(archive / "forest/3.png")
    places = {image_id: i for i, image_id in enumerate(image_ids)}
    copies = {places["river/2.png"]: places["harbor/1.png"], places["forest/3.png"]: places["forest/0.png"]}
    copies[places["forest/2.png"]] = places["forest/1.png"]  # described alike, and yet another picture
    index = write_index(tmp_path, image_ids, str(archive), copies=copies)
    label = {f"{archive}/{image_id}": image_id.split("/")[0] for image_id in image_ids if image_id != "river/0.png"}
    train = {f"{archive}/{image_id}": "harbor" for image_id in ("harbor/1.png", "harbor/0.png")}
    split = write_split(tmp_path / "s.csv", {uri: c for uri, c in label.items() if uri not in train}, train)

    found = report_of(index, tmp_path / "report", split=split)["duplicates"]
    twins = [("harbor/1.png", "river/2.png", "identical", "train", "test"),
             ("forest/0.png", "forest/3.png", "re-encoded", "test", "test")]  # fmt: skip
    names = ("first", "second", "kind", "first_split", "second_split")
    assert [tuple(pair[name] for name in names) for pair in found["pairs"]] == twins
    assert [pair["difference"] for pair in found["pairs"]] == [0, pytest.approx(2, abs=1e-6)]
    assert {key: value for key, value in found.items() if key != "pairs"} == {
        "images": 11, "compared": 6, "unread": 0, "groups": 2, "identical": 1, "re_encoded": 1, "train_test": 1,
    }  # fmt: skip
    lines = list(csv.DictReader((tmp_path / "report" / "duplicates.csv").read_text().splitlines()))
    assert lines == [{key: str(value) for key, value in pair.items()} for pair in found["pairs"]]
    page = (tmp_path / "report" / "report.html").read_text()
    assert "a training image and a query</dt><dd>1</dd>" in page

    (archive / "forest/3.png").unlink()
    found = score(index, tmp_path / "again")["duplicates"]
    assert (found["images"], found["unread"], found["re_encoded"], found["identical"]) == (12, 1, 0, 1)
    assert found["train_test"] is None  # nobody has said what was trained on


def test_the_summary_is_the_last_line_after_the_table(
    made_up: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--index", made_up, "--report", str(tmp_path), "--arms", "key_region", "--json"]
    assert jobs.evaluate.evaluate.main(arguments) == 0
    *table, last = capsys.readouterr().out.splitlines()
    summary, metrics = json.loads(last), json.loads((tmp_path / "metrics.json").read_text())
    assert {name: summary[name] for name in ("map", "anmrr", "queries", "database")} == {
        name: metrics[name] for name in ("map", "anmrr", "queries", "database")
    }
    assert {"seconds", "report"} <= set(summary)
    assert any("PCA 3" in line and f"{100 * metrics['map']:.2f}" in line for line in table)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")  # Ray Data sets its own deprecated options
def test_images_are_described_again(tmp_path: Path) -> None:
    """Whole images by the index's own bundle and by an untrained one, and what either ranks first."""
    rng, archive = np.random.default_rng(0), tmp_path / "archive"
    image_ids = [f"{c}/{i}.png" for c in CLASSES for i in range(4)]
    for image_id in image_ids:
        (archive / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_scene(image_id.split("/")[0], rng).pixels).save(archive / image_id)
    torch.manual_seed(0)
    state = build_classifier(EFFICIENTNET_LITE0, len(CLASSES)).state_dict()
    index = write_index(tmp_path, image_ids, str(archive), state)
    weights = str(tmp_path / "weights.safetensors")
    save_file(build_classifier(EFFICIENTNET_LITE0, 1).backbone.state_dict(), weights)

    with joined(None):
        given = score(index, tmp_path / "given", arms="frozen", weights=weights)
        metrics = report_of(index, tmp_path / "report", arms="whole_image,key_region,frozen,figure5")
        (archive / image_ids[5]).rename(tmp_path / "away.png")
        with pytest.raises(ImageError, match=r"^1 .*--arms key_region"):
            score(index, tmp_path / "again", arms="whole_image")
        (tmp_path / "away.png").rename(archive / image_ids[5])
    assert [arm["region"] for arm in metrics["arms"]] == ["key_region"] * 5 + ["whole_image"] * 6
    assert [arm["bundle"] for arm in metrics["arms"]] == [None] * 9 + ["frozen"] * 2
    images = [read_picture(str(archive / image_id)).pixels for image_id in image_ids]
    found = Describer(Index(index).bundle()).describe(images, tau=1.0)
    feature = Moments.of(found.embedding).fit(K).transform(found.embedding)
    expected = score_retrieval(feature, found.class_probabilities, [i.split("/")[0] for i in image_ids])
    assert metrics["arms"][8]["map"] == pytest.approx(expected.map, abs=1e-3)  # rounding may swap near ties
    assert metrics["map"] == metrics["arms"][3]["map"] != metrics["arms"][8]["map"]
    labels = [i.split("/")[0] for i in image_ids]
    for source, found_map in ((None, metrics["arms"][9]["map"]), (weights, given["arms"][0]["map"])):
        untrained = Describer(frozen_bundle(EFFICIENTNET_LITE0, source, 64)).describe(images)
        vectors = unit_length(untrained.embedding).astype(np.float32)
        expected = score_retrieval(vectors, untrained.class_probabilities, labels, weighted=False)
        assert found_map == pytest.approx(expected.map, abs=1e-3)
    assert len({metrics["arms"][9]["map"], given["arms"][0]["map"], metrics["arms"][5]["map"]}) == 3
    assert metrics["protocol"]["frozen_weights"] == "as the backbone ships them"
    assert given["protocol"]["frozen_weights"] == weights
    assert {"figure5.png", "figure5.svg", "baseline.csv"} <= {file.name for file in (tmp_path / "report").iterdir()}
    assert (tmp_path / "report" / "report.html").read_text().count('class="query"') == 2 * len(CLASSES)

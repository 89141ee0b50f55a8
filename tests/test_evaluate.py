import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from PIL import Image

from jobs.cluster import joined
from jobs.config import EvaluateConfig, run
from jobs.demo_scenes import draw_scene
from jobs.evaluate import evaluate
from rsir_core import rows
from rsir_core.bundle import State, write_classifier
from rsir_core.classifier import EFFICIENTNET_LITE0, ClassifierSettings, build_classifier
from rsir_core.describe import Describer
from rsir_core.errors import ConfigError, ImageError, LabelError, TableError
from rsir_core.metrics import PROTOCOL, score_retrieval
from rsir_core.pca import Moments, unit_length
from rsir_core.raster import read_picture
from rsir_core.table import Index

CLASSES = ("forest", "harbor", "river")
ROOT = "/imagery/2019"
K = 3


def write_index(folder: Path, image_ids: list[str], root: str = ROOT, state: State | None = None) -> str:
    """An index as jobs.index makes it, of made-up descriptors: 8 dimensions, and classes that are right at times."""
    models, index = str(folder / "models"), Index(str(folder / "index"))
    settings = ClassifierSettings(EFFICIENTNET_LITE0, CLASSES, 64, (0.5,) * 3, (0.5,) * 3)
    write_classifier(models, settings, state or {"weight": torch.zeros(1)}, 0.5, "uri,label,split\n")
    fingerprint = index.adopt_bundle(models)
    rng, n = np.random.default_rng(5), len(image_ids)
    embedding = rng.normal(size=(n, 8)).astype(np.float16).astype(np.float32)
    p = rng.dirichlet(np.full(3, 0.5), n).astype(np.float32)
    pca = Moments.of(embedding).fit(K) if n else Moments.of(rng.normal(size=(9, 8))).fit(K)
    index.put_pca(pca)
    columns = {
        **{f.name: pa.nulls(n, f.type) for f in rows.FEATURES},
        rows.IMAGE_ID: pa.array(image_ids, pa.string()),
        rows.URI: pa.array([f"{root}/{i}" for i in image_ids], pa.string()),
        rows.ETAG: pa.array(["1"] * n, pa.string()),
        rows.BUNDLE: pa.array([fingerprint] * n, pa.string()),
        rows.PCA: pa.array([pca.fingerprint] * n, pa.string()),
        rows.HEIGHT: pa.array([256] * n, pa.int32()),
        rows.WIDTH: pa.array([256] * n, pa.int32()),
        rows.REGION: pa.array([(64, 64, 128, 128)] * n, rows.FEATURES.field(rows.REGION).type),
        rows.CLASS_PROBABILITIES: rows.to_vectors(p),
        rows.CLASS: pa.array([CLASSES[i] for i in p.argmax(axis=1)], pa.string()),
        rows.FEATURE: rows.to_vectors(pca.transform(embedding)),
        rows.EMBEDDING: rows.to_vectors(embedding),
    }
    for name, schema in (("embeddings", rows.EMBEDDINGS), ("features", rows.FEATURES)):
        table = pa.table([columns[f.name] for f in schema], schema)
        index.commit(name, [index.write_rows(name, table.slice(s, 7)) for s in range(0, n, 7)], "append")  # type: ignore[arg-type]
    return index.uri


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_index(tmp_path_factory.mktemp("made_up"), [f"{c}/{i}.jpg" for c in CLASSES for i in range(8)])


def score(index: str, report: Path, **more: Any) -> dict[str, Any]:
    evaluate(EvaluateConfig(index=index, report=str(report), **{"arms": "key_region", **more}))
    metrics: dict[str, Any] = json.loads((report / "metrics.json").read_text())
    return metrics


def write_split(path: Path, tests: dict[str, str], train: dict[str, str]) -> str:
    lines = [
        f"{uri},{label},{split}" for split, part in (("test", tests), ("train", train)) for uri, label in part.items()
    ]
    path.write_text("\n".join(["uri,label,split", *lines, ""]))
    return str(path)


def test_key_regions_are_scored_as_they_are_stored(made_up: str, tmp_path: Path) -> None:
    metrics = score(made_up, tmp_path)
    features = Index(made_up).features()
    labels = [c for c in CLASSES for _ in range(8)]
    p, embedding = rows.to_matrix(features["class_probabilities"]), Index(made_up).embeddings(features)
    for arm, feature in ((0, unit_length(embedding).astype(np.float32)), (2, rows.to_matrix(features["feature"]))):
        for weighted in (False, True):
            found, expected = metrics["arms"][arm + weighted], score_retrieval(feature, p, labels, weighted)
            assert (found["map"], found["anmrr"]) == (expected.map, expected.anmrr)
            assert (found["pca"], found["weighted"], found["dimensions"]) == (arm == 2, weighted, K if arm else 8)
    assert len(metrics["arms"]) == 4
    assert metrics["map"] == metrics["arms"][3]["map"]
    assert (metrics["queries"], metrics["database"]) == (24, 24)
    assert metrics["accuracy"] == np.mean(np.array(features["class"].to_pylist()) == labels)
    protocol = metrics["protocol"]
    assert protocol.items() >= PROTOCOL.items()
    assert protocol.items() >= {"labels": "folder names", "index": made_up, "index_version": 1, "tau": 0.5}.items()
    assert [protocol["bundle"], protocol["pca"]] == [features[c][0].as_py() for c in ("bundle", "pca")]
    assert not ray.is_initialized()


def test_a_split_restricts_queries_and_database_and_gives_the_labels(made_up: str, tmp_path: Path) -> None:
    tests = {f"{ROOT}/{c}/{i}.jpg": f"site {i % 2}" for c in CLASSES for i in range(5)}
    split = write_split(tmp_path / "s.csv", tests, {f"{ROOT}/{CLASSES[0]}/7.jpg": "site 0"})
    metrics = score(made_up, tmp_path, split=split)
    features = Index(made_up).features()
    chosen = [i for i, uri in enumerate(features["uri"].to_pylist()) if uri in tests]
    feature, p = (rows.to_matrix(features[c])[chosen] for c in ("feature", "class_probabilities"))
    assert metrics["map"] == score_retrieval(feature, p, [f"site {i % 2}" for _ in CLASSES for i in range(5)]).map
    assert (metrics["queries"], metrics["database"]) == (15, 15)
    assert list(metrics["per_class"]) == ["site 0", "site 1"]
    assert metrics["accuracy"] is None  # a site is no class
    assert metrics["protocol"]["split"] == split


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
        score(made_up, tmp_path / "report", split=split)
    assert not list((tmp_path / "report").iterdir())


def test_images_without_a_class_folder_need_a_split(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no class folder"):
        score(write_index(tmp_path, ["river/1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]), tmp_path / "report")


def test_an_index_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no rows"):
        score(write_index(tmp_path, []), tmp_path / "report")


def test_arms_and_reports_that_cannot_be_are_found_out_first(made_up: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'centre' is none; known are key_region, whole_image"):
        score(made_up, tmp_path, arms="centre,key_region")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        score(made_up, tmp_path / "file")


def test_the_summary_is_the_last_line_after_the_table(
    made_up: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--index", made_up, "--report", str(tmp_path), "--arms", "key_region", "--json"]
    assert run(evaluate, EvaluateConfig, "evaluate", arguments) == 0
    *table, last = capsys.readouterr().out.splitlines()
    summary, metrics = json.loads(last), json.loads((tmp_path / "metrics.json").read_text())
    assert {name: summary[name] for name in ("map", "anmrr", "queries", "database")} == {
        name: metrics[name] for name in ("map", "anmrr", "queries", "database")
    }
    assert {"seconds", "report"} <= set(summary)
    assert any("PCA 3" in line and f"{100 * metrics['map']:.2f}" in line for line in table)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")  # Ray Data sets its own deprecated options
def test_whole_images_are_described_again_by_the_index_s_own_bundle(tmp_path: Path) -> None:
    rng, archive = np.random.default_rng(0), tmp_path / "archive"
    image_ids = [f"{c}/{i}.png" for c in CLASSES for i in range(4)]
    for image_id in image_ids:
        (archive / image_id).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_scene(image_id.split("/")[0], rng).pixels).save(archive / image_id)
    torch.manual_seed(0)
    state = build_classifier(EFFICIENTNET_LITE0, len(CLASSES)).state_dict()
    index = write_index(tmp_path, image_ids, str(archive), state)

    with joined(None):
        metrics = score(index, tmp_path / "report", arms="whole_image,key_region")
        (archive / image_ids[5]).rename(tmp_path / "away.png")
        with pytest.raises(ImageError, match=r"1 images cannot be read again .*--arms key_region"):
            score(index, tmp_path / "again", arms="whole_image")
        (tmp_path / "away.png").rename(archive / image_ids[5])
    assert [arm["region"] for arm in metrics["arms"]] == ["key_region"] * 4 + ["whole_image"] * 4
    images = [read_picture(str(archive / image_id)).pixels for image_id in image_ids]
    found = Describer(Index(index).bundle()).describe(images, tau=1.0)
    feature = Moments.of(found.embedding).fit(K).transform(found.embedding)
    expected = score_retrieval(feature, found.class_probabilities, [i.split("/")[0] for i in image_ids])
    assert metrics["arms"][7]["map"] == pytest.approx(expected.map, abs=1e-3)  # rounding may swap near ties
    assert metrics["map"] == metrics["arms"][3]["map"] != metrics["arms"][7]["map"]

"""An archive without labels, from its first index to the weighted distance: frozen, searched, labelled, refitted."""

import itertools
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn

import rsir_core as rsir
from jobs.evaluate import evaluate
from jobs.evaluating.options import EvaluateConfig
from jobs.finetune_classifier import finetune
from jobs.index import index_archive
from jobs.indexing import updating
from jobs.indexing.options import IndexConfig
from jobs.query import answer_queries
from jobs.querying.options import QueryConfig
from jobs.training.options import FinetuneClassifierConfig
from rsir_core import schemas
from rsir_core.errors import BundleError, ConfigError, QueryError, WeightsError
from rsir_core.index.index import Index
from tests.indexing.test_index import draw
from tests.support.serving import local_app, serving

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
SIDE = 64


def config_of(folder: Path, **more: Any) -> IndexConfig:
    options = {
        "archive": str(folder / "archive"), "models": "frozen:efficientnet_lite0", "image_size": SIDE,
        "index": str(folder / "index"), "components": 5, "actors": 1,
    }  # fmt: skip
    return IndexConfig(**options | more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of 30 images without classes."""
    folder = tmp_path_factory.mktemp("frozen")
    draw(folder / "archive", 0, 30)
    done = index_archive(config_of(folder))
    assert (done["described"], done["rows"]) == (30, 30)
    return folder


def nearest(index: Index, image_id: str) -> tuple[list[str], list[float]]:
    """All images by the Euclidean distance to one of them, by brute force."""
    rows = index.features()
    ids, feature = rows[schemas.IMAGE_ID].to_pylist(), schemas.to_matrix(rows[schemas.FEATURE]).astype(np.float64)
    distance = np.sqrt(((feature - feature[ids.index(image_id)]) ** 2).sum(axis=1))
    order = sorted(range(len(ids)), key=lambda i: (distance[i], ids[i]))
    return [ids[i] for i in order], [float(distance[i]) for i in order]


def test_rows_have_no_classes(folder: Path) -> None:
    index = Index(str(folder / "index"))
    rows = index.features()
    assert set(rows[schemas.CLASS].to_pylist()) == {""}
    assert schemas.to_matrix(rows[schemas.CLASS_PROBABILITIES]).shape == (30, 0)
    assert index.bundle_settings().classes == ()
    whole = rows.slice(0, 1).to_pylist()[0]
    assert whole["region"] == {"x": 0, "y": 0, "width": whole["width"], "height": whole["height"]}


@pytest.mark.parametrize("distance", ["weighted", "plain", "auto"])
def test_every_distance_is_the_euclidean_one(folder: Path, distance: Any) -> None:
    found, index = rsir.open(str(folder / "index")), Index(str(folder / "index"))
    for image_id in ("airport/000.png", "beach/013.png"):
        hits = found.search(image_id, k=30, distance=distance)
        ids, distances = nearest(index, image_id)
        assert [hit.image_id for hit in hits] == ids
        assert [hit.distance for hit in hits] == pytest.approx(distances, abs=1e-12)
        for hit in hits:
            assert hit.query_weight == hit.candidate_weight == 1 and hit.weighted_distance == hit.distance
            assert (hit.class_name, hit.probability) == ("", 0)
    assert hits.class_name == "" and "%" not in hits.class_words and "of class" not in repr(hits)


def test_an_uploaded_copy_finds_itself_and_its_near_duplicates(folder: Path) -> None:
    found, path = rsir.open(str(folder / "index")), folder / "archive" / "beach" / "004.png"
    first = found.search(path.read_bytes(), k=1)[0]
    assert (first.image_id, first.distance) == ("beach/004.png", 0)
    same = found.search(path.read_bytes(), k=5, near_duplicates=True)[0]
    assert (same.image_id, same.same_picture) == ("beach/004.png", "identical")


def test_filters_work_but_for_classes(folder: Path) -> None:
    found = rsir.open(str(folder / "index"))
    hits = found.search("beach/004.png", where=[("image_id", "<", "b")])
    assert len(hits) == 10 and all(hit.image_id.startswith("airport") for hit in hits)
    with pytest.raises(QueryError, match="no classes"):
        found.search("beach/004.png", classes=["beach"])


def test_the_endpoint_answers_and_refuses_classes(folder: Path) -> None:
    with serving(local_app(str(folder / "index"))) as url, httpx.Client(base_url=url) as client:
        assert client.get("/healthz").status_code == 200
        about = client.get("/index").json()
        assert (about["class_names"], about["images"]) == ([], 30)
        answer = client.post("/search", json={"image_id": "beach/004.png", "k": 3}).json()
        assert [row["image_id"] for row in answer["results"]] == nearest(Index(str(folder / "index")), "beach/004.png")[
            0
        ][:3]
        query = answer["query"]
        assert (query["class"], query["probability"], query["class_probabilities"]) == ("", 0, {})
        again = client.post(
            "/search",
            json={"feature": query["feature"], "class_probabilities": [], "k": 3},
        )
        assert again.json()["results"] == answer["results"]
        assert client.get("/images", params={"class": "beach"}).is_client_error
        refused = client.post("/search", json={"image_id": "beach/004.png", "classes": ["beach"]})
        assert refused.is_client_error and "no classes" in refused.json()["detail"]
        assert client.get("/").status_code == 200


def test_a_folder_of_queries_is_answered(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer_queries(QueryConfig(queries=str(folder / "archive/forest"), index=str(folder / "index"), out=str(out), k=2))
    rows = pq.read_table(out / "results").to_pylist()
    assert len(rows) == 20
    assert all(row["query_image_id"] in row["image_id"] for row in rows if row["rank"] == 1)
    assert {(row["query_class"], row["query_probability"], row["class"]) for row in rows} == {("", 0, "")}


def test_it_is_evaluated_by_folders(folder: Path, tmp_path: Path) -> None:
    arms = ("key_region", "whole_image", "frozen")
    done = evaluate(EvaluateConfig(index=str(folder / "index"), report=str(tmp_path / "report"), arms=arms))
    assert 0.3 < done["map"] <= 1 and done["accuracy"] is None
    metrics = json.loads((tmp_path / "report/metrics.json").read_text())
    assert metrics["unseen"] is metrics["calibration"] is metrics["no_match"] is None
    by_way: dict[str, list[float]] = {"plain": [], "weighted": [], "auto": []}
    for arm in metrics["arms"]:
        if arm["bundle"] is None and arm["pca"] and arm["region"] == "whole_image":
            by_way[arm["distance"]].append(arm["map"])
    assert by_way["weighted"] == by_way["plain"] != []  # no class is known
    assert set(by_way["auto"]) == set(by_way["plain"])


def test_from_no_labels_to_the_weighted_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, old = tmp_path / "archive", str(tmp_path / "index")
    draw(archive, 0, 30)
    index_archive(config_of(tmp_path))
    with monkeypatch.context() as patch:  # the bundle is made once
        patch.setattr("rsir_core.models.frozen.frozen_bundle", None)
        again = index_archive(config_of(tmp_path))
        assert (again["new"], again["described"], again["version"]) == (0, 0, 1)
        draw(archive, 30, 6)
        more = index_archive(config_of(tmp_path))
        assert (more["new"], more["described"], more["rows"]) == (6, 6, 36)
    labels = tmp_path / "labels.csv"
    marked = [f"{path.relative_to(archive)},{path.parent.name}" for path in sorted(archive.rglob("*.png"))[::2]]
    labels.write_text("\n".join(["uri,label", *marked, ""]))
    models = str(tmp_path / "models")
    learnt = finetune(
        FinetuneClassifierConfig(embeddings=old, labels=str(labels), models=models, calibration_fraction=0.3)
    )  # fmt: skip
    assert learnt["classes"] == 3

    def reads_an_image(*_: Any) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(updating, "describe_files", reads_an_image)
        new = config_of(tmp_path, models=models, image_size=None, index=str(tmp_path / "weighted"), refit=old)
        done = index_archive(new)
    assert (done["rows"], done["described"]) == (36, 0)
    before, after = Index(old).features(), Index(new.index).features()
    assert after.select(["image_id", "uri", "etag", "height"]) == before.select(["image_id", "uri", "etag", "height"])
    right = [c == i.split("/")[0] for c, i in zip(*(after[n].to_pylist() for n in ("class", "image_id")), strict=True)]
    assert np.mean(right) > 0.8
    found = rsir.open(new.index)
    for row in itertools.islice(after.to_pylist(), 0, None, 7):  # as they would be described
        (fresh,) = found.describe(row["uri"])
        assert fresh.class_probabilities == pytest.approx(row["class_probabilities"], abs=2e-3)
        hits = found.search(Path(row["uri"]).read_bytes(), k=5, distance="weighted")
        assert hits.ranked_by == "weighted_distance" and (hits[0].image_id, hits[0].distance) == (row["image_id"], 0)
    assert any(hit.query_weight < 1 for hit in hits)
    assert (
        evaluate(EvaluateConfig(index=new.index, split=f"{models}/split.csv", report=str(tmp_path / "report")))["map"]
        > 0.5
    )


def test_refit_refuses_another_backbone(folder: Path, tmp_path: Path) -> None:
    other = config_of(folder, index=str(tmp_path / "index"), refit=str(folder / "index"), image_size=48)
    with pytest.raises(BundleError, match="image size"):
        index_archive(other)


class Means(nn.Module):
    """An encoder of somebody else's: means over a grid of 4×4, as a map of 3 channels' squares and sums."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return torch.cat([pooled, pooled**2], dim=1)


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # PyTorch advises torch.export, whose files are pickles
def test_a_torchscript_program_describes(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "encoder.pt"
    torch.jit.trace(Means(), torch.zeros(2, 3, SIDE, SIDE)).save(str(program))
    config = config_of(folder, models=f"frozen:{program}", index=str(tmp_path / "index"))
    assert index_archive(config)["described"] == 30
    program.unlink()  # the index has it
    index = Index(config.index)
    pixels = np.asarray(Image.open(folder / "archive/beach/004.png").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    wanted = Means()(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255)[0].numpy()
    rows = index.features()
    place = rows[schemas.IMAGE_ID].to_pylist().index("beach/004.png")
    assert index.embeddings(rows)[place] == pytest.approx(wanted, abs=0.01)
    hits = rsir.open(config.index).search(folder / "archive/beach/004.png", k=3)
    assert hits[0].image_id == "beach/004.png" and hits[0].distance == 0


@pytest.mark.parametrize(
    ("models", "error", "said"),
    [
        ("frozen:resnet51", WeightsError, "resnet51"),
        ("frozen:timm/no_such_model", WeightsError, "no_such_model"),
        ("frozen:/none/encoder.pt", WeightsError, "/none/encoder.pt"),
        ("frozen:/none/encoder.pt2", WeightsError, "pickle"),
    ],
)
def test_what_is_no_backbone_is_said(
    models: str, error: type[Exception], said: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        index_archive(config_of(folder, models=models, index=str(tmp_path / "index")))


def test_a_file_that_is_no_program_is_said(folder: Path, tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="TorchScript"):
        index_archive(config_of(folder, models=f"frozen:{tmp_path}/weights.pt", index=str(tmp_path / "index")))


def test_weights_beside_a_program_are_refused(folder: Path, tmp_path: Path) -> None:
    options = {"models": "frozen:encoder.pt", "weights": "w.pth", "index": str(tmp_path / "index")}
    with pytest.raises(WeightsError, match=r"w\.pth.*encoder\.pt has its own"):
        index_archive(config_of(folder, **options))


def test_options_of_frozen_need_it() -> None:
    with pytest.raises(ConfigError, match="--weights"):
        IndexConfig(archive="a", models="m", index="i", weights="w.pth")
    with pytest.raises(ConfigError, match="--backbone"):
        FinetuneClassifierConfig(embeddings="i", models="m", backbone="vgg16")


def test_timm_is_asked_for_by_its_extra(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsir_core.extras.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"timm.*rsir\[train\]"):
        index_archive(config_of(folder, models="frozen:timm/resnet10t", index=str(tmp_path / "index")))


def test_a_timm_backbone_describes(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"models": "frozen:timm/resnet10t", "weights": "random", "index": str(tmp_path / "index")}
    assert index_archive(config_of(folder, **options))["described"] == 30
    assert rsir.open(options["index"]).search(folder / "archive/beach/004.png", k=3)[0].image_id == "beach/004.png"

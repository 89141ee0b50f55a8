"""An index of embeddings that somebody else made: published, searched, changed, classified, and written out again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import httpx
import jsonschema_rs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from deltalake import DeltaTable

import rsir_core as rsir
from jobs.evaluate import evaluate
from jobs.evaluating.options import EvaluateConfig
from jobs.finetune_classifier import finetune
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from jobs.query import answer_queries
from jobs.querying.options import QueryConfig
from jobs.training.options import FinetuneClassifierConfig
from rsir_core import schemas
from rsir_core.errors import BundleError, ConfigError, QueryError, TableError
from rsir_core.index.index import Index
from rsir_core.models.pca import unit_length
from tests.support.serving import local_app, serving

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
D, K, N = 24, 5, 60
KINDS = ("field", "lake", "town")
LIST = pa.list_(pa.float32())


def drawn(n: int = N, seed: int = 0) -> pa.Table:
    """Vectors around three centres, with places and times, as Earth Index has them."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(3, D))[np.arange(n) % 3] + 0.4 * rng.normal(size=(n, D))
    boxes = [shapely.box(0.1 * i, 0, 0.1 * i + 0.1, 0.1) for i in range(n)]
    return pa.table(
        {
            "id": [f"{KINDS[i % 3]}/{i:03}" for i in range(n)],
            "embedding": pa.array(vectors.astype(np.float32).tolist(), LIST),
            "geometry": pa.array(shapely.to_wkb(boxes).tolist(), pa.binary()),
            "date": [f"2024-05-{1 + i % 28:02}" for i in range(n)],
        }
    )


def config_of(folder: Path, **more: Any) -> IndexConfig:
    options = {"archive": str(folder / "vectors"), "vectors": "auto", "index": str(folder / "index"), "components": K,
               "max_failure_rate": 1.0}  # fmt: skip
    return IndexConfig(**options | more)


def write(folder: Path, table: pa.Table) -> None:
    """Two files of several row groups."""
    (folder / "vectors").mkdir(exist_ok=True)
    for i, part in enumerate((table.slice(0, 25), table.slice(25))):
        pq.write_table(part, folder / "vectors" / f"{i}.parquet", row_group_size=10)


def with_vector(table: pa.Table, row: int, vector: Any) -> pa.Table:
    rows = table["embedding"].to_pylist()
    rows[row] = vector
    return table.set_column(1, "embedding", pa.array(rows, LIST))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    write(folder, drawn())
    done = index_archive(config_of(folder))
    assert (done["new"], done["described"], done["failed"], done["rows"]) == (N, N, 0, N)
    return folder


def test_rows_are_what_the_files_say(folder: Path) -> None:
    index, table = Index(str(folder / "index")), drawn()
    rows = index.features()
    assert rows["image_id"].to_pylist() == sorted(table["id"].to_pylist())
    place = [table["id"].to_pylist().index(image_id) for image_id in rows["image_id"].to_pylist()]
    vectors = schemas.to_matrix(table["embedding"])[place]
    np.testing.assert_array_equal(index.embeddings(rows), vectors)
    assert set(rows["class"].to_pylist()) == {""}
    wanted = table.take(place)
    assert rows["geometry"].to_pylist() == wanted["geometry"].to_pylist()
    assert [f"{time:%Y-%m-%d}" for time in rows["time"].to_pylist()] == wanted["date"].to_pylist()
    centred = unit_length(vectors) - unit_length(vectors).mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:K]
    np.testing.assert_allclose(np.abs(schemas.to_matrix(rows["feature"])), np.abs(centred @ components.T), atol=1e-5)


def nearest(index: Index, feature: Any) -> list[str]:
    rows = index.features()
    distance = np.linalg.norm(schemas.to_matrix(rows["feature"]).astype(np.float64) - feature, axis=1)
    ids = rows["image_id"].to_pylist()
    return [ids[i] for i in np.lexsort((ids, distance))]


def test_search_takes_rows_and_vectors_and_refuses_images(folder: Path, tmp_path: Path) -> None:
    found, index, table = rsir.open(str(folder / "index")), Index(str(folder / "index")), drawn()
    hits = found.search("lake/004", k=10)
    own = index.features().to_pylist()[index.features()["image_id"].to_pylist().index("lake/004")]
    assert [hit.image_id for hit in hits] == nearest(index, own["feature"])[:10] and hits[0].distance == 0
    vector = table["embedding"][4].as_py()
    for query in (vector, tuple(vector), np.array(vector)):
        again = found.search(query, k=10)
        assert [hit.image_id for hit in again] == [hit.image_id for hit in hits] and again[0].distance == 0
    other = np.random.default_rng(9).normal(size=D).astype(np.float32)
    feature = index.pca(own["pca"]).transform(other[None])[0]
    assert [hit.image_id for hit in found.search(other, k=N)] == nearest(index, feature)
    picture = np.zeros((8, 8, 3), np.uint8)
    asks: list[Callable[[], Any]] = [
        lambda: found.search(picture),
        lambda: found.describe(picture),
        lambda: found.search("lake/004", box=(0, 0, 1, 1)),
    ]
    for ask in asks:
        with pytest.raises(QueryError, match="without the model"):
            ask()
    for bad in (vector[:-1], [0.0] * D, [float("nan")] * D):
        with pytest.raises(QueryError, match="vector"):
            found.search(bad)
    assert hits.to_html()
    with pytest.raises(QueryError, match="without the model"):
        answer_queries(QueryConfig(queries=str(tmp_path), index=str(folder / "index"), out=str(tmp_path / "out")))


def test_the_endpoint_answers_rows_and_vectors_and_refuses_uploads(folder: Path) -> None:
    vector = drawn()["embedding"][4].as_py()
    with serving(local_app(str(folder / "index"))) as url, httpx.Client(base_url=url) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/index").json()["has_backbone"] is False
        named = client.post("/search", json={"image_id": "lake/004", "k": 5, "preview": True}).json()
        assert named["results"][0]["image_id"] == "lake/004" and named["query"]["notes"] is None
        assert client.post("/search", json={"vector": vector, "k": 5}).json()["results"] == named["results"]
        upload = client.post("/search", files={"image": ("a.png", b"\x89PNG", "image/png")})
        assert upload.status_code == 422 and "without the model" in upload.json()["detail"]
        more: list[dict[str, Any]] = [{"image_id": "lake/004"}, {"box": [0, 0, 1, 1]}, {"vector": vector[:3]}]
        for fields in more:
            assert client.post("/search", json={"vector": vector, **fields}).status_code == 422
        shown = client.get("/thumbnail/lake/004")
        assert shown.is_client_error and shown.json()["detail"]


def test_only_what_changed_is_taken_again(tmp_path: Path) -> None:
    table = drawn()
    write(tmp_path, table)
    assert index_archive(config_of(tmp_path))["version"] == 1
    again = index_archive(config_of(tmp_path))
    assert (again["new"], again["changed"], again["gone"], again["described"], again["version"]) == (0, 0, 0, 0, 1)
    other = [1.0] * D
    write(tmp_path, with_vector(table, 30, other).slice(2))
    done = index_archive(config_of(tmp_path))
    assert (done["new"], done["changed"], done["gone"], done["described"], done["rows"]) == (0, 1, 2, 1, N - 2)
    index = Index(str(tmp_path / "index"))
    rows = index.features()
    place = rows["image_id"].to_pylist().index(table["id"][30].as_py())
    assert index.embeddings(rows)[place].tolist() == other
    assert rsir.open(index.uri).search(other, k=1)[0].distance == 0


def test_bad_rows_become_failures(tmp_path: Path) -> None:
    table, some = drawn(), [1.0, None] * (D // 2)
    bad: dict[int, Any] = {3: None, 5: [1.0] * 7, 7: [float("nan")] * D, 9: [0.0] * D, 40: some}
    for row, vector in bad.items():
        table = with_vector(table, row, vector)
    write(tmp_path, table)
    done = index_archive(config_of(tmp_path))
    assert (done["described"], done["failed"], done["rows"]) == (N - 5, 5, N - 5)
    failures = Index(str(tmp_path / "index")).rows("failures", ["image_id", "stage", "kind", "message"]).to_pylist()
    assert {row["image_id"] for row in failures} == {table["id"][i].as_py() for i in bad}
    assert {row["stage"] for row in failures} == {"describe"} and all(row["message"] for row in failures)
    again = index_archive(config_of(tmp_path))
    assert (again["failed"], again["described"]) == (0, 0)
    write(tmp_path, with_vector(table, 3, [1.0] * D))
    assert index_archive(config_of(tmp_path))["rows"] == N - 4


def test_other_dimensions_or_a_bundle_for_images_are_refused(folder: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "vector": [[1.0, 2.0], [2.0, 1.0]]}), tmp_path / "v.parquet")
    with pytest.raises(BundleError, match=rf"2 numbers.*{D}"):
        index_archive(config_of(folder, archive=str(tmp_path / "v.parquet"), dry_run=True))
    for more in ({"models": "frozen:efficientnet_lite0"}, {"tile": 256}, {"columns": "a=b"}, {"vectors": None}):
        with pytest.raises(ConfigError):
            config_of(folder, **more)
    with pytest.raises(ConfigError, match="key_region"):
        evaluate(EvaluateConfig(index=str(folder / "index"), report=str(tmp_path / "r"), arms=("views",)))


def test_labels_give_it_classes(folder: Path, tmp_path: Path) -> None:
    old, models = str(folder / "index"), str(tmp_path / "models")
    table = drawn()
    labels = tmp_path / "labels.csv"
    marked = [f"{i},{i.split('/')[0]}" for i in table["id"].to_pylist()]
    labels.write_text("\n".join(["uri,label", *marked, ""]))
    finetune(FinetuneClassifierConfig(embeddings=old, labels=str(labels), models=models, calibration_fraction=0.3))
    new = config_of(folder, models=models, index=str(tmp_path / "labelled"), refit=old)
    done = index_archive(new)
    assert (done["rows"], done["described"]) == (N, 0)
    plain = config_of(folder, models=models, index=str(tmp_path / "plain"))
    assert index_archive(plain)["described"] == N
    one, other = (Index(c.index).features() for c in (new, plain))
    p, again = (schemas.to_matrix(table["class_probabilities"]) for table in (one, other))
    np.testing.assert_array_equal(p, again)
    assert [row["class"] for row in one.to_pylist()] == [row["image_id"].split("/")[0] for row in one.to_pylist()]
    assert index_archive(config_of(folder, index=plain.index))["version"] == 1  # by the index's own bundle
    hits = rsir.open(new.index).search(table["embedding"][4].as_py(), k=5, distance="weighted")
    assert (hits[0].image_id, hits[0].distance, hits.class_name) == ("lake/004", 0, "lake")
    report = EvaluateConfig(index=new.index, split=f"{models}/split.csv", report=str(tmp_path / "report"))
    assert evaluate(report)["map"] > 0.9


LINK = {"type": "object", "required": ["rel", "href"]}
OTHERS = {"patternProperties": {"^(?!emb:)": {}}, "additionalProperties": False}
# What the embedding extension v0.0.1 asks for, in our own words: its schema refers to others on the network.
ITEM = {
    "type": "object",
    "required": ["type", "stac_version", "id", "geometry", "properties", "links", "assets", "stac_extensions"],
    "properties": {
        "type": {"const": "Feature"},
        "stac_version": {"const": "1.0.0"},
        "properties": {
            "required": ["datetime", "start_datetime", "end_datetime"],
            "properties": {
                "emb:runtime_parameters": {"type": "object"},
                "emb:fit_for_use": {"type": "array", "items": {"type": "string"}},
                "emb:quantization": {"type": "object", "required": ["method", "original_dtype"]},
            },
            **OTHERS,
        },
        "assets": {"required": ["embeddings"], "additionalProperties": {"type": "object", "properties": {}, **OTHERS}},
        "links": {"type": "array", "items": LINK},
    },
}
COLLECTION = {
    "type": "object",
    "required": ["type", "id", "description", "license", "extent", "links", "emb:type", "emb:dimensions", "data_type"],
    "properties": {
        "type": {"const": "Collection"},
        "emb:type": {"enum": ["pixel", "chip"]},
        "emb:dimensions": {"type": "integer", "minimum": 1},
        "data_type": {"type": "string"},
        "emb:fit_for_use": {"type": "array", "items": {"type": "string"}},
        "links": {
            "type": "array",
            "items": LINK,
            "allOf": [
                {"contains": {"properties": {"rel": {"const": rel}}}} for rel in ("emb:model", "emb:source-data")
            ],
        },
    },
    **OTHERS,
}


def test_they_go_out_as_a_stac_item_that_comes_in_again(folder: Path, tmp_path: Path) -> None:
    found, out = rsir.open(str(folder / "index")), tmp_path / "out"
    found.to_stac(out, source="https://example.org/s2", licence="CC-BY-4.0")
    item, collection = (json.loads((out / f"{name}.json").read_text()) for name in ("item", "collection"))
    for document, schema in ((item, ITEM), (collection, COLLECTION)):
        jsonschema_rs.validate(schema, document)
        assert document["stac_extensions"] == ["https://stac-extensions.github.io/embeddings/v0.0.1/schema.json"]
    assert (collection["emb:type"], collection["emb:dimensions"], collection["license"]) == ("chip", D, "CC-BY-4.0")
    assert item["bbox"] == pytest.approx([0, 0, 6, 0.1]) and item["properties"]["start_datetime"][:10] == "2024-05-01"
    opened = pystac.Item.from_file(str(out / "item.json"))
    frame = geopandas.read_parquet(opened.assets["embeddings"].get_absolute_href())
    assert len(frame) == N and frame.crs.to_authority()[1] in ("4326", "CRS84")
    assert opened.collection_id == collection["id"]
    again = config_of(tmp_path, archive=str(out / "embeddings.parquet"))
    assert index_archive(again)["rows"] == N
    one, other = Index(found.uri), Index(again.index)
    np.testing.assert_array_equal(one.embeddings(one.features()), other.embeddings(other.features()))
    features = [schemas.to_matrix(index.features()["feature"]) for index in (one, other)]
    np.testing.assert_allclose(features[0], features[1], atol=1e-6)


def test_a_version_whose_embeddings_are_gone_is_not_exported_in_part(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(folder / "index", index)
    found = rsir.open(str(index))
    DeltaTable(f"{index}/embeddings").delete("image_id = 'field/000'")
    with pytest.raises(TableError, match=rf"1 of {N} .*; export a newer version"):
        found.to_stac(tmp_path / "out", source="https://example.org/s2", licence="CC-BY-4.0")
    assert not (tmp_path / "out").exists()

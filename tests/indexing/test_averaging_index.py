"""Features that are averaged with their neighbours: published, kept, changed and searched, against brute force."""

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rsir_core as rsir
from jobs.evaluate import evaluate
from jobs.evaluating.options import EvaluateConfig
from jobs.index import index_archive
from jobs.indexing import publishing
from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.arrays import Doubles
from rsir_core.index.index import Index
from rsir_core.index.no_match import get_no_match_threshold
from rsir_core.retrieval.partition_search import PartitionSearch
from rsir_core.retrieval.query import Ranking
from tests.support.serving import local_app, serving

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
D, K, N, R = 80, 6, 150, 3


def write(folder: Path, rows: range, changed: int | None = None) -> None:
    """Vectors around five centres; of one row another vector."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, D))[np.arange(200) % 5] + 2.5 * rng.normal(size=(200, D))
    if changed is not None:
        vectors[changed] = rng.normal(size=D)
    ids = [f"{'abcde'[i % 5]}/{i:03}" for i in rows]
    columns = {"id": ids, "vector": pa.array(vectors[rows].astype(np.float32).tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(columns), folder / "v.parquet")


def config_of(folder: Path, **more: Any) -> IndexConfig:
    options = {"archive": str(folder / "v.parquet"), "vectors": "auto", "index": str(folder / "index"), "components": K}
    return IndexConfig(**options | more)


def wanted_features(index: Index) -> tuple[Doubles, Doubles]:
    """Averaged features by brute force, and those before."""
    rows = index.features()
    embedding, pca = index.embeddings(rows), index.pca(rows["pca"][0].as_py())
    wide, feature = pca.moments.fit(64).transform(embedding).astype(np.float64), pca.transform(embedding)
    distance = np.linalg.norm(wide[:, None] - wide[None], axis=2)
    near = np.argsort(distance, axis=1, kind="stable")[:, : R + 1]
    before: Doubles = feature.astype(np.float64)
    return (before + 0.9 * before[near[:, 1:]].sum(axis=1)) / (1 + 0.9 * R), before


def check_rows(index: Index) -> None:
    averaged, feature = wanted_features(index)
    rows = index.features()
    np.testing.assert_allclose(schemas.to_matrix(rows["feature"]), averaged, atol=1e-6)
    np.testing.assert_allclose(schemas.to_matrix(rows[schemas.UNAVERAGED]), feature, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("averaged")
    write(folder, range(N))
    index_archive(config_of(folder, index=str(folder / "plain")))
    index_archive(config_of(folder, average_neighbours=R))
    return folder


def test_rows_are_means_with_their_neighbours(folder: Path) -> None:
    index, plain = Index(str(folder / "index")), Index(str(folder / "plain"))
    check_rows(index)
    one, other = plain.features(), index.features()
    np.testing.assert_array_equal(schemas.to_matrix(one["feature"]), schemas.to_matrix(other[schemas.UNAVERAGED]))
    assert one[schemas.UNAVERAGED].null_count == N and one["pca"][0] != other["pca"][0]
    thresholds = [get_no_match_threshold(i, 1, *next(iter(i.models()))) for i in (index, plain)]
    assert thresholds[0] is not None and thresholds[1] is not None
    assert thresholds[0]._replace(pca="") == thresholds[1]._replace(pca="")


def test_runs_keep_the_option_and_average_again_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, range(N))
    index = Index(str(tmp_path / "index"))
    assert index_archive(config_of(tmp_path))["version"] == 1
    assert index_archive(config_of(tmp_path, average_neighbours=R))["version"] == 2
    assert index_archive(config_of(tmp_path))["version"] == 2
    check_rows(index)
    pca = index.features()["pca"][0].as_py()
    write(tmp_path, range(7, N + 30), changed=20)
    monkeypatch.setattr(publishing, "ROWS_PER_PART", 50)
    monkeypatch.setattr(publishing, "FEATURES_PER_FILE", 60)
    done = index_archive(config_of(tmp_path))
    assert (done["new"], done["changed"], done["gone"], done["rows"]) == (30, 1, 7, N + 23)
    assert len(index.feature_files()) > 1 and index.features()["pca"][0].as_py() == pca
    check_rows(index)
    report = json.loads(max((tmp_path / "index/runs").glob("*.json")).read_text())
    assert report["drift"]["new_rows"] == 31
    assert index_archive(config_of(tmp_path))["described"] == 0
    assert index_archive(config_of(tmp_path, average_neighbours=0))["version"] == 4
    rows = index.features()
    assert rows[schemas.UNAVERAGED].null_count == len(rows)
    np.testing.assert_allclose(
        schemas.to_matrix(rows["feature"]),
        index.pca(rows["pca"][0].as_py()).transform(index.embeddings(rows)),
        atol=1e-6,
    )


def by_distance(index: Index, feature: Any, name: str = "feature") -> tuple[list[str], Doubles]:
    rows = index.features()
    distance = np.linalg.norm(schemas.to_matrix(rows[name]).astype(np.float64) - feature, axis=1)
    order = np.argsort(distance, kind="stable")
    return [rows["image_id"][int(i)].as_py() for i in order], distance[order]


def test_queries_are_averaged_as_rows_are_and_copies_find_themselves(folder: Path) -> None:
    index = Index(str(folder / "index"))
    found, rows = rsir.open(index.uri), index.features()
    embedding, pca = index.embeddings(rows), index.pca(rows["pca"][0].as_py())
    ids, matrix = rows["image_id"].to_pylist(), schemas.to_matrix(rows["feature"]).astype(np.float64)
    for i in (0, 70, 149):
        named, copy = found.search(ids[i], k=N), found.search(embedding[i] * 1.0001, k=N)
        wanted, distance = by_distance(index, matrix[i])
        for hits in (named, copy):
            assert [hit.image_id for hit in hits] == wanted and hits[0].distance == 0
            assert [hit.distance for hit in hits] == pytest.approx(distance, abs=1e-9)
        near = found.search(ids[i], k=N, near_duplicates=True)
        first = schemas.to_matrix(rows[schemas.UNAVERAGED])[i]
        apart = by_distance(index, first, schemas.UNAVERAGED)[1]
        assert named[0].image_id == ids[i] and named[1].distance > 0
        assert [hit.distance for hit in near] == pytest.approx(apart[apart <= 0.2], abs=1e-9)
    other = np.random.default_rng(7).normal(size=D).astype(np.float32)
    raw = pca.transform(other[None])[0].astype(np.float64)
    nearest = np.argsort(np.linalg.norm(matrix - raw, axis=1), kind="stable")[:R]
    query = (raw + 0.9 * matrix[nearest].sum(axis=0)) / (1 + 0.9 * R)
    hits = found.search(other, k=N)
    assert [hit.image_id for hit in hits] == by_distance(index, query)[0]
    assert hits.query.feature == pytest.approx(query, abs=1e-6)
    apart = by_distance(index, raw, schemas.UNAVERAGED)[1]
    assert hits.ranked.nearest == pytest.approx(apart[0], abs=1e-6)
    ranked = PartitionSearch(hits.served).rank(hits.query, Ranking(N, far_from=0), None)
    assert [near.distance for near in ranked.neighbours] == pytest.approx(apart[:5], abs=1e-6)
    again = found.search(hits.query, k=N)  # it is not averaged twice
    assert [hit.image_id for hit in again] == [hit.image_id for hit in hits]


@pytest.mark.parametrize("parts", [1, 3])
def test_searchers_of_shares_average_together(folder: Path, tmp_path: Path, parts: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(publishing, "ROWS_PER_PART", 50)
    monkeypatch.setattr(publishing, "FEATURES_PER_FILE", 60)
    config = config_of(folder, index=str(tmp_path / "index"), average_neighbours=R)
    index_archive(config)
    other = np.random.default_rng(7).normal(size=D).astype(np.float32)
    wanted = rsir.open(config.index).search(other, k=28)
    with serving(local_app(config.index, parts=parts)) as url, httpx.Client(base_url=url) as client:
        assert client.get("/healthz").status_code == 200
        for body in ({"vector": other.tolist()}, {"vector": other.tolist(), "positive": ["a/000"]}):
            answer = client.post("/search", json={**body, "k": 28}).json()
            if "positive" not in body:
                assert [row["image_id"] for row in answer["results"]] == [hit.image_id for hit in wanted]
            feature, p = answer["query"]["feature"], list[float]()
            same = client.post("/search", json={"feature": feature, "class_probabilities": p, "k": 28}).json()
            assert [row["image_id"] for row in same["results"]] == [row["image_id"] for row in answer["results"]]
        named_query = client.post("/search", json={"image_id": "b/001", "k": 28, "near_duplicates": True}).json()
        ready = {name: named_query["query"][name] for name in ("feature", "unaveraged_feature")}
        again = client.post(
            "/search", json={**ready, "class_probabilities": [], "k": 28, "near_duplicates": True}
        ).json()
        assert again["results"][0]["image_id"] == "b/001"  # which by its averaged feature is a copy of no row
        assert [row["image_id"] for row in again["results"]] == [row["image_id"] for row in named_query["results"]]
        wrong = client.post(
            "/search", json={"feature": feature, "class_probabilities": [], "unaveraged_feature": [0.0]}
        )
        assert wrong.status_code == 422 and "unaveraged_feature: 1 numbers" in wrong.json()["detail"]
        named = client.post("/search", json={"image_id": "a/000", "k": 2}).json()["results"]
        assert (named[0]["image_id"], named[0]["distance"]) == ("a/000", 0)


def test_evaluation_ranks_the_averaged_features(folder: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    rows = Index(str(folder / "index")).features()
    lines = [
        f"{uri},{name[0]},test" for uri, name in zip(rows["uri"].to_pylist(), rows["image_id"].to_pylist(), strict=True)
    ]
    labels.write_text("\n".join(["uri,label,split", *lines, ""]))
    found = {}
    for name in ("plain", "index"):
        report = tmp_path / name
        evaluate(EvaluateConfig(index=str(folder / name), report=str(report), split=str(labels)))
        metrics = json.loads((report / "metrics.json").read_text())
        found[name] = {(arm["pca"], arm["weighted"]): arm["map"] for arm in metrics["arms"]}
        averaged = f"PCA {K}, averaged" in (report / "report.html").read_text()
        assert averaged == (name == "index")  # nothing else is, so that is not what the others are to be compared with
        assert metrics["protocol"]["averaged_neighbours"] == (R if name == "index" else 0)
    assert found["index"][True, True] > found["plain"][True, True]
    assert {way: score for way, score in found["index"].items() if not way[0]} == {
        way: score for way, score in found["plain"].items() if not way[0]
    }

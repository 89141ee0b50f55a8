"""The query job, in its own process and on real Ray: what the endpoint answers, for a whole folder, once each."""

import json
import shutil
from pathlib import Path

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import rsir_core as rsir
from jobs.command import parse
from jobs.demo.scenes import draw_scene
from jobs.query import answer_queries
from jobs.querying.answering import answer_files
from jobs.querying.options import QueryConfig
from jobs.querying.query import FEW, is_done_here
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.errors import ArchiveError, ConfigError, RsirError, TableError
from rsir_core.index.diff import listing_table
from rsir_core.retrieval.served_version import open_version
from tests.support import forks
from tests.support.options import replaced
from tests.support.serving import Rows, copy_of, upload

K = 5
ray_test = pytest.mark.ray


@pytest.fixture
def config(index: str, stored: Rows, tmp_path: Path) -> QueryConfig:
    """Indexed images under other names, new ones, one that is broken and one that is no image."""
    folder = tmp_path / "queries"
    (folder / "new").mkdir(parents=True)
    for i, row in enumerate(stored[:3]):
        shutil.copy(row["uri"], folder / f"copy{i}.jpg")
    for i, name in enumerate(("beach", "river", "forest")):
        pixels = draw_scene(name, np.random.default_rng(1000 + i)).pixels
        Image.fromarray(pixels[: 256 - 40 * i]).save(folder / "new" / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a JPEG")
    (folder / "notes.txt").write_text("no image")
    return QueryConfig(
        queries=str(folder), index=index, out=str(tmp_path / "out"), k=K, batch_size=2, actors=1, max_pixels=512 * 512
    )


def tables(out: str) -> tuple[pa.Table, pa.Table]:
    results, failures = (pq.read_table(f"{out}/{name}") for name in ("results", "failures"))
    order = [("query_image_id", "ascending"), ("rank", "ascending")]
    return results.sort_by(order), failures.sort_by(schemas.IMAGE_ID)


@ray_test
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("actors", [1, 2])
def test_a_folder_is_answered_as_the_endpoint_answers_each_image(
    config: QueryConfig, client: httpx.Client, stored: Rows, actors: int
) -> None:
    config = replaced(config, actors=actors)
    assert is_done_here(config, 7) == (actors == 1)
    summary = answer_queries(config)
    wanted = {"queries": 7, "answered": 6, "failed": 1, "rows": 6 * K}
    assert {name: summary[name] for name in wanted} == wanted
    assert summary["seconds"] > 0 and summary["queries_per_second"] > 0
    results, failures = tables(config.out)
    assert results.schema == schemas.RESULTS and failures.schema == schemas.QUERY_FAILURES
    found = results.to_pylist()
    assert sorted({row["query_image_id"] for row in found}) == [
        "copy0.jpg", "copy1.jpg", "copy2.jpg", "new/beach.png", "new/forest.png", "new/river.png",
    ]  # fmt: skip
    for first in range(0, len(found), K):
        mine = found[first : first + K]
        answer = upload(client, Path(mine[0]["query_uri"]).read_bytes(), k=K).json()
        assert [row["rank"] for row in mine] == [1, 2, 3, 4, 5]
        for row, result in zip(mine, answer["results"], strict=True):
            assert row["query_class"] == answer["query"]["class"]
            assert (row["ranked_by"], row["least_weight"]) == (answer["ranked_by"], answer["least_weight"])
            assert row["query_region"] == answer["query"]["region"]
            assert row["query_probability"] == pytest.approx(answer["query"]["probability"], abs=1e-3)
            assert [row[n] for n in ("image_id", "uri", "class")] == [result[n] for n in ("image_id", "uri", "class")]
            for name in ("weighted_distance", "distance", "query_weight", "candidate_weight", "probability"):
                assert row[name] == pytest.approx(result[name], rel=0.01, abs=1e-4)
            assert row["weighted_distance"] == row["query_weight"] * row["candidate_weight"] * row["distance"]
    for i, row in enumerate(stored[:3]):
        (best,) = [f for f in found if (f["query_image_id"], f["rank"]) == (f"copy{i}.jpg", 1)]
        assert (best["image_id"], best["distance"]) == (row["image_id"], 0)
    (failure,) = failures.to_pylist()
    assert (failure["image_id"], failure["stage"], failure["kind"]) == ("broken.jpg", "decode", "corrupt")

    count = duckdb.connect().execute(f"select count(*) from '{config.out}/results/*.parquet'").fetchall()
    assert count == [(6 * K,)]
    with pytest.raises(RsirError, match=rf"--out {config.out}"):
        answer_queries(config)
    assert len(tables(config.out)[0]) == 6 * K
    shutil.rmtree(config.out)
    assert answer_queries(config)["rows"] == 6 * K
    assert [f.name for f in Path(config.out).parent.iterdir() if "unfinished" in f.name] == []


@ray_test
@pytest.mark.usefixtures("cluster")
def test_queries_without_a_result_are_answered_too(config: QueryConfig) -> None:
    near = answer_queries(replaced(config, near_duplicates=True))
    results, _ = tables(config.out)
    first = results.filter(pa.compute.equal(results["rank"], 1))
    assert first["query_image_id"].to_pylist()[:3] == ["copy0.jpg", "copy1.jpg", "copy2.jpg"]
    assert max(results["distance"].to_pylist()) <= 0.2
    assert first["same_picture"].to_pylist()[:3] == ["identical"] * 3
    assert len(results) == near["rows"] < 6 * K and (near["answered"], near["failed"]) == (6, 1)

    one = replaced(config, out=config.out + "2", classes="river", where='[["width", ">", 0]]', k=50)
    answered = answer_queries(one)
    results, _ = tables(one.out)
    assert set(results["class"].to_pylist()) == {"river"}
    assert answered["rows"] == len(results) < 6 * 50
    placed = answer_queries(replaced(config, out=config.out + "3", bbox="0,0,1,1", start="2020-01-01"))
    assert (placed["answered"], placed["rows"]) == (6, 0)  # the index has neither places nor times


@ray_test
@pytest.mark.usefixtures("cluster")
def test_the_gpu_arrangement_writes_the_same_rows(config: QueryConfig, tmp_path: Path) -> None:
    found, listing, edition = [], listing_table(list_images(config.queries)), open_version(config.index)
    for name, gpus in (("cpu", 0.0), ("gpu", 1.0)):
        out = str(tmp_path / name)
        written = list(answer_files(replaced(config, num_gpus=gpus), edition, listing, out, gpu="cpu").iter_rows())
        assert [sum(w[n] for w in written) for n in ("answered", "failed", "rows")] == [6, 1, 6 * K]
        found.append(tables(out))
    names = ["query_image_id", "rank", "image_id", "class"]
    assert found[0][0].select(names) == found[1][0].select(names)
    assert found[0][1] == found[1][1]


@ray_test
@pytest.mark.usefixtures("cluster")
def test_a_run_that_fails_leaves_nothing(config: QueryConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RsirError("the disk is full")

    monkeypatch.setattr("jobs.querying.query.write_part", refuse)
    with pytest.raises(RsirError, match="full"):
        answer_queries(config)
    assert [f.name for f in Path(config.out).parent.iterdir() if f.name.startswith("out")] == []


@ray_test
@pytest.mark.usefixtures("cluster")
def test_answers_that_cannot_be_moved_are_kept_and_named(config: QueryConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("slow down")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.mv", refuse)
    with pytest.raises(RsirError, match=r"\.unfinished ") as said:
        answer_queries(config)
    kept = next(word for word in str(said.value).split() if word.endswith(".unfinished"))
    assert len(tables(kept)[0]) == 6 * K


@ray_test
@pytest.mark.usefixtures("forks")
def test_as_a_command(config: QueryConfig) -> None:
    options = {"queries": config.queries, "index": config.index, "out": config.out, "k": 2, "actors": 1}
    command = ["jobs.query", "--json", *(f"--{k}={v}" for k, v in options.items())]
    done = forks.run(command)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary) == {"queries", "answered", "failed", "rows", "seconds", "queries_per_second", "version"}
    assert "answered, 1 failed" in done.stderr and "s left" in done.stderr
    again = forks.run(command)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)


def test_many_queries_gpus_and_clusters_take_ray(config: QueryConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = replaced(config, actors=0)
    assert is_done_here(alone, FEW) and not is_done_here(alone, FEW + 1)
    for other in ({"num_gpus": 1.0}, {"actors": 2}, {"address": "auto"}):
        assert not is_done_here(replaced(alone, **other), 1)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")  # as in a submitted job
    assert not is_done_here(alone, 1)


def test_bad_usage(config: QueryConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"--k 0: .*equal to 1"):
        answer_queries(replaced(config, k=0))
    with pytest.raises(ConfigError, match=r"--bbox 1,2.*west"):
        answer_queries(replaced(config, bbox="1,2"))
    with pytest.raises(ConfigError, match="--start yesterday"):
        answer_queries(replaced(config, start="yesterday"))
    with pytest.raises(ConfigError, match=r"--classes.*moon.*airport"):
        answer_queries(replaced(config, classes="beach, moon"))
    with pytest.raises(ConfigError, match="--where: no column 'cloud_cover'"):
        answer_queries(replaced(config, where='[["cloud_cover", "<", 20]]'))
    with pytest.raises(ArchiveError, match="holds no image"):
        (tmp_path / "empty").mkdir()
        answer_queries(replaced(config, queries=str(tmp_path / "empty")))
    with pytest.raises(TableError, match=r"no index at .*jobs\.index"):
        answer_queries(replaced(config, index=str(tmp_path / "none")))
    with pytest.raises(SystemExit):
        parse(QueryConfig, "query", ["--help"])
    shown = capsys.readouterr().out
    for name in ("queries", "index", "out", "k", "classes", "near-duplicates", "batch-size", "actors", "num-gpus"):
        assert f"--{name}" in shown


@pytest.mark.slow
def test_what_was_learned_from_a_collection_scores_and_filters_results(
    config: QueryConfig, index: str, tmp_path: Path
) -> None:
    copy = copy_of(index, tmp_path / "index")
    names = copy.features(columns=[schemas.IMAGE_ID])[schemas.IMAGE_ID].to_pylist()
    water = rsir.open(copy.uri).collection("water")
    water.label({name: "good" if name.startswith(("beach", "river")) else "bad" for name in names})
    config = replaced(config, index=copy.uri, collection="water")
    with pytest.raises(ConfigError, match="learn"):
        answer_queries(config)
    water.learn()
    scores = dict(zip(*(water.scored(len(names))[name].to_pylist() for name in ("image_id", "score")), strict=True))
    answer_queries(config)
    results, _ = tables(config.out)
    found = results.select(["image_id", "score"]).drop_null().to_pylist()
    assert len(found) == 6 * K and all(row["score"] == pytest.approx(scores[row["image_id"]]) for row in found)
    answer_queries(replaced(config, min_score=0.5, out=str(tmp_path / "likely")))
    likely, _ = tables(str(tmp_path / "likely"))
    assert set(likely["image_id"].drop_null().to_pylist()) <= {n for n, s in scores.items() if s >= 0.5}
    with pytest.raises(ConfigError, match="--collection"):
        answer_queries(replaced(config, collection=None, min_score=0.5, out=str(tmp_path / "none")))

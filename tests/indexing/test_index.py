"""The index job on real Ray: nothing lost, nothing doubled, whatever happens in between."""

import json
import os
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.demo.scenes import draw_scene
from jobs.index import index_archive
from jobs.indexing import publishing
from jobs.indexing.compacting import compact_features
from jobs.indexing.describing import describe_files
from jobs.indexing.options import IndexConfig
from jobs.indexing.published import is_published
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.errors import ArchiveError, BundleError, LeaseError, TableError
from rsir_core.imagery.decode import read_picture
from rsir_core.index.diff import listing_table, make_plan
from rsir_core.index.index import Index
from rsir_core.index.lease import Lease
from rsir_core.index.no_match import has_no_match_threshold
from rsir_core.index.writer import IndexWriter, write_rows
from rsir_core.models.describe import Describer
from rsir_core.models.pca import Moments
from rsir_core.retrieval.partition import in_runs
from tests.support import forks
from tests.support.models import write_bundle
from tests.support.options import replaced
from tests.support.poison import read_poisoned
from tests.support.rasters import gdal_file
from tests.support.writing import writer_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
NAMES = ("airport", "beach", "forest")
K = 3


def draw(folder: Path, first: int, count: int) -> None:
    """Drawn scenes in class folders, of two sizes."""
    for i in range(first, first + count):
        name = NAMES[i % len(NAMES)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        pixels = draw_scene(name, np.random.default_rng(i)).pixels
        Image.fromarray(pixels[: 256 - 56 * (i % 2)]).save(folder / name / f"{i:03}.png")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder)
    return folder


def config_in(folder: Path, models: Path) -> IndexConfig:
    """Of an archive of 18 images, one broken one and a file that is none."""
    draw(folder / "archive", 0, 18)
    (folder / "archive" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a JPEG")
    (folder / "archive" / "notes.txt").write_text("no image")
    return IndexConfig(
        archive=str(folder / "archive"), models=str(models), index=str(folder / "index"), components=K,
        batch_size=4, commit_every=8, max_failure_rate=0.1, actors=1,
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, models: Path) -> IndexConfig:
    return config_in(tmp_path, models)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, models: Path) -> IndexConfig:
    """What a first run leaves; the tests that begin there each change a copy."""
    config = config_in(tmp_path_factory.mktemp("first"), models)
    index_archive(config)
    return config


@pytest.fixture
def indexed(tmp_path: Path, first_run: IndexConfig) -> IndexConfig:
    for folder in (first_run.archive, first_run.index):
        shutil.copytree(folder, tmp_path / Path(folder).name)  # times of modification included
    return replaced(first_run, archive=str(tmp_path / "archive"), index=str(tmp_path / "index"))


def table_of(index: Index, name: str) -> pa.Table:
    from deltalake import DeltaTable  # noqa: PLC0415 -- as another tool would read it

    return DeltaTable(f"{index.uri}/{name}").to_pyarrow_table().sort_by("image_id")


def test_first_second_and_changed_run(config: IndexConfig, tmp_path: Path) -> None:  # noqa: PLR0915 -- one archive's history
    archive, index = tmp_path / "archive", Index(config.index)
    first = index_archive(config)
    wanted = {"listed": 19, "new": 19, "changed": 0, "gone": 0, "described": 18, "failed": 1, "rows": 18}
    assert {name: first[name] for name in wanted} == wanted
    features, embeddings, failures = (table_of(index, n) for n in ("features", "embeddings", "failures"))
    ids = sorted(str(f.relative_to(archive)) for f in archive.rglob("*.png"))
    assert features["image_id"].to_pylist() == embeddings["image_id"].to_pylist() == ids
    assert failures.select(["image_id", "stage", "kind"]).to_pylist() == [
        {"image_id": "broken.jpg", "stage": "decode", "kind": "corrupt"}
    ]
    assert str(archive / "broken.jpg") in failures["message"][0].as_py()

    # The rows are what describe() says of the images, one by one, and the PCA is the one of these rows.
    describer = Describer(index.bundle())
    alone = [describer.describe([read_picture(str(archive / i)).pixels]) for i in ids]
    embedding = np.concatenate([a.embedding for a in alone]).astype(np.float32)
    np.testing.assert_allclose(schemas.to_matrix(embeddings["embedding"]), embedding, rtol=0.01, atol=0.005)
    assert features["region"].to_pylist() == [a.regions[0]._asdict() for a in alone]
    stored = schemas.to_matrix(embeddings["embedding"])
    expected = Moments.of(stored).fit(K)
    np.testing.assert_allclose(schemas.to_matrix(features["feature"]), expected.transform(stored), atol=1e-6)

    assert has_no_match_threshold(index, first["version"])
    plan = make_plan(index, listing_table(list_images(config.archive)), retry_failed=False)
    assert is_published(index, plan, config)  # so that the next run starts no Ray
    assert not is_published(index, plan, replaced(config, components=K - 1))

    second = index_archive(config)
    assert {n: second[n] for n in ("new", "changed", "gone", "described", "failed")} == dict.fromkeys(
        ("new", "changed", "gone", "described", "failed"), 0
    )
    assert second["version"] == first["version"]

    # One image gone, one changed, two new, and the broken one mended.
    changed, gone = archive / ids[0], archive / ids[1]
    Image.fromarray(draw_scene("river", np.random.default_rng(99)).pixels).save(changed)
    gone.unlink()
    draw(archive, 18, 2)
    Image.fromarray(draw_scene("river", np.random.default_rng(98)).pixels).save(archive / "broken.jpg")
    files = sorted(Path(config.index).rglob("*"))
    dry = index_archive(replaced(config, dry_run=True))
    assert sorted(Path(config.index).rglob("*")) == files
    counts = {folder: images["count"] for folder, images in dry["to_describe"].items()}
    assert counts == {"airport/": 2, "beach/": 1, "./": 1} and list(dry["gone_from"]) == ["airport/"]
    third = index_archive(config)
    assert {name: third[name] for name in ("listed", "new", "changed", "gone")} == {
        name: dry[name] for name in ("listed", "new", "changed", "gone")
    }
    reports = [json.loads(file.read_text()) for file in sorted((Path(config.index) / "runs").glob("*.json"))]
    assert [report["outcome"] for report in reports] == ["done"] * 3
    assert reports[-1]["drift"]["new_rows"] == 4 and reports[-1]["drift"]["error_ratio"] > 0
    assert [report["version_after"] for report in reports] == [run["version"] for run in (first, second, third)]
    assert 0 < reports[-1]["share_of_workers_time"]["describing"] <= 1
    with Lease.take(config.index), pytest.raises(LeaseError, match="index"):
        index_archive(config)
    wanted = {"listed": 20, "new": 2, "changed": 2, "gone": 1, "described": 4, "failed": 0, "rows": 20}
    assert {name: third[name] for name in wanted} == wanted
    after = index.features()
    assert after["image_id"].to_pylist() == sorted({*ids, "broken.jpg", "airport/018.png", "beach/019.png"} - {ids[1]})
    assert len(table_of(index, "failures")) == 0
    unchanged = list(ids[2:])
    before = {r["image_id"]: r for r in features.to_pylist()}
    now = {r["image_id"]: r for r in after.to_pylist()}
    assert [now[i] for i in unchanged] == [before[i] for i in unchanged]
    assert now[ids[0]]["feature"] != before[ids[0]]["feature"]
    assert index.features(first["version"])["image_id"].to_pylist() == ids
    kept = index_archive(replaced(config, vacuum=True))
    assert kept["version"] == third["version"] and index.features(first["version"])["image_id"].to_pylist() == ids


def test_another_number_of_components_and_a_refit_describe_nothing(indexed: IndexConfig, tmp_path: Path) -> None:
    config, index = indexed, Index(indexed.index)
    wider = index_archive(replaced(config, components=K + 2))
    assert wider["described"] == 0
    assert schemas.to_matrix(index.features()["feature"]).shape == (18, K + 2)
    draw(tmp_path / "archive", 18, 6)
    kept = index_archive(replaced(config, components=K + 2))
    assert kept["described"] == 6 and len(set(index.features()["pca"].to_pylist())) == 1
    refitted = index_archive(replaced(config, components=K + 2, refit_pca=True))
    assert refitted["described"] == 0 and refitted["version"] > kept["version"]
    pca = index.pca(index.features()["pca"][0].as_py())
    assert pca.moments.count == 24


def test_too_many_failures_are_recorded_and_named_and_keep_nothing_else_from_being_done(
    indexed: IndexConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Night after night: good images are published, gone ones go, files are merged; only the exit status complains."""
    config = replaced(indexed, compact=True, vacuum=True, keep_days=0.0)
    draw(tmp_path / "archive", 18, 5)
    (gone := tmp_path / "archive" / "airport" / "000.png").unlink()
    bad = [f"bad{i:02}.jpg" for i in range(12)]
    for name in bad:
        (tmp_path / "archive" / name).write_bytes(b"bad")
    night = index_archive(config)
    assert (night["described"], night["failed"], night["gone"], night["rows"]) == (5, 12, 1, 22)
    assert re.search(r"--max-failure-rate 0\.1 .*\b12 of 17\b", night["problem"])
    index = Index(config.index)
    assert gone.name not in [Path(i).name for i in index.features()["image_id"].to_pylist()]
    assert table_of(index, "failures")["image_id"].to_pylist() == [*bad, "broken.jpg"]
    assert len(index.table_files("features")) == 1  # merged
    report = json.loads(max((Path(config.index) / "runs").glob("*.json")).read_text())
    assert report["outcome"] == night["problem"]
    assert sorted(Path(file["uri"]).name for file in report["failed_files"]) == bad
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("failed (corrupt)")]
    assert len(told) == 10 and "and 2 more" in caplog.text
    again = index_archive(config)
    assert (again["failed"], again["problem"], again["version"]) == (0, None, night["version"])


def test_one_failure_is_no_rate_unless_none_is_allowed(indexed: IndexConfig) -> None:
    retried = replaced(indexed, retry_failed=True)
    assert index_archive(retried)["problem"] is None
    none_allowed = index_archive(replaced(retried, max_failure_rate=0.0))
    assert re.search(r"\b1 of 1\b.*1 corrupt", none_allowed["problem"])
    assert len(table_of(Index(indexed.index), "failures")) == 1


def test_what_the_store_refuses_in_mass_ends_the_run_before_it_publishes(
    indexed: IndexConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "archive", 18, 4)
    for name in ("refused1.png", "refused2.png"):
        shutil.copy(tmp_path / "archive" / "airport" / "018.png", tmp_path / "archive" / name)
    monkeypatch.setattr("jobs.indexing.updating.describe_files", partial(describe_files, function=read_poisoned))
    before = Index(indexed.index).version()
    with pytest.raises(ArchiveError, match=r"\b2 of 6\b.*2 denied"):
        index_archive(indexed)
    index = Index(indexed.index)
    assert index.version() == before and len(table_of(index, "failures")) == 1  # nothing was the files' fault
    monkeypatch.undo()
    after = index_archive(indexed)
    assert (after["rows"], after["problem"]) == (24, None)


def test_a_wrong_archive_does_not_empty_the_index(
    config: IndexConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw(tmp_path / "archive", 18, 6)
    first = index_archive(config)
    draw(tmp_path / "wrong", 100, 1)
    wrong = replaced(config, archive=str(tmp_path / "wrong"))
    message = (
        rf"24 of 24 .*--archive {tmp_path}/wrong .*8 of airport/, 8 of beach/, 8 of forest/"
        rf".*--max-gone-rate 0\.2 .*{tmp_path}/archive.*--max-gone-rate 1$"
    )
    with pytest.raises(ArchiveError, match=message):
        index_archive(wrong)
    dry = index_archive(replaced(wrong, dry_run=True))
    assert (dry["gone"], dry["dry_run"]) == (24, True) and "24 of 24" in caplog.text
    assert dry["would_end"].startswith("24 of 24 ")
    assert Index(config.index).version() == first["version"]
    for i in range(0, 15, 3):  # 5 of 24 are more than a fifth
        (tmp_path / "archive" / "airport" / f"{i:03}.png").unlink()
    with pytest.raises(ArchiveError, match=r"5 of 24 .*5 of airport/.*\b19\b.*--max-gone-rate 0\.21$"):
        index_archive(config)
    draw(tmp_path / "archive", 0, 1)
    assert index_archive(config)["gone"] == 4
    assert index_archive(replaced(wrong, max_gone_rate=1.0))["rows"] == 1


def test_a_scene_that_is_tiled_otherwise_or_unreadable_is_not_gone(config: IndexConfig, tmp_path: Path) -> None:
    scene = tmp_path / "scenes" / "s.tif"
    scene.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 320, 320), np.uint8)
    scene.write_bytes(gdal_file(pixels))
    tiled = replaced(config, archive=str(scene.parent), tile=64, overlap=0.0)
    assert index_archive(tiled)["rows"] == 25
    other = index_archive(replaced(tiled, tile=80))
    assert (other["gone"], other["rows"], other["problem"]) == (25, 16, None)
    assert index_archive(tiled)["rows"] == 25
    scene.write_bytes(b"no header")
    dry = index_archive(replaced(tiled, dry_run=True))
    assert (dry["gone"], dry["would_end"]) == (25, None)
    scene.rename(scene.with_name("t.tif"))
    with pytest.raises(ArchiveError, match="25 of 25 "):
        index_archive(tiled)


def test_of_few_published_images_any_may_go(indexed: IndexConfig, tmp_path: Path) -> None:
    for i in range(0, 18, 3):
        (tmp_path / "archive" / "airport" / f"{i:03}.png").unlink()
    assert index_archive(indexed)["gone"] == 6  # of 18


def test_after_a_restore_the_next_run_brings_the_archive_s_state_again(indexed: IndexConfig, tmp_path: Path) -> None:
    index, first = Index(indexed.index), Index(indexed.index).features()
    (tmp_path / "archive" / "airport" / "000.png").unlink()
    draw(tmp_path / "archive", 18, 3)
    changed = index_archive(replaced(indexed, compact=True))
    assert changed["rows"] == 20 and len(index.keys("embeddings")) == 20  # the embedding of what is gone went
    restored = index_archive(IndexConfig(index=index.uri, restore=1))
    assert (restored["rows"], restored["version"]) == (18, index.version())
    assert index.features().equals(first)
    draw(tmp_path / "archive", 0, 1)  # and what is gone comes back: it is described again
    shutil.copystat(Path(first["uri"][0].as_py()).parent / "003.png", tmp_path / "archive" / "airport" / "000.png")
    again = index_archive(indexed)
    assert (again["described"], again["rows"], again["failed"]) == (1, 21, 0)
    assert len(set(index.features()["pca"].to_pylist())) == 1


def test_a_killed_run_is_continued(config: IndexConfig, tmp_path: Path) -> None:
    index = Index(config.index)
    options = {"archive": config.archive, "models": config.models, "index": config.index, "components": K,
               "batch-size": 1, "commit-every": 1, "actors": 1, "max-failure-rate": 1.0}  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as out:
        job = forks.start(["jobs.index", *(f"--{k}={v}" for k, v in options.items())], out, out)
        first_commit = Path(index.uri) / "embeddings" / "_delta_log" / f"{1:020}.json"
        while not first_commit.exists():
            assert job.poll() is None, log.read_text()
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGKILL)  # the driver and its raylet at once
        job.wait()
    described = len(index.keys("embeddings"))
    assert described > 0
    with pytest.raises(TableError):
        index.version()
    summary = index_archive(config)
    assert summary["described"] <= 18 - described  # less, where files were written and not yet committed
    ids = table_of(index, "embeddings")["image_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 18
    assert index.features()["image_id"].to_pylist() == ids


def test_a_foreign_bundle_is_refused_with_both_named(indexed: IndexConfig, tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", seed=1)
    own = Index(indexed.index).bundle().fingerprint
    with pytest.raises(BundleError, match=rf"{other}.*{own}"):
        index_archive(replaced(indexed, models=str(tmp_path / "other")))
    for dry_run in (False, True):
        with pytest.raises(BundleError, match="--views 1"):
            index_archive(replaced(indexed, views=4, dry_run=dry_run))


def put_off(folder: Path) -> list[Path]:
    """Move every second image of the archive to `later`; returns where they were."""
    (folder / "later").mkdir()
    moved = sorted((folder / "archive").glob("*/*.png"))[::2]
    for file in moved:
        file.rename(folder / "later" / file.name)
    return moved


def test_an_index_that_began_with_few_images_grows_to_the_components_asked_for(
    config: IndexConfig, tmp_path: Path
) -> None:
    moved = put_off(tmp_path)
    assert index_archive(replaced(config, components=2))["rows"] == 18 - len(moved)
    for file in moved:
        (tmp_path / "later" / file.name).rename(file)
    assert index_archive(replaced(config, components=12))["rows"] == 18
    index = Index(config.index)
    assert schemas.to_matrix(index.features()["feature"]).shape == (18, 12)
    assert index.pca(index.features()["pca"][0].as_py()).moments.count == 18


def test_without_a_number_components_grow_with_the_archive_and_one_that_was_given_stays(
    config: IndexConfig, tmp_path: Path
) -> None:
    moved = put_off(tmp_path)
    default, index = replaced(config, components=None), Index(config.index)

    def components(run: IndexConfig) -> int:
        assert index_archive(run)["failed"] <= 1
        return len(index.features()["feature"][0])

    assert components(default) == 8  # of 9 images
    for file in moved:
        (tmp_path / "later" / file.name).rename(file)
    assert components(default) == 17
    version = index.version()
    assert components(default) == 17 and index.version() == version
    assert components(replaced(config, components=4)) == 4
    assert components(default) == components(replaced(default, refit_pca=True)) == 4


def test_an_index_without_its_bundle_takes_none_but_that(indexed: IndexConfig, tmp_path: Path) -> None:
    own = Index(indexed.index).bundle().fingerprint
    shutil.rmtree(tmp_path / "index" / "bundle")
    write_bundle(tmp_path / "other", seed=1)
    for dry_run in (True, False):
        with pytest.raises(BundleError, match=own):
            index_archive(replaced(indexed, models=str(tmp_path / "other"), dry_run=dry_run))
    assert index_archive(indexed)["described"] == 0
    assert Index(indexed.index).bundle().fingerprint == own


def test_too_few_images_for_the_components(config: IndexConfig) -> None:
    with pytest.raises(TableError, match="--components 1 to 17"):
        index_archive(replaced(config, components=18))
    assert index_archive(config)["described"] == 0  # what was described is kept


def test_both_arrangements_write_the_same_rows_and_survive_poison(config: IndexConfig, tmp_path: Path) -> None:
    for name in ("hangs", "segfaults", "needs_100_gb"):
        shutil.copy(tmp_path / "archive" / "beach" / "001.png", tmp_path / "archive" / f"{name}.png")
    listing = listing_table(list_images(config.archive))
    tables = []
    for folder, gpus in (("cpu", 0.0), ("gpu", 1.0)):
        index = Index(str(tmp_path / folder))
        writer_of(index).adopt_bundle(config.models)
        placed = replaced(config, index=index.uri, num_gpus=gpus, image_seconds=5.0)
        written = list(describe_files(placed, listing, gpu="cpu", function=read_poisoned).iter_rows())
        described, failures = (
            pa.concat_tables(
                [pa.parquet.read_table(f"{index.uri}/{name}/{w['name']}") for w in written if w["table"] == name]
            )
            for name in ("embeddings", "failures")
        )
        assert len(described) == 18 and sum(w["row_count"] for w in written) == 18 + len(failures)
        assert {Path(row["uri"]).stem: row["kind"] for row in failures.to_pylist()} == {
            "broken": "corrupt", "hangs": "timeout", "segfaults": "crash", "needs_100_gb": "memory",
        }  # fmt: skip
        tables.append(described)
    one, other = (t.sort_by("image_id") for t in tables)
    assert one.drop_columns(["embedding", "class_probabilities", "object_score", "object_box"]) == other.drop_columns(
        ["embedding", "class_probabilities", "object_score", "object_box"]
    )
    np.testing.assert_allclose(schemas.to_matrix(one["embedding"]), schemas.to_matrix(other["embedding"]), atol=0.005)


def merge_files(index: Index) -> None:
    with Lease.take(index.uri) as lease:
        compact_features(IndexWriter(index, lease))


def test_small_files_are_merged_and_nothing_else_changes(indexed: IndexConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config, index = indexed, Index(indexed.index)
    for first in (18, 24, 30):  # as three small runs would leave them
        added = index.features().slice(0, 6)
        ids = pa.array([f"more/{first + i:03}.png" for i in range(6)])
        added = added.set_column(
            added.column_names.index(schemas.IMAGE_ID), schemas.FEATURES.field(schemas.IMAGE_ID), ids
        )
        last = writer_of(index).commit("features", [write_rows(index.uri, "features", *in_runs(added))], "append")
    before = index.features()
    assert sorted(file.row_count for file in index.feature_files()) == [6, 6, 6, 18]
    monkeypatch.setattr(publishing, "FEATURES_PER_FILE", 16)
    merge_files(index)
    files = index.feature_files()
    assert len(files) == 3 and 18 in [file.row_count for file in files]  # the large one, and two of the others' 18 rows
    assert index.features() == before == index.features(last)
    tables = [index.read_features(file) for file in files]
    assert all(clusters is not None and clusters.count.sum() == len(table) for table, clusters in tables)
    spans = sorted([min(c), max(c)] for c in (table["class"].to_pylist() for table, _ in tables if len(table) != 18))
    assert spans[0][1] <= spans[1][0]
    monkeypatch.undo()
    merge_files(index)
    assert [file.row_count for file in index.feature_files()] == [36]
    (Path(config.archive) / "airport" / "000.png").unlink()
    allowed = replaced(config, compact=True, max_gone_rate=1.0)  # 18 of 36 are `more`, which no archive has
    assert index_archive(allowed)["rows"] == 17
    assert has_no_match_threshold(index, index.version())  # of what compaction has made
    version = index.version()
    merge_files(index)
    assert index.version() == version  # there was nothing to do


def test_an_archive_can_be_moved(indexed: IndexConfig, tmp_path: Path) -> None:
    index, archive = Index(indexed.index), tmp_path / "archive"
    before = index.features()
    draw(archive, 30, 2)  # described where the archive lies now, published only later
    index_archive(replaced(indexed, archive=str(archive)))
    there = shutil.move(archive, tmp_path / "mounted elsewhere")
    moved = replaced(indexed, archive=str(there))
    summary = index_archive(moved)
    assert summary["described"] == summary["new"] == summary["changed"] == summary["gone"] == 0
    after = index.features()
    assert after["uri"].to_pylist() == [f"{there}/{name}" for name in after["image_id"].to_pylist()]
    assert len(after) == len(before) + 2 and all(Path(uri).is_file() for uri in after["uri"].to_pylist())
    assert index_archive(moved)["version"] == index.version() == summary["version"]  # there was nothing to do
    index_archive(replaced(moved, refit_pca=True))  # of embeddings that were stored before the move
    assert index.features(columns=["image_id", "uri"]) == after.select(["image_id", "uri"])


def test_an_index_can_be_moved(indexed: IndexConfig, tmp_path: Path) -> None:
    version = Index(indexed.index).version()
    shutil.move(indexed.index, tmp_path / "elsewhere")
    moved = Index(str(tmp_path / "elsewhere"))
    assert moved.version() == version
    assert moved.pca(moved.features()["pca"][0].as_py()).components.shape[0] == K

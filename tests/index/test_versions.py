"""Older versions: what there is to go back to, going back, and an index that is copied away and served from there."""

import json
import os
import shutil
from pathlib import Path

import httpx
import pytest

from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from jobs.indexing.restoring import restore_version
from jobs.serve import serve_index
from jobs.serving.options import ServeConfig
from rsir_core.errors import ConfigError, LeaseError, TableError
from rsir_core.index.index import Index
from rsir_core.index.last_run import get_last_run
from rsir_core.index.lease import Lease
from rsir_core.index.no_match import get_no_match_threshold, has_no_match_threshold, put_no_match_threshold
from rsir_core.index.vacuum import vacuum
from rsir_core.index.versions import restoration_of, versions_of
from tests.support.serving import (
    Rows,
    check_finds_itself,
    copy_of,
    local_app,
    publish,
    publish_by_other_pca,
    serving,
    upload,
)
from tests.support.writing import writer_of

pytestmark = pytest.mark.slow


@pytest.fixture
def changing(index: str, tmp_path: Path) -> Index:
    """Three versions: all rows, five fewer, and again fewer by another PCA."""
    copy = copy_of(index, tmp_path / "index")
    publish(copy, copy.features().slice(5), files=2)
    publish_by_other_pca(copy, dimensions=5)
    assert copy.version() == 3
    return copy


def restore(index: Index, version: int) -> dict[str, object]:
    return index_archive(IndexConfig(index=index.uri, restore=version, json=True))  # type: ignore[return-value]


def test_versions_are_listed_with_what_they_were_made_of(changing: Index) -> None:
    found = versions_of(changing)
    rows = len(changing.features(1))
    assert [(v.version, v.rows, v.readable) for v in found] == [
        (3, rows - 5, True),
        (2, rows - 5, True),
        (1, rows, True),
    ]
    assert found[0].pca != found[1].pca == found[2].pca and len({v.bundle for v in found}) == 1
    assert [v.run for v in found] == [None] * 3  # no job made them
    restore(changing, 1)
    assert get_last_run(changing) is None  # nothing has been brought to the archive's state
    newest = versions_of(changing)[0]
    assert newest.run and (Path(changing.uri) / "runs" / f"{newest.run}.json").exists()
    summary = index_archive(IndexConfig(index=changing.uri, versions=True, json=True))
    assert json.loads(json.dumps(summary))["versions"][0]["run"] == newest.run


def test_an_older_version_comes_back_as_a_new_one_with_pca_and_threshold(changing: Index) -> None:
    wanted = changing.features(1)
    summary = restore(changing, 1)
    assert (summary["version"], summary["rows"]) == (4, len(wanted))
    assert changing.features().equals(wanted)
    ((bundle, pca),) = changing.models()
    assert has_no_match_threshold(changing, 4) and get_no_match_threshold(
        changing, 4, bundle, pca
    ) == get_no_match_threshold(changing, 1, bundle, pca)
    report = json.loads(max((Path(changing.uri) / "runs").glob("*.json")).read_text())
    assert (report["outcome"], report["version_before"], report["version_after"]) == ("done", 3, 4)
    assert vacuum(writer_of(changing), 0) > 0  # which keeps what is published
    assert changing.features().equals(wanted)


def test_the_version_that_is_published_needs_no_restoring(changing: Index) -> None:
    assert restore(changing, 3)["version"] == 3
    assert restore(changing, 2)["version"] == 4
    assert restore(changing, 2)["version"] == 4  # its files are those of 4


def test_a_version_that_is_not_whole_is_refused_with_those_that_are(changing: Index) -> None:
    for version in (0, 4, -1):
        with pytest.raises(TableError, match=f"version {version}.*1 to 3"):
            restoration_of(changing, version)
    (file, *_) = changing.feature_files(1)
    (Path(changing.table_uri("features")) / file.name).unlink()
    with pytest.raises(TableError, match=r"version 1 .*\b1 of 1 .*--vacuum.* 3, 2$"):
        restore(changing, 1)
    assert changing.version() == 3 and not versions_of(changing)[2].readable
    pca = versions_of(changing)[1].pca
    (Path(changing.uri) / "pca" / f"{pca}.safetensors").unlink()
    with pytest.raises(TableError, match=f"{pca}.*missing"):
        restore(changing, 2)


def test_nothing_is_restored_while_another_run_changes_the_index(changing: Index) -> None:
    with Lease.take(changing.uri), pytest.raises(LeaseError, match="another run is changing"):
        restore_version(IndexConfig(index=changing.uri, restore=1), 1)
    assert changing.version() == 3


def test_a_restore_that_was_killed_between_its_two_writes_is_whole_to_a_reader(changing: Index) -> None:
    """The rows come in one commit; until the threshold follows, the newest of the same models stands in."""
    known = get_no_match_threshold(changing, 1, *next(iter(changing.models(1))))
    assert known is not None
    put_no_match_threshold(writer_of(changing), 2, known)
    found = restoration_of(changing, 1)
    writer_of(changing).commit("features", found.added, "append", found.removed)
    assert changing.features().equals(changing.features(1))
    assert get_no_match_threshold(changing, 4, *next(iter(changing.models()))) == known


def test_a_copy_is_served_and_continued_once_the_original_is_lost(index: str, tmp_path: Path, stored: Rows) -> None:
    original, copy = copy_of(index, tmp_path / "original"), tmp_path / "elsewhere" / "copy"
    shutil.copytree(original.uri, copy)
    shutil.rmtree(original.uri)
    with serving(local_app(str(copy))) as url, httpx.Client(base_url=url, timeout=60) as client:
        for row in stored[:3]:
            check_finds_itself(client, row)
    assert versions_of(Index(str(copy)))[0].readable


def test_an_endpoint_takes_a_restored_version_as_any_other(changing: Index, stored: Rows) -> None:
    image = Path(stored[0]["uri"]).read_bytes()
    with (
        serving(local_app(changing.uri, refresh=0.1)) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        assert upload(client, image).json()["version"] == 3
        restore(changing, 1)
        while (answer := upload(client, image, k=1).json())["version"] != 4:
            assert answer["version"] == 3
        assert answer["results"][0]["image_id"] == stored[0]["image_id"]


def test_vacuum_removes_reports_of_old_runs_but_for_those_of_versions_that_can_be_read(changing: Index) -> None:
    runs = Path(changing.uri) / "runs"
    restore(changing, 1)
    (kept,) = runs.glob("*.json")
    for name in ("20200101T000000.000000Z-abcdef", "20200102T000000.000000Z-abcdef"):
        for ending in ("json", "md"):
            (runs / f"{name}.{ending}").write_text(json.dumps({"version_before": 1, "version_after": 1}))
    for file in runs.iterdir():
        os.utime(file, (0, 0))
    (runs / "20200102T000000.000000Z-abcdef.md").touch()
    vacuum(writer_of(changing), 7)
    assert {file.name for file in runs.iterdir()} == {
        kept.name, kept.with_suffix(".md").name, "20200102T000000.000000Z-abcdef.md"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"restore": 1, "archive": "a"}, "--archive has no effect with --restore"),
        ({"versions": True, "compact": True}, "--compact has no effect with --versions"),
        ({"versions": True, "restore": 1}, "--restore has no effect with --versions"),
        ({"archive": "a"}, "missing: --models"),
        ({}, "missing: --archive, --models"),
    ],
)
def test_what_makes_no_sense_together_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        IndexConfig(index="i", **options)


def test_a_missing_file_of_tokens_is_told_before_anything_starts(index: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):  # no Ray has been started here, nor is it now
        serve_index(ServeConfig(index=str(tmp_path / "no index"), tokens=str(tmp_path / "none")))

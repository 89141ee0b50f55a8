"""Archive and index on a real S3 server: refusals are said, and no commit is lost, doubled or half seen."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.errors import ConflictError, ImageError, LeaseError, StorageError, TableError
from rsir_core.imagery.decode import read_in_turn
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.sandbox import Reader, memory_for
from rsir_core.imagery.tile_grid import Tiling, with_tiles
from rsir_core.imagery.tile_survey import survey_files, survey_scene
from rsir_core.index.delta import Mode
from rsir_core.index.diff import listing_table, make_plan
from rsir_core.index.index import Index
from rsir_core.index.lease import Holder, Lease
from rsir_core.index.writer import write_rows
from rsir_core.storage import s3_listing as bucket
from rsir_core.storage.filesystem import create_file, put_file
from rsir_core.storage.reading import read_file
from rsir_core.storage.s3_listing import Bucket
from tests.imagery.test_tile_uri import cog
from tests.support.store import Fault, Store, running
from tests.support.writing import writer_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with running(tmp_path_factory.mktemp("store") / "log") as store:
        yield store


@pytest.fixture
def store(served: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """With credentials and address where the libraries look for them."""
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()  # they may hold another store's address
    yield served
    fsspec.filesystem("s3").clear_instance_cache()


def failures(*names: str, stage: str = "decode", kind: str = "corrupt") -> pa.Table:
    values = {"image_id": names, "uri": names, "etag": names, "bundle": ["b"] * len(names)}
    return pa.table({**values, "stage": [stage] * len(names), "kind": [kind] * len(names), "message": names})


def commit(index: Index, *names: str) -> int:
    return writer_of(index).commit("failures", [write_rows(index.uri, "failures", failures(*names))], "append")


def ids(index: Index) -> list[str]:
    found: list[str] = index.keys("failures")["image_id"].to_pylist()
    return sorted(found)


def test_of_commits_at_once_each_is_there_once_or_knows_better(store: Store) -> None:
    index = Index("s3://bucket/at_once")
    commit(index, "0")

    def outcome(name: str) -> str | None:
        try:
            commit(index, name)
        except ConflictError:
            return None
        return name

    with ThreadPoolExecutor(5) as pool:
        committed = [name for name in pool.map(outcome, "12345") if name]
    assert committed
    assert ids(index) == ["0", *committed]
    assert index.table_version("failures") == 1 + len(committed)


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("what", ["_delta_log/.*json", "part-"])
def test_a_write_that_is_answered_500_is_neither_lost_nor_doubled(store: Store, what: str, applied: bool) -> None:
    index = Index(f"s3://bucket/{applied}/{what[:4]}")
    commit(index, "first")
    modes: tuple[Mode, ...] = ("append", "overwrite")
    for mode in modes:
        with store.fault(Fault("PUT", what, times=1, applied=applied)):
            writer_of(index).commit("failures", [write_rows(index.uri, "failures", failures("second"))], mode)
            assert store.hits() == 1
        assert ids(index) == (["first", "second"] if mode == "append" else ["second"])


def test_what_the_store_refuses_is_one_line_and_leaves_no_trace(store: Store) -> None:
    index = Index("s3://bucket/refused")
    commit(index, "first")
    for what in ("_delta_log/.*json", "part-"):
        with (
            store.fault(Fault("PUT", what, 403, "ExpiredToken")),
            pytest.raises(StorageError, match=r"bucket/refused.*credentials") as caught,
        ):
            commit(index, "second")
        assert "\n" not in str(caught.value)
        assert ids(index) == ["first"]
    assert commit(index, "second") and ids(index) == ["first", "second"]


def test_an_index_that_the_store_does_not_show_is_one_line(store: Store) -> None:
    index = Index("s3://bucket/hidden")
    commit(index, "first")
    with Lease.take(index.uri):
        pass
    asked: list[Callable[[], Any]] = [
        lambda: Lease.take(index.uri),
        lambda: index.keys("features"),
        lambda: index.table_version("features"),
        lambda: writer_of(index),
    ]
    for ask in asked:
        with (
            store.fault(Fault("GET", "", 403, "AccessDenied")),
            pytest.raises((StorageError, TableError), match="bucket/hidden") as caught,
        ):
            ask()
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_reading_waits_for_the_store_and_tells_its_refusals_apart(store: Store) -> None:
    uri = "s3://bucket/archive/a/1.jpg"
    put_file(uri, b"pixels")
    (image,) = list_images("s3://bucket/archive")
    assert (image.image_id, image.uri, image.size) == ("a/1.jpg", uri, 6)
    with store.fault(Fault("GET", "1.jpg", 503, "SlowDown", times=2)):
        assert read_file(uri, 10) == b"pixels"
        assert store.hits() == 2
    for status, code, kind in ((403, "ExpiredToken", "denied"), (500, "InternalError", "error")):
        with store.fault(Fault("GET", "1.jpg", status, code)), pytest.raises(ImageError) as caught:
            read_file(uri, 10)
        assert (caught.value.stage, caught.value.kind) == ("read", kind)


def test_what_the_store_refused_is_tried_again_and_what_the_file_is_not(store: Store) -> None:
    for name in ("bad", "denied", "unreachable"):
        put_file(f"s3://bucket/again/{name}.jpg", name.encode())
    listing = listing_table(list_images("s3://bucket/again"))
    index = Index("s3://bucket/again_index")
    said = {"bad.jpg": ("decode", "corrupt"), "denied.jpg": ("read", "denied"), "unreachable.jpg": ("read", "error")}
    rest = pa.table({n: [row[n] for row in map(dict, listing.to_pylist())] for n in ("image_id", "uri", "etag")})
    stages, kinds = zip(*(said[name] for name in rest["image_id"].to_pylist()), strict=True)
    more = {"bundle": ["b"] * 3, "stage": list(stages), "kind": list(kinds), "message": ["m"] * 3}
    table = pa.table({**{n: rest[n] for n in rest.column_names}, **more}).select(schemas.FAILURES.names)
    writer_of(index).commit("failures", [write_rows(index.uri, "failures", table)], "append")
    plan = make_plan(index, listing, retry_failed=False)
    assert plan.to_describe["image_id"].to_pylist() == ["denied.jpg", "unreachable.jpg"]
    assert plan.stale_failures["image_id"].to_pylist() == ["denied.jpg", "unreachable.jpg"]
    assert plan.new == 0
    assert len(make_plan(index, listing, retry_failed=True).to_describe) == 3


def test_the_lease_of_an_index_there(store: Store) -> None:
    index = "s3://bucket/leased"

    def take() -> None:
        try:
            taken.append(Lease.take(index))
        except LeaseError:
            refused.append(index)

    taken: list[Lease] = []
    refused: list[str] = []
    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1 and len(refused) == 3  # conditional writes: one at most
    with taken[0] as lease, store.fault(Fault("PUT", "lease/", times=1, applied=True)):
        lease.check()  # an answer got lost
    assert create_file(f"{index}/once", b"1") and not create_file(f"{index}/once", b"2")
    with Lease.take(index) as lease:
        put_file(f"{index}/lease/00000003.json", replace(Holder.this(), machine="another").to_bytes())
        with pytest.raises(LeaseError, match="lease"):
            lease.check()
    with Lease.take(index, ttl=0.1, beat=0.05):
        pass


@pytest.mark.parametrize(("page", "parts"), [(1000, 32), (2, 32), (3, 2)])
def test_the_listing_of_an_archive_there(store: Store, monkeypatch: pytest.MonkeyPatch, page: int, parts: int) -> None:
    names = [f"{folder}/{i}.jpg" for folder in ("a", "a/b", "c/d/e", "c/d/f", "ü") for i in range(3)]
    names += ["0.jpg", "a-.jpg", "a.jpg", "a0.jpg", "z.jpg"]  # before and after a's slash
    if not fsspec.filesystem("s3").exists("bucket/listed"):
        for name in [*names, "a/notes.txt", ".hidden/1.jpg", "c/_delta_log/1.jpg", "c/d/"]:
            put_file(f"s3://bucket/listed/{name}", b"1")
        put_file("s3://bucket/listed2/1.jpg", b"1")
    monkeypatch.setattr(bucket, "PAGE", page)
    monkeypatch.setattr(bucket, "MAX_PARTS", parts)
    found = [image.image_id for image in list_images("s3://bucket/listed")]
    assert sorted(found) == sorted(names)
    assert found == [image.image_id for image in list_images("s3://bucket/listed/")]


class Unordered(NamedTuple):
    """Answers as a bucket does that knows no order of keys, nor where to start: S3's directory buckets."""

    keys: list[str]

    def split_path(self, root: str) -> tuple[str, str, None]:
        return root, "", None

    def call_s3(self, _: str, ContinuationToken: str = "0", **more: Any) -> dict[str, Any]:
        assert "StartAfter" not in more
        start = int(ContinuationToken)
        found = [{"Key": key, "Size": 1, "ETag": "1"} for key in self.keys[start : start + 2]]
        return {"Contents": found, "IsTruncated": start + 2 < len(self.keys), "NextContinuationToken": f"{start + 2}"}


def test_a_bucket_without_an_order_is_listed_to_its_end() -> None:
    keys = ["b/2", "a/1", "c/3", "a/0", "d/4"]
    assert [entry["name"] for entry in Bucket(Unordered(keys), "x").entries()] == [f"x/{key}" for key in keys]


def test_scenes_there_are_read_by_windows(store: Store) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (3, 300, 400)).astype(np.uint8)
    put_file("s3://bucket/scenes/a/s.tif", cog(samples, compress="deflate"))
    listing = listing_table(list_images("s3://bucket/scenes"))
    headers, pictures = Reader(survey_scene, 60, memory_for(10**8)), Reader(read_in_turn, 60, memory_for(10**8))
    surveyed = survey_files(listing, [headers], Tiling(128, 0), 10**8)
    tiles, _ = with_tiles(listing, surveyed.select(schemas.SCENES.names))
    assert len(tiles) == 3 * 4
    for uri, picture in zip(uris := tiles["uri"].to_pylist(), pictures.read([(u, 10**8) for u in uris]), strict=True):
        assert isinstance(picture, Picture) and picture.window is not None, picture
        part = samples[:, *picture.window.toslices()]
        np.testing.assert_array_equal(picture.pixels, part.transpose(1, 2, 0), uri)
    with store.fault(Fault("GET", "s.tif", 403, "ExpiredToken")):
        (denied,) = headers.read([(listing["uri"][0].as_py(), 5, astuple(Tiling(128, 0)), 10**8)])
    assert isinstance(denied, ImageError) and (denied.stage, denied.kind) == ("read", "denied")
    headers.close()
    pictures.close()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        index = Index(str(disk / "index"))
        commit(index, "first")
        for length in (100_000, 20_000, 3_000, 300):  # the file does not fit; at some point the commit does not
            with pytest.raises(StorageError, match="No space left"):
                for i in range(200):
                    commit(index, *(f"{i}-{n}-{hash((i, n))}" for n in range(length // 10)))
            before = ids(index)
            assert "first" in before and len(set(before)) == len(before)
    finally:
        subprocess.run(["umount", str(disk)], check=True)

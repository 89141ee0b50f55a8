"""Listing: complete, in order, once each, whatever the store; reading: within its limit, or with the right kind."""

import importlib.util
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir_core.archive.listing import EXTENSIONS, THREADS, Root, _below, list_images, rebase_uri, root_of
from rsir_core.errors import ArchiveError, FailureKind, ImageError
from rsir_core.storage.reading import read_file


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def write(root: Path, *names: str, content: bytes = b"pixels") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def ids(archive: object) -> list[str]:
    return [image.image_id for image in list_images(str(archive))]


def kind_of(uri: object, max_bytes: int = 100) -> FailureKind:
    with pytest.raises(ImageError) as caught:
        read_file(str(uri), max_bytes)
    assert caught.value.stage == "read"
    assert str(uri) in str(caught.value)
    return caught.value.kind


def test_lists_images_only_in_order_of_names(tmp_path: Path) -> None:
    write(tmp_path, "b/2.JPG", "b/1.tif", "a/z.Jp2", "c.png", "a/deep/er/x.webp", "airport 1/ü.jpeg")
    write(tmp_path, "a/z.jp2.aux.xml", "b/1.tfw", "readme.txt", ".hidden.jpg", ".git/x.jpg", "_delta_log/x.jpg", "jpg")
    write(tmp_path, "__MACOSX/x.jpg", "a/.ipynb_checkpoints/z-checkpoint.jpg", "b/._1.jpg")
    assert ids(tmp_path) == ["c.png", "a/z.Jp2", "a/deep/er/x.webp", "airport 1/ü.jpeg", "b/1.tif", "b/2.JPG"]


@pytest.mark.parametrize("form", ["{}", "{}/", "file://{}", "file://{}/"])
def test_the_form_of_a_local_uri_does_not_matter(tmp_path: Path, form: str) -> None:
    write(tmp_path, "a/1.jpg")
    (image,) = list_images(form.format(tmp_path))
    assert tuple(image) == (image.image_id, str(tmp_path / "a/1.jpg"), image.etag, 6, None)
    assert image.image_id == "a/1.jpg"
    assert read_file(image.uri, 6) == read_file(f"file://{image.uri}", 6) == b"pixels"


def test_relative_archives_give_absolute_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "photos/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert [image.uri for image in list_images("photos")] == [str(tmp_path / "photos/1.jpg")]


def test_two_keys_of_a_bucket_are_two_images_however_many_slashes_they_have() -> None:
    assert [_below("bucket/p", f"bucket/p/{name}") for name in ("a.jpg", "/a.jpg", "b//a.jpg")] == [
        "a.jpg", "/a.jpg", "b//a.jpg",
    ]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=12).filter(bool))
def test_every_image_of_any_store_is_listed_once_and_readable(paths: list[list[str]]) -> None:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    wanted = {"/".join(path) + ".jpg": "/".join(path).encode() for path in paths}
    for name, content in wanted.items():
        fs.pipe(f"/bucket/{name}", content)
        fs.pipe(f"/bucket/{name}.aux.xml", b"sidecar")
    images = list(list_images("memory://bucket"))
    assert sorted(image.image_id for image in images) == sorted(wanted)
    for image in images:
        assert image.uri == f"memory:///bucket/{image.image_id}"
        assert read_file(image.uri, 100) == wanted[image.image_id]
        assert image.size == len(wanted[image.image_id])


@pytest.mark.parametrize(
    ("uri", "image_id", "moved"),
    [
        ("/data/a/a/x.png", "a/x.png", "/b/a/x.png"),
        ("s3://x.png/x.png", "x.png", "/b/x.png"),
        ("/data/s.tif#xywh=0,0,8,8&bands=1", "s.tif#xywh=0,0,8,8", "/b/s.tif#xywh=0,0,8,8&bands=1"),
        ("https://host/asset.tif", "item/visual", "https://host/asset.tif"),
        ("zip://a/x.png::/data/old.zip", "a/x.png", "/b/a/x.png"),
        ("zip://x.png::/data/x.png.zip", "x.png", "/b/x.png"),
        ("s3://bucket/we::ird/x.png", "x.png", "/b/x.png"),
    ],
)
def test_an_image_lies_under_its_archive_wherever_that_is(uri: str, image_id: str, moved: str) -> None:
    assert rebase_uri(Root("/b/"), uri, image_id) == moved
    root = root_of(uri, image_id)
    assert uri == (moved if root is None else rebase_uri(root, moved, image_id))


def test_etag_changes_with_the_content_and_only_then(tmp_path: Path, memory: Any) -> None:
    write(tmp_path, "1.jpg")
    (first,) = list_images(str(tmp_path))
    assert list(list_images(str(tmp_path))) == [first]
    status = (tmp_path / "1.jpg").stat()
    os.utime(tmp_path / "1.jpg", ns=(status.st_atime_ns, status.st_mtime_ns + 1_000))  # same size, a microsecond on
    (touched,) = list_images(str(tmp_path))
    write(tmp_path, "1.jpg", content=b"more pixels")
    os.utime(tmp_path / "1.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))  # same time, other size
    (longer,) = list_images(str(tmp_path))
    assert len({first.etag, touched.etag, longer.etag}) == 3

    memory.pipe("/bucket/1.jpg", b"a")
    before = list(list_images("memory://bucket"))
    assert before == list(list_images("memory://bucket"))
    memory.pipe("/bucket/1.jpg", b"b")
    assert before != list(list_images("memory://bucket"))  # no listing cache in between either


def test_the_listing_is_lazy(tmp_path: Path) -> None:
    names = [f"{i:03}/1.jpg" for i in range(THREADS + 2)]
    write(tmp_path, *names)
    images = list_images(str(tmp_path))
    assert next(images).image_id == names[0]
    last = f"{THREADS + 1:03}/2.jpg"
    write(tmp_path, last)  # a folder is looked into shortly before its turn comes
    assert [image.image_id for image in images] == [*names[1:], last]


def test_an_iteration_that_is_given_up_leaves_no_thread(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/1.jpg")
    images = list_images(str(tmp_path))
    next(images)
    images.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("listing")]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg", "b/2.jpg")
    write(tmp_path.parent / "elsewhere", "3.jpg")
    (tmp_path / "a/up").symlink_to("..")
    (tmp_path / "a/self").symlink_to(".")
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path.parent / "elsewhere")
    (tmp_path / "d.jpg").symlink_to(tmp_path / "a/1.jpg")
    assert ids(tmp_path) == ["d.jpg", "a/1.jpg", "a/to_b/2.jpg", "b/2.jpg", "b/to_a/1.jpg", "c/3.jpg"]


def test_a_link_changes_with_its_target_and_fails_with_it(tmp_path: Path) -> None:
    write(tmp_path, "photos/1.jpg", "target")
    (tmp_path / "photos/2.jpg").symlink_to(tmp_path / "target")
    before = {image.image_id: image.etag for image in list_images(str(tmp_path / "photos"))}
    write(tmp_path, "target", content=b"other and longer")
    after = {image.image_id: image.etag for image in list_images(str(tmp_path / "photos"))}
    assert before["1.jpg"] == after["1.jpg"]
    assert before["2.jpg"] != after["2.jpg"]
    (tmp_path / "target").unlink()
    assert ids(tmp_path / "photos") == ["1.jpg", "2.jpg"]
    assert kind_of(tmp_path / "photos/2.jpg") == "missing"


def test_a_single_file_is_an_archive(tmp_path: Path) -> None:
    write(tmp_path, "a/1.jpg")
    (image,) = list_images(str(tmp_path / "a/1.jpg"))
    assert (image.image_id, image.uri, image.size) == ("1.jpg", str(tmp_path / "a/1.jpg"), 6)
    assert [image] == [other._replace(image_id="1.jpg") for other in list_images(str(tmp_path))]


def test_a_zip_is_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("a/1.jpg", b"one")
        file.writestr("a/note.txt", b"no image")
        file.writestr("b/2.jpg", b"two!")
    images = list(list_images(f"zip://::{tmp_path}/photos.zip"))
    assert [(image.image_id, image.size) for image in images] == [("a/1.jpg", 3), ("b/2.jpg", 4)]
    assert [read_file(image.uri, 9) for image in images] == [b"one", b"two!"]


def test_names_that_are_no_text_are_listed_to_fail_one_by_one(tmp_path: Path) -> None:
    write(tmp_path, "good.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"pixels")
    bad, good = list_images(str(tmp_path))
    assert (bad.image_id, good.image_id) == (r"caf\xe9.jpg", "good.jpg")
    assert kind_of(bad.uri) == "missing"


def test_pipes_are_neither_listed_nor_waited_for(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg")
    os.mkfifo(tmp_path / "2.jpg")
    assert ids(tmp_path) == ["1.jpg"]
    assert kind_of(tmp_path / "2.jpg") == "error"


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        ("{}/nowhere", "does not exist"),
        ("{}/empty", "holds no image"),
        ("{}/empty/readme.txt", "no image by its extension"),
        ("memory://nowhere", "does not exist"),
        ("nosuch://bucket", "nosuch"),
        ("zip://::{}/empty/readme.txt", "readme.txt"),
    ],
)
def test_archives_that_cannot_be_listed_say_why(tmp_path: Path, memory: Any, archive: str, message: str) -> None:
    write(tmp_path, "empty/readme.txt")
    archive = archive.format(tmp_path)
    with pytest.raises(ArchiveError, match=message) as caught:
        list(list_images(archive))
    assert archive in str(caught.value)


@pytest.mark.parametrize(("uri", "package", "extra"), [("gs://b/p", "gcsfs", "gs"), ("az://b/p", "adlfs", "az")])
def test_a_protocol_without_its_package_names_the_extra(uri: str, package: str, extra: str) -> None:
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ArchiveError, match=rf"pip install 'rsir\[{extra}\]'"):
        list_images(uri)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
def test_what_is_denied_is_said(tmp_path: Path) -> None:
    write(tmp_path, "1.jpg", "closed/2.jpg")
    (tmp_path / "1.jpg").chmod(0)
    (tmp_path / "closed").chmod(0)
    assert kind_of(tmp_path / "1.jpg") == "denied"
    with pytest.raises(ArchiveError, match="access is denied"):
        list(list_images(str(tmp_path)))
    (tmp_path / "closed").chmod(0o700)


def test_denied_subfolders_of_any_store_are_an_error(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe({"/bucket/a/1.jpg": b"1", "/bucket/b/2.jpg": b"2"})
    ls = type(memory).ls

    def denying(fs: Any, path: str, **options: Any) -> Any:
        if path == "/bucket/b":
            raise PermissionError("AccessDenied")
        return ls(fs, path, **options)

    monkeypatch.setattr(type(memory), "ls", denying)
    images = list_images("memory://bucket")
    assert next(images).image_id == "a/1.jpg"
    with pytest.raises(ArchiveError, match="access is denied"):
        next(images)


def test_reading_keeps_its_limit(tmp_path: Path, memory: Any) -> None:
    write(tmp_path, "1.jpg", content=b"x" * 100)
    memory.pipe("/1.jpg", b"x" * 100)
    for uri in (str(tmp_path / "1.jpg"), "memory:///1.jpg"):
        assert len(read_file(uri, 100)) == 100
        assert kind_of(uri, 99) == "too_large"


def test_reading_says_what_is_wrong(tmp_path: Path, memory: Any) -> None:
    write(tmp_path, "empty.jpg", content=b"")
    memory.pipe("/empty.jpg", b"")
    for uri, kind in {
        tmp_path / "empty.jpg": "empty",
        "memory:///empty.jpg": "empty",
        tmp_path / "nowhere.jpg": "missing",
        tmp_path / "empty.jpg" / "1.jpg": "missing",
        "memory:///nowhere.jpg": "missing",
        tmp_path: "error",
        "nosuch://1.jpg": "error",
    }.items():
        assert kind_of(uri) == kind


def test_extensions_are_lower_case() -> None:
    assert all(extension == extension.lower() and extension.startswith(".") for extension in EXTENSIONS)

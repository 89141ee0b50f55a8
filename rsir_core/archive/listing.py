"""List the image files of an archive, local or on any store that fsspec opens."""

import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import tokenize

from rsir_core.errors import ArchiveError, StorageError
from rsir_core.storage.filesystem import file_system
from rsir_core.storage.s3_listing import Bucket, quick
from rsir_core.storage.signed_file import with_renewal
from rsir_core.storage.signing import SignedUri

EXTENSIONS: Final = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gtif", ".gtiff", ".jp2", ".j2k", ".j2c",
    ".jpc", ".jpx", ".jpf", ".gif", ".bmp", ".vrt",
])  # fmt: skip
_ETAGS: Final = (
    "ETag", "etag", "md5Hash", "LastModified", "last_modified", "modified", "updated", "mtime", "modify",
    "modificationTime",
)  # fmt: skip
_CUBES: Final = (".nc", ".nc4", ".zarr", ".hdf", ".hdf5", ".h5", ".he5", ".grib", ".grib2")
THREADS: Final = 16  # folders listed at once, and listings held ahead
# Folders without imagery: the log of a Delta table beside the images, and what macOS adds to zip files.
_SKIPPED: Final = ("_delta_log", "__MACOSX")

log = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """Hold one file of the archive that should be an image.

    Attributes:
        image_id: path below the archive's root, '/'-separated; unique, and the same wherever the archive is mounted.
        uri: argument of `reading.read_file`: an absolute path for local files, a full URL for others.
        etag: changes with the content: the store's ETag, else time of modification in ns and size.
        size: in bytes; -1: unknown.
        time: acquisition time, if a catalogue gives it.
    """

    image_id: str
    uri: str
    etag: str
    size: int
    time: datetime | None = None


Folder = tuple[list[ImageFile], list[str]]  # its images and the paths of its subfolders


def list_images(archive: str) -> Iterator[ImageFile]:
    """Yield the image files of an archive, which is a folder or a single file, as they are found.

    Images are recognised by extension, in any case; hidden files and folders are skipped. Within each folder, files
    come in order of their names, before subfolders (for S3 see `s3_listing`). Only the listings of a few folders are
    held in memory. Symbolic links are followed, except into a folder that is being listed; dangling or circular links,
    and links into unreadable folders, are skipped.

    Raises:
        ArchiveError: the archive is missing, denied, empty, or of a protocol that is not installed. An unreadable
            subfolder of the archive itself is an error too: if it were skipped, its images would count as gone.
    """
    if archive.lower().rstrip("/").endswith(_CUBES):
        what = "is a multi-dimensional file, of which no picture is read; translate its bands to GeoTIFF"
        raise ArchiveError(f"{archive} {what} (gdal_translate, or xarray with rioxarray)")
    fs, root = _open(archive)
    try:
        info = fs.info(root)
    except Exception as error:
        _refuse(archive, error)
    if info["type"] != "directory":
        if not _is_image(root):
            raise ArchiveError(f"{archive} is a file, but no image by its extension; give a folder or {_known()}")
        return iter([_image_file(fs, archive, root.rpartition("/")[0], _followed(fs, info))])
    return _list(fs, archive, root.rstrip("/"))


def etag_of(uri: str) -> tuple[str, int]:
    """Ask a store for etag and size of a file with any name, see `ImageFile`.

    Raises:
        OSError: the file is missing or denied; stores may raise other errors.
        StorageError: the protocol is unknown, or not installed.
    """
    signed = SignedUri.parse(uri)
    if signed is not None:
        fs, info = with_renewal(signed, _info_of)
        info = {**info, "name": signed.url, "url": signed.url}  # which its etag may be made of
    else:
        fs, info = _info_of(uri)
    if info["type"] == "directory":
        raise IsADirectoryError(uri)
    file = _image_file(fs, uri, info["name"].rpartition("/")[0], _followed(fs, info))
    return file.etag, file.size


def _info_of(uri: str) -> tuple[Any, Mapping[str, Any]]:
    fs, path = file_system(uri, use_listings_cache=False)
    return fs, fs.info(path)


class Root(NamedTuple):
    """Hold an archive's root: the part of its images' URIs before their id, and after it if a file contains them all.

    For example `zip://` and `::s3://bucket/photos.zip`; most archives have no second part.
    """

    before: str
    chained: str = ""


def root_of(uri: str, image_id: str) -> Root | None:
    """Find the root of the archive of an image or tile; None if the URI does not contain the id."""
    place = uri.partition("::")[0].rfind(image_id)  # not in the name of the file that holds it
    if place < 0 and (place := uri.rfind(image_id)) < 0:
        scene, mark, _ = image_id.rpartition("#xywh=" if "#xywh=" in image_id else "#cell=")  # of a composite's tile
        return root_of(uri, scene) if mark and "::" not in uri else None
    end = place + len(image_id)
    _, chain, rest = uri[end:].partition("::")
    return Root(uri[:place], chain + rest)


def rebase_uri(root: Root, uri: str, image_id: str) -> str:
    """Rewrite the URI of an image or tile to the archive's current root; a URI without the id stays."""
    then = root_of(uri, image_id)
    if then is None:
        return uri
    return root.before + uri[len(then.before) : len(uri) - len(then.chained)] + root.chained


def _open(archive: str) -> tuple[Any, str]:
    """Return file system and root path, without a listing cache, which would keep the listing and hide changes."""
    try:
        return file_system(archive, use_listings_cache=False)
    except StorageError as error:
        raise ArchiveError(str(error)) from error


def _list(fs: Any, archive: str, root: str) -> Iterator[ImageFile]:
    found = False
    try:
        for image in _flat(fs, archive, root) if "s3" in fs.protocol else _walk(fs, archive, root):
            found = True
            yield image
    except Exception as error:  # each store has its own family of errors
        _refuse(archive, error)
    if not found:
        raise ArchiveError(f"{archive} holds no image; looked for {_known()} in it and its subfolders")


def _flat(fs: Any, archive: str, root: str) -> Iterator[ImageFile]:
    for entry in Bucket(quick(fs), root).entries():
        below = entry["name"][len(root) :]
        if not is_hidden(below) and _is_image(below):
            yield _image_file(fs, archive, root, entry)


def _walk(fs: Any, archive: str, root: str) -> Iterator[ImageFile]:
    """Walk depth first; if the store allows it, threads list the next folders meanwhile."""
    local = isinstance(fs, LocalFileSystem)
    threads = THREADS if local or fs.async_impl else 1
    stack: list[tuple[str, frozenset[str]]] = [(root, frozenset())]  # with the real paths of the folders around it
    ahead: dict[str, Future[Folder]] = {}
    pool = ThreadPoolExecutor(threads, "listing")
    try:
        while stack:
            for folder, _ in stack[-threads:][::-1]:
                if folder not in ahead:
                    ahead[folder] = pool.submit(_list_folder, fs, archive, root, folder)
            folder, above = stack.pop()
            images, folders = ahead.pop(folder).result()
            yield from images
            above |= {os.path.realpath(folder)} if local else set()
            inside = [child for child in folders if not local or os.path.realpath(child) not in above]
            stack += [(child, above) for child in reversed(inside)]
    finally:
        pool.shutdown(cancel_futures=True)


def _list_folder(fs: Any, archive: str, root: str, folder: str) -> Folder:
    images, folders = [], []
    try:
        entries = _entries(fs, folder)
    except PermissionError as error:
        if not (isinstance(fs, LocalFileSystem) and _is_linked(root, folder)):
            raise
        log.warning("%s is passed over: it is reached by a link and may not be read (%s)", folder, error)
        return [], []
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        path = entry["name"].rstrip("/")
        name = path.rpartition("/")[2]
        if path == folder or is_hidden(name):
            continue  # the first: object stores list a folder's own marker in it
        if entry["type"] == "directory":
            folders.append(path)
        elif entry["type"] == "file" and _is_image(name):
            images.append(_image_file(fs, archive, root, entry))
    return images, folders


def _is_linked(root: str, folder: str) -> bool:
    """Tell whether a folder of a local archive is reached through a symbolic link."""
    return os.path.realpath(folder) != str(Path(os.path.realpath(root)) / os.path.relpath(folder, root))


def _entries(fs: Any, folder: str) -> Iterable[Mapping[str, Any]]:
    """List the entries of a folder; symbolic links are described by their targets."""
    if not isinstance(fs, LocalFileSystem):
        found: list[Mapping[str, Any]] = fs.ls(folder, detail=True)
        return found
    with os.scandir(folder or "/") as entries:
        return [_local_entry(entry) for entry in entries if not is_hidden(entry.name)]


def _local_entry(entry: os.DirEntry[str]) -> Mapping[str, Any]:
    """Describe a local entry; broken links count as files, which fail when read, and other than images are skipped."""
    try:
        is_folder = entry.is_dir()
    except OSError:  # a circular link, or one into an unreadable folder
        is_folder = False
    if not is_folder and not _is_image(entry.name):
        return {"name": entry.path, "type": "other"}
    try:
        status = entry.stat()
        kind = "directory" if is_folder else "file" if stat.S_ISREG(status.st_mode) else "other"
        return {"name": entry.path, "type": kind, "size": status.st_size, "mtime": status.st_mtime}
    except OSError:
        pass
    try:
        return {"name": entry.path, "type": "file", "size": 0, "mtime": entry.stat(follow_symlinks=False).st_mtime}
    except FileNotFoundError:  # deleted since the folder was opened
        return {"name": entry.path, "type": "other"}


def _followed(fs: Any, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a symbolic link under its own name; a broken link stays a file, which fails when read."""
    if not info.get("islink"):
        return info
    try:
        return {**fs.info(info["name"]), "name": info["name"]}
    except OSError:
        return {**info, "type": "file"}


def _image_file(fs: Any, archive: str, root: str, info: Mapping[str, Any]) -> ImageFile:
    path = _printable(info["name"])
    size = info.get("size")
    size = -1 if size is None else int(size)
    if isinstance(fs, LocalFileSystem):
        return ImageFile(_below(root, path), path, f"{round(info['mtime'] * 1e9)}-{size}", size)
    _, chained, rest = archive.partition("::")  # zip://::s3://bucket/photos.zip
    uri = f"{fs.unstrip_protocol(path)}{chained}{rest}"
    tag = next((info[key] for key in _ETAGS if info.get(key)), None)
    return ImageFile(_below(root, path), uri, f"{str(tag).strip(chr(34))}-{size}" if tag else tokenize(info), size)


def _below(root: str, path: str) -> str:
    return path[len(_printable(root)) :].removeprefix("/")  # one: in a bucket `a//b` is another key than `a/b`


def _printable(path: str) -> str:
    r"""Make a path valid text for tables: bytes that are not UTF-8 become \xNN, and the file fails when read."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_hidden(path: str) -> bool:
    """Tell whether listings skip a file: its name or a parent folder's begins with a dot or is in `_SKIPPED`.

    Args:
        path: '/'-separated path below the listed folder, whose own name does not matter.
    """
    path = f"/{path}/"
    return "/." in path or any(f"/{name}/" in path for name in _SKIPPED)


def _is_image(path: str) -> bool:
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    return bool(stem) and dot + extension.lower() in EXTENSIONS


def _known() -> str:
    return "files with one of the extensions " + " ".join(sorted(EXTENSIONS))


def _refuse(archive: str, error: Exception) -> NoReturn:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            what = "does not exist; check the path (a local one is taken from the working directory)"
        case PermissionError():
            what = "cannot be listed, access is denied; check credentials and permissions"
        case _:
            what = "cannot be listed; check the address, the network and the credentials"
    raise ArchiveError(f"{archive} {what}: {type(error).__name__}: {error}") from error

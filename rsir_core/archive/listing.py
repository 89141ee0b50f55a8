"""From an archive's URI to its image files; local or any store that fsspec opens."""

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

EXTENSIONS: Final = frozenset([
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".gtif", ".gtiff", ".jp2", ".j2k", ".j2c",
    ".jpc", ".jpx", ".jpf", ".gif", ".bmp",
])  # fmt: skip
_ETAGS: Final = (
    "ETag", "etag", "md5Hash", "LastModified", "last_modified", "modified", "updated", "mtime", "modify",
    "modificationTime",
)  # fmt: skip
THREADS: Final = 16  # folders that are listed at once, and as many listings that wait to be asked for
# Folders that hold no imagery: a table beside the images, whose log can be long, and what a Mac adds to its zip files.
_SKIPPED: Final = ("_delta_log", "__MACOSX")

log = logging.getLogger(__name__)


class ImageFile(NamedTuple):
    """Name one file of the archive that should be an image.

    Attributes:
        image_id: path below the archive's root, '/'-separated; unique, and the same wherever the archive is mounted.
        uri: what `reading.read_file` takes: an absolute path for local files, a full URL for others.
        etag: changes when the content does: the store's ETag, else time of modification in ns and size.
        size: bytes; -1 where the store does not say.
        time: of acquisition, where a catalogue says it.
    """

    image_id: str
    uri: str
    etag: str
    size: int
    time: datetime | None = None


Folder = tuple[list[ImageFile], list[str]]  # its images and the paths of its subfolders


def list_images(archive: str) -> Iterator[ImageFile]:
    """List the image files of an archive, a folder or a single file, as they are found.

    By extension, whatever its case; hidden files and folders are left out. In order of names within each folder, files
    before subfolders (S3: see `s3_listing`). Holds the listings of a few folders, never that of the archive. Symbolic
    links are followed, except back into a folder that is being listed.

    A symbolic link into a folder that may not be read, or that leads in a circle, is passed over as a dangling one is.

    Raises:
        ArchiveError: the archive is missing, denied, empty, or of a protocol that is not installed; at once where it
            can be known at once, else while iterating. A subfolder of its own that is denied is an error as well: left
            out, its images would count as gone.
    """
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
    """Ask a store for etag and size of one file, whatever it is called: see `ImageFile`.

    Raises:
        OSError: it is not there, or denied; and what else stores raise.
        StorageError: the protocol is unknown, or not installed.
    """
    fs, path = file_system(uri, use_listings_cache=False)
    info = fs.info(path)
    if info["type"] == "directory":
        raise IsADirectoryError(uri)
    file = _image_file(fs, uri, path.rpartition("/")[0], _followed(fs, info))
    return file.etag, file.size


class Root(NamedTuple):
    """Locate an archive: the part of its images' URIs before their id, and after it where one file holds them.

    `zip://` and `::s3://bucket/photos.zip`, for example; most archives are in no file.
    """

    before: str
    chained: str = ""


def root_of(uri: str, image_id: str) -> Root | None:
    """Find where the archive of an image, or of a scene's tile, lies; None: its URI has no id in it."""
    place = uri.partition("::")[0].rfind(image_id)  # not in the name of the file that holds it
    if place < 0 and (place := uri.rfind(image_id)) < 0:
        return None
    end = place + len(image_id)
    _, chain, rest = uri[end:].partition("::")
    return Root(uri[:place], chain + rest)


def under(root: Root, uri: str, image_id: str) -> str:
    """Move the URI of an image, or of a scene's tile, to where its archive lies now; a URI without the id stays."""
    then = root_of(uri, image_id)
    if then is None:
        return uri
    return root.before + uri[len(then.before) : len(uri) - len(then.chained)] + root.chained


def _open(archive: str) -> tuple[Any, str]:
    """Open file system and root path; without a listing cache, which would hold the listing and hide changes."""
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
    """Walk depth first; the folders that come next are listed meanwhile, by threads where the store bears that."""
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
    """Tell whether a local folder of an archive is reached by a symbolic link."""
    return os.path.realpath(folder) != str(Path(os.path.realpath(root)) / os.path.relpath(folder, root))


def _entries(fs: Any, folder: str) -> Iterable[Mapping[str, Any]]:
    """List what the store says of what is in a folder; of a symbolic link, what is said of where it leads."""
    if not isinstance(fs, LocalFileSystem):
        found: list[Mapping[str, Any]] = fs.ls(folder, detail=True)
        return found
    with os.scandir(folder or "/") as entries:
        return [_local_entry(entry) for entry in entries if not is_hidden(entry.name)]


def _local_entry(entry: os.DirEntry[str]) -> Mapping[str, Any]:
    """Describe a local entry. A broken link counts as a file, to fail when read; what is no image is not looked at."""
    try:
        is_folder = entry.is_dir()
    except OSError:  # a link that leads in a circle, or to where nobody may look
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
    except FileNotFoundError:  # removed since the folder was opened
        return {"name": entry.path, "type": "other"}


def _followed(fs: Any, info: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a symbolic link, under the link's name; a broken one stays a file, to fail when it is read."""
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
    r"""Make a path text that a table can hold: bytes that are not UTF-8 become \xNN (the file then fails)."""
    return path if path.isascii() else path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def is_hidden(path: str) -> bool:
    """Say whether a file is left out of listings: it or a folder around it has a dot in front, or is in `_SKIPPED`.

    Args:
        path: below the folder that is listed, with /; what that folder itself is called does not matter.
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

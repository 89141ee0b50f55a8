"""Open rasters to read windows of them, on any store; a composite is opened as one raster made of its bands' files."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, BinaryIO, Final, Self

import rasterio

from rsir_core.errors import ImageError
from rsir_core.imagery.composite import Channel, Composite
from rsir_core.imagery.composite_vrt import OpenBand, vrt_of
from rsir_core.imagery.rgb import GDAL, quiet, refusal, refused
from rsir_core.imagery.vrt_file import MAX_BYTES, is_vrt, sources_of
from rsir_core.storage.reading import open_file, read_file, reading

TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_2000: Final = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
DRIVERS: Final = ((TIFF, "GTiff"), (JPEG_2000, "JP2OpenJPEG"))  # formats that can be read by windows

_OPENED: Final = "scene"  # the only file name that GDAL can open, but for file0, file1, … with a composite's bands
_IN_MESSAGE: Final = re.compile(r"\bfile(\d+)\b")  # as GDAL names one of them

Open = Callable[[], Any]  # a file of its own for GDAL


class SceneFormatError(ImageError):
    """A file's format cannot be read by windows."""


class _Handle:
    """Read a file for GDAL's callbacks, with its own position, because GDAL may open it more than once.

    It keeps the exceptions that reading raises, with the file's URI; GDAL would only report that reading failed.
    """

    def __init__(self, file: BinaryIO, uri: str, faults: list[tuple[str, Exception]], is_owner: bool = False) -> None:
        self._file, self._uri, self._faults, self._at, self._is_owner = file, uri, faults, 0, is_owner

    def read(self, size: int = -1) -> bytes:
        try:
            self._file.seek(self._at)
            data = self._file.read(size)
        except Exception as error:  # each store has its own family of errors; `open_scene` raises it again
            self._faults.append((self._uri, error))
            return b""
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = self._at + offset if whence == io.SEEK_CUR else self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        """Close the file, unless `open_scene` does."""
        if self._is_owner:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def open_scene(uri: str) -> Iterator[Any]:
    """Open a TIFF, a JPEG 2000, a composite or a VRT of such as a rasterio dataset; GDAL opens no other file.

    Raises:
        ImageError: also for errors in the body. Stage `read` as `reading.open_file` if the store fails, or kind
            `missing` if a composite lacks a band; stage `decode` with kind `unsupported` for other formats, or for
            bands that do not fit together, or `corrupt`.
    """
    if is_vrt(uri):
        with _open_vrt(uri) as dataset:
            yield dataset
        return
    composite = Composite.parse(uri)
    faults: list[tuple[str, Exception]] = []
    uris = [uri] if composite is None else list(dict.fromkeys(_present(channel, uri) for channel in composite.channels))
    with ExitStack() as stack, quiet(), rasterio.Env(**GDAL):
        files = [_file(stack, file_uri, faults) for file_uri in uris]
        with _explained(uri, uris, faults):
            names = {f"file{n}": opened for n, (opened, _) in enumerate(files)}
            if composite is None:
                opened, driver = files[0]
            else:
                bands = _open_bands(stack, composite, uris, [driver for _, driver in files], names)
                opened, driver = partial(io.BytesIO, vrt_of(bands, uri)), "VRT"
            with _dataset(_OPENED, driver, {_OPENED: opened, **names}) as dataset:
                yield dataset


@contextmanager
def _open_vrt(uri: str) -> Iterator[Any]:
    """Open a VRT; each of its sources is opened, and must be a TIFF or JPEG 2000, when a window needs it."""
    faults: list[tuple[str, Exception]] = []
    data, uris = sources_of(read_file(uri, MAX_BYTES), uri)
    names: dict[str, Open] = {f"file{n}": partial(_source, source, faults) for n, source in enumerate(uris)}
    names[_OPENED] = partial(io.BytesIO, data)
    with quiet(), rasterio.Env(**GDAL), _explained(uri, uris, faults), _dataset(_OPENED, "VRT", names) as dataset:
        yield dataset


def _source(uri: str, faults: list[tuple[str, Exception]]) -> _Handle:
    try:
        with ExitStack() as stack:
            _file(stack, uri, faults)  # to see what it is
        return _Handle(open_file(uri), uri, faults, is_owner=True)
    except ImageError as error:
        faults.append((uri, error))
        raise FileNotFoundError(uri) from error


@contextmanager
def _explained(uri: str, uris: Sequence[str], faults: Sequence[tuple[str, Exception]]) -> Iterator[None]:
    """Convert what the body raises to ImageError, which names the file at fault.

    Args:
        uri: of the scene.
        uris: of its files, in the order of the names that GDAL has for them.
        faults: what reading them raised.
    """
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise refused(uri, "memory", "does not fit into memory; take smaller tiles") from error
    except Exception as error:  # broken files raise nearly every built-in error, and rasterio's own
        for file_uri, fault in faults:
            with reading(file_uri):
                raise fault from error
        named = _IN_MESSAGE.search(f"{error} {error.__cause__}")
        raise refusal(uris[int(named[1])] if named else uri, error, "take smaller tiles") from error


def _present(channel: Channel, uri: str) -> str:
    if channel.missing is not None:
        what = f"has no band {channel.missing}: when it was listed, there was none; choose others with --bands"
        raise ImageError(f"{uri} {what}", "read", "missing")
    return channel.uri


def _file(stack: ExitStack, uri: str, faults: list[tuple[str, Exception]]) -> tuple[Open, str]:
    """Open a file on its store; returns what gives GDAL a handle of it, and the driver of its format."""
    file = stack.enter_context(open_file(uri))
    with reading(uri):
        start = file.read(12)
    driver = next((driver for signatures, driver in DRIVERS if start.startswith(signatures)), None)
    if driver is None:
        what = "is no TIFF or JPEG 2000; only these can be read by windows"
        raise SceneFormatError(f"{uri} {what}", "decode", "unsupported")
    return partial(_Handle, file, uri, faults), driver


def _open_bands(
    stack: ExitStack, composite: Composite, uris: list[str], drivers: list[str], names: Mapping[str, Open]
) -> list[OpenBand]:
    """Open each file of a composite, to read its header."""
    datasets = []
    for n, (uri, driver) in enumerate(zip(uris, drivers, strict=True)):
        try:
            datasets.append(stack.enter_context(_dataset(f"file{n}", driver, names)))
        except rasterio.RasterioIOError as error:
            raise refusal(uri, error, "take smaller tiles") from error
    return [OpenBand(datasets[n := uris.index(ch.uri)], f"file{n}", ch) for ch in composite.channels]


def _dataset(name: str, driver: str, names: Mapping[str, Open]) -> Any:
    return rasterio.open(name, driver=driver, opener=partial(_open_named, names))


def _open_named(names: Mapping[str, Open], path: str, mode: str = "rb", **_: Any) -> Any:
    """Open one of the named files (rasterio first asks for `test`, to probe the callbacks), and no other file."""
    if path == "test":
        return next(iter(names.values()))()
    if path not in names:
        raise FileNotFoundError(path)
    return names[path]()

"""Read listed files into tables of pixels, in a sandboxed process, for jobs that describe, answer or train."""

import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from rsir_core import schemas
from rsir_core.arrays import Pixels
from rsir_core.errors import ImageError
from rsir_core.geo.acquisition_time import time_in
from rsir_core.imagery.decode import read_in_turn
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.sandbox import Reader, ReadFunction, memory_for

IMAGES_AT_ONCE: Final = 4  # read for a batch before their size is known
MAX_PIXEL_BYTES: Final = 256 * 1024**2  # of a batch, which is processed when it holds more, however few its images

_KEY: Final = [schemas.LISTING.field(name) for name in (schemas.IMAGE_ID, schemas.URI, schemas.ETAG)]
_READ_OF: Final = (schemas.IMAGE_ID, schemas.URI, schemas.ETAG, schemas.TIME)
READ: Final = pa.schema(
    [
        *_KEY,
        pa.field(schemas.HEIGHT, pa.int32()),
        pa.field(schemas.WIDTH, pa.int32()),
        *(schemas.EMBEDDINGS.field(name) for name in (schemas.NOTES, schemas.TIME, schemas.BBOX)),
        *schemas.ADDED_COLUMNS,
        pa.field("began", pa.float64()),  # unix seconds: when it was opened
        pa.field("reading", pa.float64()),  # seconds
        pa.field("pixels", pa.large_binary()),  # height × width × 3, uint8 RGB; null: a failure
        *schemas.FAILURE,
    ]
)


class ReadingOptions(Protocol):
    """Name the options of a job that reads images."""

    @property
    def max_pixels(self) -> int:
        """Pixels per image above which it is refused."""

    @property
    def image_seconds(self) -> float:
        """Seconds after which an image that is not read has failed."""


class Reading(NamedTuple):
    """Say how files are read: by which function, up to how many pixels and seconds each."""

    max_pixels: int
    seconds: float
    function: ReadFunction = read_in_turn

    @classmethod
    def of(cls, options: ReadingOptions) -> "Reading":
        """Build from a job's options."""
        return cls(options.max_pixels, options.image_seconds)


@cache
def reader_of(reading: Reading) -> Reader[Picture]:
    """Return this process's one reader of its kind, whatever tasks and actors run here."""
    return Reader(reading.function, reading.seconds, memory_for(reading.max_pixels))


def listing_of(uris: Sequence[str], **more: Any) -> pa.Table:
    """Make a listing that `read_files` takes of files that no archive lists: no etag, no time, the URI as image id.

    Args:
        uris: of the files.
        more: further columns.
    """
    etags, times = [""] * len(uris), pa.nulls(len(uris), schemas.UTC)
    return pa.table({schemas.IMAGE_ID: uris, schemas.URI: uris, schemas.ETAG: etags, schemas.TIME: times, **more})


def read_files(listing: pa.Table, reading: Reading) -> pa.Table:
    """Read and decode listed files; one row each, of schema `READ` and what else the listing has.

    Args:
        listing: at least `image_id`, `uri`, `etag` and `time`; columns that `READ` has not travel along.
        reading: how.
    """
    table = []
    began = time.time()
    pictures = reader_of(reading).read([(uri, reading.max_pixels) for uri in listing[schemas.URI].to_pylist()])
    each = (time.time() - began) / max(1, len(listing))
    keys = zip(*(listing[name].to_pylist() for name in _READ_OF), strict=True)
    for (image_id, uri, etag, listed), picture in zip(keys, pictures, strict=True):
        row: dict[str, Any] = {schemas.IMAGE_ID: image_id, schemas.URI: uri, schemas.ETAG: etag}
        row |= {"began": began, "reading": each}
        if isinstance(picture, ImageError):
            row |= {schemas.STAGE: picture.stage, schemas.KIND: picture.kind, schemas.MESSAGE: str(picture)}
        else:
            row |= _columns_of(picture)
            row[schemas.TIME] = listed or picture.time or time_in(uri)
        table.append(row)
    columns = {name: [row.get(name) for row in table] for name in READ.names}
    read = pa.table(columns, READ)
    for name in listing.column_names:
        if name not in READ.names:
            read = read.append_column(name, listing[name])
    return read


def pictures_of(uris: Sequence[str], reading: Reading) -> Iterator[Picture | ImageError]:
    """Read the pictures of files, or why they cannot be read, in their order; a few are held at a time."""
    for start in range(0, len(uris), IMAGES_AT_ONCE):
        yield from reader_of(reading).read([(uri, reading.max_pixels) for uri in uris[start : start + IMAGES_AT_ONCE]])


def read_batches(listing: pa.Table, reading: Reading, size: int) -> Iterator[pa.Table]:
    """Read listed files in their order, in batches of so many, or of fewer where they are large; see `read_files`."""
    start, held, pieces = 0, 0, list[pa.Table]()
    while start < len(listing):
        read = read_files(listing.slice(start, min(IMAGES_AT_ONCE, size - held)), reading)
        start, held = start + len(read), held + len(read)
        pieces.append(read)
        if held == size or sum(piece["pixels"].nbytes for piece in pieces) >= MAX_PIXEL_BYTES or start == len(listing):
            yield pa.concat_tables(pieces)
            held, pieces = 0, []


def _columns_of(picture: Picture) -> dict[str, Any]:
    height, width = picture.pixels.shape[:2]
    # A copy, which costs 0.02 ms: pyarrow (26.0) never lets go of a memoryview that it has made a value of.
    pixels = picture.pixels.tobytes()
    columns = {schemas.HEIGHT: height, schemas.WIDTH: width, schemas.NOTES: picture.notes, "pixels": pixels}
    columns |= {schemas.CELL: picture.cell, schemas.COVERED: picture.covered}
    if picture.window is not None:
        columns[schemas.WINDOW] = dict(zip(("x", "y", "width", "height"), picture.window.flatten(), strict=True))
    if picture.footprint is not None:
        columns[schemas.BBOX] = dict(zip(schemas.BBOX_FIELDS, picture.footprint.bbox, strict=True))
        columns |= {schemas.GEOMETRY: picture.footprint.polygon, schemas.CRS: picture.footprint.crs}
    return columns


def images_of(read: pa.Table) -> list[Pixels]:
    """Return the images H×W×3 of rows of schema `READ` that are no failures."""
    return [
        np.frombuffer(pixels.as_buffer(), np.uint8).reshape(height.as_py(), width.as_py(), 3)
        for pixels, height, width in zip(read["pixels"], read[schemas.HEIGHT], read[schemas.WIDTH], strict=True)
    ]

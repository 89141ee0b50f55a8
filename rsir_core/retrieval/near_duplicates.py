"""Images that are one picture twice: pixel by pixel, or up to its encoding.

Features only say which pairs to look at; pixels tell. On UC Merced the nearest other image lies nearer to half of the
images than they move when they are saved at JPEG quality 75.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from rsir_core import schemas
from rsir_core.arrays import Floats, Pixels
from rsir_core.errors import ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.picture import Picture
from rsir_core.imagery.rgb import MAX_PIXELS
from rsir_core.retrieval.query import Likeness, Ranked
from rsir_core.search.distance import NEAR
from rsir_core.search.ranking_options import COMPARED

NEIGHBOURS: Final = 100  # nearest images that are considered, per image
SIDE: Final = 32  # of the thumbnails that are compared, in pixels
# Grey levels, root mean square, at most: on UC Merced, quality 75 at 80 % of the size moves 98 % of such small pictures
# by less, and the two most alike of different pictures are 4.9 apart.
SAME: Final = 4.0
READERS: Final = 4  # threads: reading is mostly waiting, or decoding outside the interpreter's lock

Read = Callable[[Sequence[str]], Iterable[Picture | ImageError]]  # of URIs, in their order


class PictureSignature(NamedTuple):
    """Keep what is needed of a picture to compare it."""

    digest: bytes  # of its pixels and shape
    small: Pixels  # SIDE×SIDE×3


class Pair(NamedTuple):
    """Two images of one picture, by their rows."""

    first: int
    second: int
    kind: Likeness
    difference: float  # grey levels, root mean square, at SIDE×SIDE; 0: identical


def signature_of(pixels: Pixels) -> PictureSignature:
    """Compute what is compared of H×W×3 pixels: each small pixel is the mean of those that it stands for."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return PictureSignature(
        digest.digest(), np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX))
    )


def near_pairs(feature: Floats) -> list[tuple[int, int]]:
    """Find rows (i < j) of (n, K) that may be one picture: at most NEAR apart, of each row the NEIGHBOURS nearest."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 -- whoever compares a query's pictures does without

    within = np.nextafter(NEAR, np.inf)  # the tree leaves its bound out
    _, near = cKDTree(feature).query(feature, NEIGHBOURS + 1, distance_upper_bound=within)
    rows = np.repeat(np.arange(len(feature)), NEIGHBOURS + 1).reshape(near.shape)
    pairs = np.stack([np.minimum(rows, near), np.maximum(rows, near)], axis=-1)
    return [(i, j) for i, j in np.unique(pairs[(near < len(feature)) & (near != rows)], axis=0).tolist()]


def read_here(
    uris: Sequence[str], max_pixels: int = MAX_PIXELS, readers: int = READERS
) -> Iterator[Picture | ImageError]:
    """Read images in this process, `readers` of them at once; of each the picture, or why it cannot be read."""

    def read(uri: str) -> Picture | ImageError:
        try:
            return read_picture(uri, max_pixels)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(readers) as pool:
        yield from pool.map(read, uris)


def signatures_of(uris: Sequence[str], read: Read = read_here) -> Iterator[PictureSignature | ImageError]:
    """Compute the signature of each image, or why it cannot be read."""
    for found in read(uris):
        yield found if isinstance(found, ImageError) else signature_of(found.pixels)


def compare(one: PictureSignature, other: PictureSignature) -> tuple[Likeness, float]:
    """Compare two pictures: what they are to each other, and how far apart, see `Pair`."""
    if one.digest == other.digest:
        return "identical", 0.0
    difference = float(np.sqrt(np.mean((one.small.astype(np.float64) - other.small) ** 2)))
    return "re-encoded" if difference <= SAME else "different", difference


def kinds_of(pixels: Pixels, uris: Sequence[str], read: Read) -> list[Likeness | None]:
    """Compare each of the images with a picture, H×W×3; `read` reads them.

    None: it cannot be read any more, or is behind the first `COMPARED`, which are not looked at.
    """
    own = signature_of(pixels)
    looks = signatures_of(uris[:COMPARED], read)
    kinds = [None if isinstance(look, ImageError) else compare(own, look)[0] for look in looks]
    return [*kinds, *[None] * (len(uris) - len(kinds))]


def same_pictures(pairs: Sequence[tuple[int, int]], looks: Mapping[int, PictureSignature]) -> list[Pair]:
    """Keep those of the pairs that are one picture; rows without a signature are in none."""
    found = []
    for first, second in pairs:
        if first not in looks or second not in looks:
            continue
        kind, difference = compare(looks[first], looks[second])
        if kind != "different":
            found.append(Pair(first, second, kind, difference))
    return found


def groups(pairs: Sequence[Pair]) -> list[list[int]]:
    """Group rows that are one picture, through any number of pairs; each group and all of them in order."""
    from scipy.sparse import coo_array  # noqa: PLC0415
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    if not pairs:
        return []
    ends = np.array([(pair.first, pair.second) for pair in pairs])
    n = int(ends.max()) + 1
    _, label = connected_components(coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (n, n)), directed=False)
    members = [np.flatnonzero(label == name).tolist() for name in np.unique(label[ends[:, 0]])]
    return sorted(members)


def with_kinds(ranked: Ranked, picture: Picture | None, max_pixels: int) -> Ranked:
    """Add to each row what its picture is to the query's, which is read here if it is None and indexed."""
    read = partial(read_here, max_pixels=max_pixels)
    uris = ranked.rows[schemas.URI].to_pylist()
    if picture is None and ranked.query.uri is not None:
        (found,) = read([ranked.query.uri])
        picture = found if isinstance(found, Picture) else None
    kinds = [None] * len(uris) if picture is None else kinds_of(picture.pixels, uris, read)
    field = schemas.RESULTS.field(schemas.SAME_PICTURE)
    return ranked._replace(rows=ranked.rows.append_column(field, pa.array(kinds, field.type)))

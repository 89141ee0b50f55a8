"""The describing half of the backend: models of an index's versions in this process."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from rsir_core.backend.batch import BATCH, GPU_BATCH, Batcher, each
from rsir_core.backend.protocol import CompareRequest, DescribeRequest
from rsir_core.backend.version_cache import VersionCache, load_newest
from rsir_core.imagery.picture import PROBE, Picture
from rsir_core.models.regions import DrawnBox
from rsir_core.retrieval.describing import QueryDescriber, with_preview
from rsir_core.retrieval.query import Descriptor, Likeness
from rsir_core.retrieval.served_version import read_version

CONCURRENT_DECODES: Final = 2  # each may briefly take 55 bytes per allowed pixel: 4 bands of float32 in one block
LARGE_PICTURE: Final = 12_000_000  # bytes of pixels; few of these may wait at the same time


class DescriberLoader:
    """Load the describers of versions; versions with the same bundle and PCA share one."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        self._index, self._more = index, (max_pixels, device)
        self._loaded: WeakValueDictionary[tuple[str, str], QueryDescriber] = WeakValueDictionary()

    def __call__(self, version: int) -> QueryDescriber:
        """Return the describer of a version."""
        served = read_version(self._index, version)
        key = served.bundle, served.pca
        describer = self._loaded.get(key)
        if describer is None:
            describer = self._loaded[key] = QueryDescriber(served, *self._more)
        return describer


class ReadPicture(NamedTuple):
    """Hold a picture to describe, and the describer of the requested version."""

    describer: QueryDescriber
    picture: Picture
    box: DrawnBox | None = None
    preview: bool = False


def describe_together(read: list[ReadPicture]) -> list[Descriptor]:
    """Describe images, one descriptor each; those for one describer in one batch."""
    found: dict[int, Descriptor] = {}
    for describer in {id(one.describer): one.describer for one in read}.values():
        mine = [i for i, one in enumerate(read) if one.describer is describer]
        pictures, boxes, shown = zip(*(read[i][1:] for i in mine), strict=True)
        found |= zip(mine, describer.describe(list(pictures), list(boxes), list(shown)), strict=True)
    return [found[i] for i in range(len(read))]


class DescriberWorker:
    """Describe pictures on one device, where full pictures stay; a `protocol.Describer`."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        self._versions = VersionCache(DescriberLoader(index, max_pixels, device))
        load_newest(self._versions, index)
        self._thread = ThreadPoolExecutor(1)  # so that the event loop goes on
        self._decoders = ThreadPoolExecutor(CONCURRENT_DECODES)
        self._decoding = asyncio.Semaphore(CONCURRENT_DECODES)  # also of large pictures, until they are described
        self._comparer = ThreadPoolExecutor(1)  # which uploads need not wait for
        self._batch = Batcher(self._describe_together, BATCH if device == "cpu" else GPU_BATCH)

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions; see `VersionCache.hold`."""
        return await asyncio.to_thread(self._versions.hold, versions)

    async def describe(self, asked: list[DescribeRequest]) -> list[Descriptor | Exception]:
        """Describe images, each as well as it can be; those that come at the same time are described together."""
        return await asyncio.gather(*(self._describe(request) for request in asked))

    async def compare(self, asked: list[CompareRequest]) -> list[list[Likeness | None] | Exception]:
        """Compare pictures; see `QueryDescriber.compare`."""
        return await asyncio.get_running_loop().run_in_executor(self._comparer, each, self._compare, asked)

    async def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        if self._versions.newest.has_backbone:
            await self._batch(ReadPicture(self._versions.newest, PROBE))

    async def _describe(self, request: DescribeRequest) -> Descriptor | Exception:
        loop = asyncio.get_running_loop()
        try:
            if isinstance(request.source, tuple):
                return await asyncio.to_thread(self._versions.get(request.version).of_vector, request.source)
            async with self._decoding:  # what a few bytes may become is known once it is decoded
                read = await loop.run_in_executor(self._decoders, self._read, request, request.source)
                is_large = read.picture.pixels.size > LARGE_PICTURE
                described = await self._batch(read) if is_large else None
            described = described or await self._batch(read)
            return await asyncio.to_thread(with_preview, described, read.picture) if request.preview else described
        except Exception as error:  # this request's alone
            return error

    def _read(self, request: DescribeRequest, source: bytes | str) -> ReadPicture:
        describer = self._versions.get(request.version)
        return ReadPicture(describer, describer.read(source, request.box), request.box, request.preview)

    def _compare(self, request: CompareRequest) -> list[Likeness | None]:
        return self._versions.get(request.version).compare(request.source, request.uris)

    async def _describe_together(self, read: list[ReadPicture]) -> list[Descriptor]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, describe_together, read)

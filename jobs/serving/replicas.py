"""What runs in the replicas of describer and searchers: thin calls around `query` and `answer`."""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import torch

from jobs.serving.answer import Answerer
from jobs.serving.batch import Batcher
from jobs.serving.query import Descriptor, QueryDescriber, edition_of, refusal_of, with_preview
from jobs.serving.version_cache import VersionCache
from rsir_core.errors import BundleError, ImageError, QueryError, StorageError, TableError
from rsir_core.imagery.decode import Picture
from rsir_core.index.index import Index
from rsir_core.models.allocator import keep_activations
from rsir_core.models.regions import Box
from rsir_core.retrieval.near_duplicates import Kind

P = ParamSpec("P")
T = TypeVar("T")
Call = tuple[int, str, tuple[Any, ...]]  # version, method of its answerer, arguments

BATCH: Final = 8  # on one CPU thread more would only make the first of them wait
DECODED_AT_ONCE: Final = 2  # each takes up to 55 bytes per allowed pixel for a moment: 4 bands of float32 in one block
LARGE: Final = 12_000_000  # bytes of a picture, of which many must not wait side by side
TRIED: Final = 4  # versions, at most, of which the newest that can be loaded is looked for
PROBE: Final = Picture(np.zeros((32, 32, 3), np.uint8), None)


class Refusal(NamedTuple):
    """Carry a QueryError as a value: Serve logs an exception that leaves a replica as a fault, with its traceback."""

    message: str
    status: int


def refusing(call: Callable[P, T]) -> Callable[P, T | Refusal]:
    """Give the call's QueryError as its result."""

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T | Refusal:
        """Call it, and return what it refuses."""
        try:
            return call(*args, **kwargs)
        except ImageError as error:
            return Refusal(error.message, refusal_of(error).status)
        except QueryError as error:
            return Refusal(error.message, error.status)
        except (TableError, BundleError) as error:  # a version that this replica had not loaded, and cannot any more
            return Refusal(str(error), 404)
        except StorageError as error:  # it may answer again
            return Refusal(str(error), 503)

    return wrapped


class Describers:
    """Loads describers for a shelf; versions of the same bundle and PCA share one."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        self._index, self._more = index, (max_pixels, device)
        self._loaded: WeakValueDictionary[tuple[str, str], QueryDescriber] = WeakValueDictionary()

    def __call__(self, version: int) -> QueryDescriber:
        """Return the describer of a version."""
        edition = edition_of(self._index, version)
        key = edition.bundle, edition.pca
        describer = self._loaded.get(key)
        if describer is None:
            describer = self._loaded[key] = QueryDescriber(edition, *self._more)
        return describer


def load_newest(shelf: VersionCache[Any], index: str) -> None:
    """Load the newest version that can be, until the ingress says which ones it wants.

    The newest may be broken, and an older one served for that: a replica that takes another's place must start then.

    Raises:
        Exception: what the newest raises, where no other one of the last can be loaded.
    """
    newest = Index(index).version()
    for version in range(newest, max(newest - TRIED, 0), -1):
        if not shelf.hold([version]):
            return
    shelf.get(newest)


class DescribeRequest(NamedTuple):
    """A picture to describe, with what the version that is asked has for it."""

    describer: QueryDescriber
    picture: Picture
    box: Box | None
    preview: bool


def describe_together(asked: list[DescribeRequest]) -> list[Descriptor]:
    """Describe images, one descriptor each; those for one describer in one batch."""
    found: dict[int, Descriptor] = {}
    for describer in {id(one.describer): one.describer for one in asked}.values():
        mine = [i for i, one in enumerate(asked) if one.describer is describer]
        pictures, boxes, shown = zip(*(asked[i][1:] for i in mine), strict=True)
        found |= zip(mine, describer.describe(list(pictures), list(boxes), list(shown)), strict=True)
    return [found[i] for i in range(len(asked))]


class ToDescribe(NamedTuple):
    """An upload, or the URI of an indexed image, and what is wanted of it."""

    version: int
    source: bytes | str
    box: Box | None
    preview: bool


class CompareRequest(NamedTuple):
    """An upload, or the URI of an indexed image, and the URIs of those that may show the same picture."""

    version: int
    source: bytes | str
    uris: list[str]


class DescriberReplica:
    """Bundles on one device. Full pictures stay in here."""

    def __init__(self, index: str, max_pixels: int, device: str) -> None:
        torch.set_num_threads(1)
        keep_activations()
        self._shelf = VersionCache(Describers(index, max_pixels, device))
        load_newest(self._shelf, index)
        self._thread = ThreadPoolExecutor(1)  # so that the event loop goes on
        self._decoders = ThreadPoolExecutor(DECODED_AT_ONCE)
        self._held = asyncio.Semaphore(DECODED_AT_ONCE)  # large pictures, until they are described
        self._comparer = ThreadPoolExecutor(1)  # which uploads need not wait for
        self._batch = Batcher(self._describe_together, BATCH)

    async def describe(self, wanted: list[ToDescribe]) -> list[Descriptor | Refusal | BaseException]:
        """Describe images, each as well as it can be; those that come at the same time are described together."""
        return await asyncio.gather(*(self._describe(one) for one in wanted), return_exceptions=True)

    async def compare(self, wanted: CompareRequest) -> list[Kind | None] | Refusal:
        """Compare pictures; see `QueryDescriber.compare`."""
        return await asyncio.get_running_loop().run_in_executor(self._comparer, self._compare, *wanted)

    async def probe(self, version: int) -> Descriptor:
        """Describe a tiny image in the same way as others."""
        describer = await asyncio.to_thread(self._shelf.get, version)
        return await self._batch(DescribeRequest(describer, PROBE, None, False))

    async def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions; see `VersionCache.hold`."""
        return await asyncio.to_thread(self._shelf.hold, versions)

    async def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        await self._batch(DescribeRequest(self._shelf.newest, PROBE, None, False))

    async def _describe(self, wanted: ToDescribe) -> Descriptor | Refusal:
        loop = asyncio.get_running_loop()
        async with self._held:  # what a few bytes may become is known once it is decoded
            asked = await loop.run_in_executor(self._decoders, self._read, *wanted)
            if isinstance(asked, Refusal):
                return asked
            is_large = asked.picture.pixels.size > LARGE
            described = await self._batch(asked) if is_large else None
        described = described or await self._batch(asked)
        return await asyncio.to_thread(with_preview, described, asked.picture) if asked.preview else described

    @refusing
    def _read(self, version: int, source: bytes | str, box: Box | None, preview: bool) -> DescribeRequest:
        describer = self._shelf.get(version)
        return DescribeRequest(describer, describer.read(source, box), box, preview)

    @refusing
    def _compare(self, version: int, source: bytes | str, uris: list[str]) -> list[Kind | None]:
        return self._shelf.get(version).compare(source, uris)

    async def _describe_together(self, asked: list[DescribeRequest]) -> list[Descriptor]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, describe_together, asked)


class SearcherReplica:
    """The rows of an index, or a share of them."""

    def __init__(self, index: str, part: int, parts: int) -> None:
        self._shelf = VersionCache(lambda version: Answerer(edition_of(index, version), part, parts))
        load_newest(self._shelf, index)

    def call(self, asked: list[Call]) -> list[Any]:
        """Call methods of the answerer, each of which may fail alone."""
        return [self._attempt(*one) for one in asked]

    def hold(self, versions: list[int]) -> dict[int, str]:
        """Hold these versions; see `VersionCache.hold`."""
        return self._shelf.hold(versions)

    def check_health(self) -> None:
        """Raise if queries fail; called by Ray Serve, which replaces a replica that fails or does not answer."""
        self._shelf.newest.probe()

    def _attempt(self, version: int, method: str, args: tuple[Any, ...]) -> Any:
        try:
            return self._call(version, method, args)
        except Exception as error:  # raised where it was asked for; others in the call have their answers
            return error

    @refusing
    def _call(self, version: int, method: str, args: tuple[Any, ...]) -> Any:
        return getattr(self._shelf.get(version), method)(*args)

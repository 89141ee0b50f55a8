"""STAC: read static catalogues and item collections as archives, and write search results as items."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fsspec
import pystac
from pystac.stac_io import DefaultStacIO

from rsir_core.archive.hrefs import href_of
from rsir_core.archive.items import ItemSelection, image_file
from rsir_core.archive.kinds import kind_of
from rsir_core.archive.listing import ImageFile
from rsir_core.archive.stac_api import api_items
from rsir_core.errors import ArchiveError

CONCURRENT_ITEMS: Final = 16  # read at once; each mostly waits for its store
ITEMS_AHEAD: Final = 4 * CONCURRENT_ITEMS  # held, read or not
Source = pystac.Item | str  # an item, or its href


class _Files(DefaultStacIO):
    """Read documents for pystac by fsspec, from any store and with its usual credentials."""

    def read_text_from_href(self, href: str) -> str:
        with fsspec.open(href, "rt", encoding="utf-8") as file:
            text: str = file.read()
        return text


def list_items(catalogue: str, wanted: ItemSelection) -> Iterator[ImageFile]:
    """List the selected asset, or bands, of each selected item of a catalogue, with its time.

    The catalogue is a document (catalogue, collection or item collection), an API, or stac-geoparquet.

    The image id combines the ids of collection and item. The etag is the checksum or time of update in the catalogue,
    else the store's etag. Only a few items are held at a time. An item that several catalogues link to counts once.

    Raises:
        ArchiveError: the catalogue or an item cannot be read, or an item has no such asset; two items have one id; no
        item
            is selected; a remote catalogue names a local file; the document is one page of several.
    """
    catalogue = catalogue if "://" in catalogue else str(Path(catalogue).absolute())
    seen: set[str] = set()
    files = _Files()
    for file in _ahead(lambda source: _listed(source, files, wanted, catalogue), _items(catalogue, files, wanted)):
        if file is None:
            continue
        if file.image_id in seen:
            raise ArchiveError(f"{catalogue} has two items {file.image_id!r}; give one of them another id")
        seen.add(file.image_id)
        yield file
        if len(seen) == wanted.max_items:
            return
    if not seen:
        raise ArchiveError(
            f"{catalogue} has no item that is wanted; check --start, --end, --bbox, --collections and --cql2"
        )


def _ahead(do: Callable[[Source], ImageFile | None], sources: Iterable[Source]) -> Iterator[ImageFile | None]:
    """Map a function over sources in order, with threads that run a limited number of items ahead."""
    under_way: deque[Future[ImageFile | None]] = deque()
    with ThreadPoolExecutor(CONCURRENT_ITEMS) as threads:
        for source in sources:
            under_way.append(threads.submit(do, source))
            if len(under_way) == ITEMS_AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _items(catalogue: str, files: _Files, wanted: ItemSelection) -> Iterator[Source]:
    """Yield the items of a catalogue of any kind, or their hrefs."""
    try:
        if (kind := kind_of(catalogue)) == "api":
            yield from api_items(catalogue, wanted)
            return
        if kind == "geoparquet":
            from rsir_core.archive.stac_geoparquet import parquet_items  # noqa: PLC0415 -- brings pandas

            yield from parquet_items(catalogue, wanted)
            return
        document = files.read_json(catalogue)
        if document.get("type") == "FeatureCollection":
            if any(link.get("rel") == "next" for link in document.get("links", [])):
                raise ArchiveError(f"{catalogue} is one page of several (it links to the next); save all in one file")
            yield from (_item(feature, i, catalogue) for i, feature in enumerate(document.get("features") or [], 1))
            return
        top = pystac.read_dict(document, href=catalogue, stac_io=files)
        if isinstance(top, pystac.Item):
            yield top
        else:
            yield from _links(top, {catalogue})
    except ArchiveError:
        raise
    except Exception as error:  # stores have their own errors, and pystac raises any on broken documents
        raise _unreadable(catalogue, error) from error


def _item(feature: Any, number: int, catalogue: str) -> pystac.Item:
    """Parse an item of an item collection.

    Raises:
        ArchiveError: it is not a valid item; the message names it.
    """
    name = feature.get("id") if isinstance(feature, dict) else None
    try:
        return pystac.Item.from_dict(feature)
    except Exception as error:  # pystac raises any error on broken documents
        said = f"item {name!r}" if name else f"feature {number}"
        raise _unreadable(f"{catalogue}: {said} ({number} of its features)", error) from error


def _links(catalogue: Any, seen: set[str]) -> Iterator[str]:
    """Yield the hrefs of the items of a catalogue and its children, each once."""
    for link in catalogue.get_item_links():
        if (href := link.get_absolute_href()) not in seen:
            seen.add(href)
            yield href
    for child in catalogue.get_children():
        if (href := child.get_self_href()) not in seen:
            seen.add(href)
            yield from _links(child, seen)


def _listed(source: Source, files: _Files, wanted: ItemSelection, catalogue: str) -> ImageFile | None:
    """Return the selected asset of an item; None if the item is not selected."""
    try:
        item = pystac.Item.from_file(source, files) if isinstance(source, str) else source
        return image_file(item, wanted, catalogue) if wanted.takes(item) else None
    except ArchiveError:
        raise
    except Exception as error:  # as above
        raise _unreadable(source if isinstance(source, str) else f"{catalogue}: item {source.id}", error) from error


def _unreadable(what: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"{what} cannot be read as STAC: {type(error).__name__}: {error}; check the address and the document"
    )


def item_of(result: dict[str, Any]) -> dict[str, Any]:
    """Convert a search result to a STAC item; without a time, it gets the span up to now, as STAC requires."""
    place, bbox = result.pop("geometry"), result.pop("bbox")
    time: dict[str, Any] = {"datetime": result.pop("time")}
    if time["datetime"] is None:
        time |= {"start_datetime": "0001-01-01T00:00:00Z", "end_datetime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    image_id, uri = result.pop("image_id"), result.pop("uri")
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "id": image_id,
        "geometry": place,
        **({"bbox": [bbox[edge] for edge in ("xmin", "ymin", "xmax", "ymax")]} if bbox else {}),
        "properties": {**time, **{f"rsir:{name}": value for name, value in result.items()}},
        "links": [],
        "assets": {"image": {"href": href_of(uri), "roles": ["data"]}},
    }

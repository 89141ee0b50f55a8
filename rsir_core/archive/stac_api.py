"""Search a STAC API, page by page."""

import json
import warnings
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pystac

from rsir_core.archive.items import ItemSelection
from rsir_core.archive.kinds import api_parts
from rsir_core.errors import ArchiveError

PAGE: Final = 200  # items asked for at once
_SECONDS: Final = 60  # for an answer
_RETRIES: Final = 8  # of an answer that says to come later; the waits double from a second, if it does not say when
_TRY_AGAIN: Final = (429, 502, 503, 504)


def api_items(url: str, wanted: ItemSelection) -> Iterator[pystac.Item]:
    """Yield the items of a collection or a search, as the API finds them; only one page is held.

    Answers that the API is busy are waited for, as long as its `Retry-After` says.

    Args:
        url: of a collection (`…/collections/ID`) or of a search (`…/search`, with or without parameters).
        wanted: its times, bounds, collections and filter are asked for.

    Raises:
        ArchiveError: the API does not answer, refuses, or knows no filters.
    """
    from pystac_client import Client  # noqa: PLC0415 -- other archives do without
    from pystac_client.exceptions import APIError  # noqa: PLC0415

    root, asked = _search_of(url, wanted)
    seen: set[tuple[str | None, str]] = set()
    try:
        with warnings.catch_warnings():  # about classes of conformance that an API does not name
            warnings.simplefilter("ignore")
            client = Client.open(root, stac_io=_connection())
            if "filter" in asked and not client.conforms_to("FILTER"):
                raise ArchiveError(f"{root} knows no filters by CQL2; leave out --cql2")
            for found in client.search(**asked).items_as_dicts():
                key = found.get("collection"), found["id"]
                if key not in seen:  # pages shift if items are added meanwhile
                    seen.add(key)
                    yield pystac.Item.from_dict(found, preserve_dict=False)
    # pystac-client's own, where an API lacks item search, and what it or pystac raises of an answer that is no STAC.
    except (APIError, NotImplementedError, KeyError, ValueError, TypeError, pystac.STACError) as error:
        what = "cannot be searched as a STAC API; check the address, --collections and --cql2"
        raise ArchiveError(f"{url} {what}: {type(error).__name__}: {error}") from error


def _connection() -> Any:
    from pystac_client.stac_api_io import StacApiIO  # noqa: PLC0415 -- as above
    from urllib3.util import Retry  # noqa: PLC0415

    again = Retry(_RETRIES, connect=2, backoff_factor=0.5, status_forcelist=_TRY_AGAIN, allowed_methods=None)
    return StacApiIO(timeout=_SECONDS, max_retries=again)


def _search_of(url: str, wanted: ItemSelection) -> tuple[str, dict[str, Any]]:
    """Return the API's root and the arguments of the search: the URL's own, and the selection's above them."""
    parts = api_parts(url)
    if parts is None:
        raise ArchiveError(f"{url} is no collection or search of a STAC API; it ends in /collections/ID or /search")
    root, collection = parts
    given = {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}
    asked: dict[str, Any] = {}
    for name in ("collections", "ids", "bbox"):
        if name in given:
            asked[name] = given.pop(name).split(",")
    asked |= {name: given.pop(name) for name in ("datetime", "filter") if name in given}
    if unknown := set(given) - {"limit", "filter-lang"}:
        what = f"the search has the parameter {min(unknown)}, which is not known; give --cql2 in its place"
        raise ArchiveError(f"{url}: {what}")
    if collection is not None:
        asked["collections"] = [collection]
    return root, asked | _asked_for(wanted)


def _asked_for(wanted: ItemSelection) -> dict[str, Any]:
    asked: dict[str, Any] = {"limit": PAGE}
    if wanted.collections is not None:
        asked["collections"] = list(wanted.collections)
    if wanted.bbox is not None:
        asked["bbox"] = list(wanted.bbox)
    if wanted.start is not None or wanted.end is not None:
        asked["datetime"] = "/".join(time.isoformat() if time else ".." for time in (wanted.start, wanted.end))
    if wanted.cql2 is not None and wanted.cql2.lstrip().startswith("{"):
        asked |= {"filter": json.loads(wanted.cql2), "filter_lang": "cql2-json"}
    elif wanted.cql2 is not None:
        asked |= {"filter": wanted.cql2, "filter_lang": "cql2-text", "method": "GET"}
    return asked

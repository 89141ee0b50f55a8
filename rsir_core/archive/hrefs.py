"""Hrefs of STAC assets, and the files that they name: URIs in documents, names on storage."""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rsir_core.archive.listing import etag_of
from rsir_core.imagery.tiles import Tile

_ALLOWED: Final = "/:@!$&'()*+,;=~"  # in the path of a URI, beside letters, digits and -._


def href_of(uri: str) -> str:
    """Write the name of a file, or of a tile, as a URI: what URIs do not allow in names is percent-encoded."""
    if _is_http(uri):  # encoded already, and perhaps signed
        return uri
    scene, fragment = _scene_and_fragment(uri)
    protocol, mark, path = scene.partition("://") if "://" in scene else ("", "", scene)
    return f"{protocol}{mark}{quote(path, safe=_ALLOWED)}{fragment}"


def suffix_of(href: str) -> str:
    """Find the extension of the file that an href leads to, whatever else is in its name."""
    path = urlsplit(href).path if _is_http(href) else _scene_and_fragment(href)[0]
    return PurePosixPath(path).suffix


def without_marks(href: str) -> str:
    """Encode `#` and `?` in the name of an href's file, which pystac would take for a fragment and a query."""
    if _is_http(href):
        return href
    scene, fragment = _scene_and_fragment(href)
    return scene.replace("#", "%23").replace("?", "%3F") + fragment


def as_it_lies(href: str) -> str:
    """Find the file that an href names. The href is percent-encoded as URIs are; but one of just that name comes first.

    By HTTP the href goes to the server as it is.
    """
    if "%" not in href or _is_http(href):
        return href
    scene, fragment = _scene_and_fragment(href)
    return href if _is_there(scene) else unquote(scene) + fragment


def _is_http(href: str) -> bool:
    return href.startswith(("http:", "https:"))


def _scene_and_fragment(href: str) -> tuple[str, str]:
    """Split a tile's href into its scene's and the fragment behind it, which is empty for any other href."""
    tile = Tile.parse(href)
    return (href, "") if tile is None else (tile.scene, href[len(tile.scene) :])


def _is_there(uri: str) -> bool:
    try:
        etag_of(uri)
    except Exception:  # each store has its own family of errors
        return False
    return True

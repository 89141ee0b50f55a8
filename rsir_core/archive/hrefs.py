"""Convert between hrefs of STAC assets, which are URIs, and names of files on storage."""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rsir_core.archive.listing import etag_of
from rsir_core.imagery.composite import scene_end
from rsir_core.imagery.tile_uri import parse_tile
from rsir_core.storage.signing import SignedUri

_ALLOWED: Final = "/:@!$&'()*+,;=~"  # in the path of a URI, besides letters, digits and -._


def href_of(uri: str) -> str:
    """Percent-encode the name of a file or a tile as a URI."""
    if _is_http(uri):  # already encoded, and perhaps signed
        signed = SignedUri.parse(uri)
        return uri if signed is None else signed.url
    scene, fragment = _scene_and_fragment(uri)
    protocol, mark, path = scene.partition("://") if "://" in scene else ("", "", scene)
    return f"{protocol}{mark}{quote(path, safe=_ALLOWED)}{fragment}"


def suffix_of(href: str) -> str:
    """Return the extension of the file that an href names, without query and fragment."""
    path = urlsplit(href).path if _is_http(href) else _scene_and_fragment(href)[0]
    return PurePosixPath(path).suffix


def without_marks(href: str) -> str:
    """Encode `#` and `?` in a file name, which pystac would take for the start of a fragment or a query."""
    if _is_http(href):
        return href
    scene, fragment = _scene_and_fragment(href)
    return scene.replace("#", "%23").replace("?", "%3F") + fragment


def as_it_lies(href: str) -> str:
    """Return the name of the file that an href means: the href itself if such a file exists, else percent-decoded.

    HTTP hrefs are returned unchanged.
    """
    if "%" not in href or _is_http(href):
        return href
    scene, fragment = _scene_and_fragment(href)
    return href if _is_there(scene) else unquote(scene) + fragment


def _is_http(href: str) -> bool:
    return href.startswith(("http:", "https:")) or SignedUri.parse(href) is not None


def _scene_and_fragment(href: str) -> tuple[str, str]:
    """Split the href of a tile or a composite into the scene's and the fragment, which is empty for other hrefs."""
    tile = parse_tile(href)
    end = scene_end(href if tile is None else tile.scene)
    return href[:end], href[end:]


def _is_there(uri: str) -> bool:
    try:
        etag_of(uri)
    except Exception:  # each store has its own family of errors
        return False
    return True

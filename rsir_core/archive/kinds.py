"""Tell kinds of archives by their URIs, and what is chosen of one; nothing is opened, nothing heavy imported."""

import re
from typing import Final, Literal, NamedTuple

ArchiveKind = Literal["files", "document", "api", "geoparquet"]
SignerName = Literal["planetary-computer"]
_DOCUMENTS: Final = (".json", ".geojson")
_TABLES: Final = (".parquet", ".geoparquet")
_API: Final = re.compile(
    r"(?P<root>https?://[^?#]+?)/(?:search|collections/(?P<collection>[^/?#]+)(?:/items)?)/?(?:\?.*)?"
)


class BandChoice(NamedTuple):
    """Say which bands make an image.

    Attributes:
        names: of the bands to show as red, green and blue, or of the one to show as grey.
        stretch: the range, of physical values, that becomes 0 to 255; None: percentiles of each scene.
    """

    names: tuple[str, ...]
    stretch: tuple[float, float] | None = None


def kind_of(archive: str) -> ArchiveKind:
    """Tell what an archive is by its URI: a folder or a file of images, a STAC document or API, or stac-geoparquet."""
    name = archive.lower().rstrip("/")
    if name.endswith(_DOCUMENTS):
        return "document"
    if name.endswith(_TABLES):
        return "geoparquet"
    return "files" if api_parts(archive) is None else "api"


def api_parts(url: str) -> tuple[str, str | None] | None:
    """Split the URL of a STAC API's collection or search into root and collection; None for other URIs."""
    found = _API.fullmatch(url)
    return found and (found["root"], found["collection"])


def is_band_pattern(text: str) -> bool:
    """Tell whether a text has `{scene}`, and `{band}` once."""
    return "{scene}" in text and text.count("{band}") == 1

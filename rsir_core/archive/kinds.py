"""Tell kinds of archives by their URIs, and what is chosen of one; nothing is opened, nothing heavy imported."""

from typing import Final, Literal, NamedTuple

ArchiveKind = Literal["files", "items"]
_DOCUMENTS: Final = (".json", ".geojson")


class BandChoice(NamedTuple):
    """Say which bands make an image.

    Attributes:
        names: of the bands to show as red, green and blue, or of the one to show as grey.
        stretch: the range, of physical values, that becomes 0 to 255; None: percentiles of each scene.
    """

    names: tuple[str, ...]
    stretch: tuple[float, float] | None = None


def kind_of(archive: str) -> ArchiveKind:
    """Tell what an archive is by its URI: a folder or a file of images, or a STAC document."""
    return "items" if archive.lower().endswith(_DOCUMENTS) else "files"


def is_band_pattern(text: str) -> bool:
    """Tell whether a text has `{scene}`, and `{band}` once."""
    return "{scene}" in text and text.count("{band}") == 1

"""From STAC items to the files of an archive: which items are selected, and what is read of each."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import pystac
from pystac.utils import make_absolute_href

from rsir_core.archive.bands import composite_file
from rsir_core.archive.hrefs import as_it_lies, suffix_of, without_marks
from rsir_core.archive.item_bands import bands_in, channels_of
from rsir_core.archive.kinds import BandChoice
from rsir_core.archive.listing import EXTENSIONS, ImageFile, etag_of
from rsir_core.errors import ArchiveError, StorageError
from rsir_core.geo.bounding_box import BoundingBox, around_the_globe, meets
from rsir_core.imagery.composite import Channel
from rsir_core.storage.filesystem import links_of, one_line
from rsir_core.storage.signing import SignedUri, is_denied, without_signatures

MEDIA_TYPES: Final = ("image/tiff", "image/jp2", "image/jpeg", "image/png", "image/vnd.stac.geotiff")
ROLES: Final = ("visual", "data", "overview")  # of assets, in order of preference
TRIES: Final = 3  # to ask a store what it has of an asset
PAUSE: Final = 1.0  # seconds between them
# What does not pass: no such file, or an address that nothing opens.
_FOR_GOOD: Final = (FileNotFoundError, IsADirectoryError, NotADirectoryError, StorageError, ValueError)


@dataclass(frozen=True)
class ItemSelection:
    """Select items of a catalogue, and the asset to read of each; None selects all.

    Attributes:
        start: earliest acquisition time.
        end: latest acquisition time.
        bbox: box that the items' bounds must meet.
        collections: ids of allowed collections.
        asset: key of the asset to read; None: `visual`, else the only image of the best role.
        bands: bands that are read in place of one asset, from the assets that have them.
        cql2: of an API: filter in CQL2, as text or as JSON.
        max_items: how many items are taken.
        sign: name of the signer of the assets' URLs (see `storage.signing`).
        is_tiled: whether tiles are cut, which read bands of their own.
    """

    start: datetime | None = None
    end: datetime | None = None
    bbox: BoundingBox | None = None
    collections: tuple[str, ...] | None = None
    asset: str | None = None
    bands: BandChoice | None = None
    cql2: str | None = None
    max_items: int | None = None
    sign: str | None = None
    is_tiled: bool = False

    def takes(self, item: pystac.Item) -> bool:
        """Tell whether an item is selected; an item that lacks a property asked for is not."""
        if self.collections is not None and item.collection_id not in self.collections:
            return False
        first, last = span_of(item)
        if self.start is not None and (last is None or last < self.start):
            return False
        if self.end is not None and (first is None or first > self.end):
            return False
        return self.bbox is None or (item.bbox is not None and bool(meets(self.bbox, *_footprint(item))))


def image_file(item: pystac.Item, wanted: ItemSelection, catalogue: str) -> ImageFile:
    """Return what is read of an item: an asset, or the bands that were chosen, from one asset or several.

    Args:
        item: of a catalogue.
        wanted: the asset or the bands.
        catalogue: URI that relative hrefs start from, if the item has none of its own.

    Raises:
        ArchiveError: the item has no such asset, or none of the bands; a remote catalogue names a local file.
    """
    first, _ = span_of(item)
    channels = _channels(item, wanted)
    if channels is None:
        asset = _asset(item, wanted.asset)
        href = _place(asset, item, catalogue, wanted.sign)
        if wanted.bands is not None and not wanted.is_tiled:
            names = ", ".join(wanted.bands.names)
            raise ArchiveError(
                f"item {item.id} does not say which asset has the bands {names}, so {asset.href} would be read as it "
                "is; give --tile, --tile-metres or --grid as well, whose tiles have bands, or leave out --bands"
            )
        etag, size = _etag(asset, item, href)
        chosen = "" if wanted.asset is None else f"#{wanted.asset}"  # items often say only that something has changed
        return ImageFile(_id(item, href), href, f"{etag}@{first}{chosen}", size, first)
    assets = {channel.uri: item.assets[channel.uri] for channel in channels if channel.missing is None}
    places = {key: _place(asset, item, catalogue, wanted.sign) for key, asset in assets.items()}
    stored = [_etag(asset, item, places[key]) for key, asset in assets.items()]
    placed = [channel._replace(uri=places.get(channel.uri, channel.uri)) for channel in channels]
    found = composite_file(_id(item, next(iter(places.values()))), placed, stored, wanted.bands)
    return found._replace(etag=f"{found.etag}@{first}", time=first)


def _channels(item: pystac.Item, wanted: ItemSelection) -> list[Channel] | None:
    """Find the wanted bands in the item's assets, whose keys are the channels' URIs; None: one asset is read instead.

    Numbers and names of bands that no asset is described by are left to the one asset that is read, as with `--asset`.
    """
    if wanted.bands is None:
        return None
    images = {key: asset for key, asset in _images(item).items() if wanted.asset in (None, key)}
    channels = channels_of(images, wanted.bands.names)
    if channels is None and wanted.asset is None and (known := bands_in(images)):
        names = ", ".join(wanted.bands.names)
        raise ArchiveError(f"item {item.id} has none of the bands {names}; it has {known}; choose others with --bands")
    return channels


def _id(item: pystac.Item, href: str) -> str:
    name = item.id + suffix_of(href)
    return f"{item.collection_id}/{name}" if item.collection_id else name


def _place(asset: pystac.Asset, item: pystac.Item, catalogue: str, sign: str | None) -> str:
    """Return the URI of an asset's file, without a signature."""
    asset.href = without_marks(asset.href)
    href = asset.get_absolute_href() if item.get_self_href() else None
    href = href or make_absolute_href(asset.href, catalogue, start_is_dir=False)
    if _is_remote(catalogue) and not all(_is_remote(link) for link in links_of(href)):
        raise ArchiveError(f"{catalogue}: item {item.id} is the local file {href}; a remote catalogue may not name one")
    if sign is not None and href.startswith(("http:", "https:")):
        return str(SignedUri(sign, href.partition("?")[0]))
    return as_it_lies(href)


def _etag(asset: pystac.Asset, item: pystac.Item, href: str) -> tuple[str, int]:
    """Return etag and size of an asset: as the catalogue says, else as the store says."""
    more = asset.extra_fields
    said = more.get("file:checksum") or more.get("updated") or item.properties.get("updated")
    return (str(said), int(more.get("file:size") or -1)) if said else _as_stored(href)


def _is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith(("file:", "local:"))


def _as_stored(href: str, tries: int = TRIES) -> tuple[str, int]:
    """Ask a store for etag and size; an asset that can never be read becomes a failure when that is tried.

    So does one over HTTP whose server does not answer: fsspec says of each failure there that the file is missing.

    Raises:
        ArchiveError: the store does not answer now: assets that it has would count as changed.
    """
    try:
        return etag_of(href)
    except Exception as error:  # each store has its own family of errors
        if isinstance(error, _FOR_GOOD) or is_denied(error):
            return "unknown", -1
        if tries == 1:
            what = f"its store does not say whether it has changed ({type(error).__name__}: {one_line(error)})"
            raise ArchiveError(
                f"{without_signatures(href)}: {what}; check the network, then run the same command again"
            ) from error
    time.sleep(PAUSE)
    return _as_stored(href, tries - 1)


def _images(item: pystac.Item) -> dict[str, pystac.Asset]:
    """Return the assets that are images, by their keys."""
    return {
        name: asset
        for name, asset in item.assets.items()
        if (asset.media_type or "").startswith(MEDIA_TYPES) or suffix_of(asset.href).lower() in EXTENSIONS
    }


def _asset(item: pystac.Item, key: str | None) -> pystac.Asset:
    """Choose the asset to read."""
    images = _images(item)
    if (best := "visual" if key is None else key) in images:
        return images[best]
    if key is None:
        roles = ([name for name, asset in images.items() if role in (asset.roles or [])] for role in ROLES)
        several = next((names for names in roles if names), list(images))
        if len(several) == 1:
            return images[several[0]]
        if several:  # they may be separate bands, a mask or a DEM; only the user knows
            raise ArchiveError(f"item {item.id} has {len(several)} images ({', '.join(several)}); choose with --asset")
    raise ArchiveError(
        f"item {item.id} has no image asset {key or '`visual`, or of the role data'}; it has {', '.join(item.assets)}; "
        "choose one with --asset"
    )


def span_of(item: pystac.Item) -> tuple[datetime | None, datetime | None]:
    """Return the first and last acquisition time of an item."""
    if item.datetime is not None:
        return _utc(item.datetime), _utc(item.datetime)
    return _utc(item.common_metadata.start_datetime), _utc(item.common_metadata.end_datetime)


def _utc(time: datetime | None) -> datetime | None:
    return time and (time if time.tzinfo else time.replace(tzinfo=UTC))


def _footprint(item: pystac.Item) -> BoundingBox:
    """Return the bounds of an item, given as four numbers or six with heights; longitudes may exceed ±180.

    Raises:
        ArchiveError: the numbers are not degrees.
    """
    bbox = list(item.bbox or ())
    half = len(bbox) // 2
    try:
        found = around_the_globe(BoundingBox(bbox[0], bbox[1], bbox[half], bbox[half + 1]))
    except (IndexError, TypeError):
        found = None
    if found is None:
        raise ArchiveError(f"item {item.id} has the bbox {bbox}, which is none in degrees; correct it, or omit --bbox")
    return found

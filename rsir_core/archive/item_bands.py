"""Find bands by name among the assets of a STAC item, however the catalogue describes them.

Sentinel-2 and Landsat have a file per band, NAIP and PlanetScope one file with all of them. Bands are named by the key
of an asset (`B04`, `red`), by the name of a band in it, or by its common name, in `eo:bands` (STAC 1.0) or in `bands`
(STAC 1.1).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pystac

from rsir_core.imagery.composite import Channel, missing_channel

_FOR_THE_EYE: Final = {"visual", "overview", "thumbnail"}  # roles of assets whose samples are no measurements
_ALSO: Final = {"nir": "nir08"}  # Landsat's only near infrared


class _Band(NamedTuple):
    """Describe a band of an asset.

    Attributes:
        names: that it goes by, in lower case: its asset's key, its own name and its common name; empty: none.
        order: of preference among bands of one name; smaller is better.
        channel: with the asset's key for its URI.
    """

    names: tuple[str, str, str]
    order: tuple[bool, float, int]
    channel: Channel


def channels_of(assets: Mapping[str, pystac.Asset], names: Sequence[str]) -> list[Channel] | None:
    """Find bands by their names; the URI of each channel is the key of its asset. None: there is none of them.

    Of several bands of a name, one of an asset that is not for display (`visual`) and of the finest pixels is taken.

    Args:
        assets: the images of an item.
        names: of the bands.
    """
    bands = list(_bands(assets))
    found = [_find(bands, name) for name in names]
    if all(channel is None for channel in found):
        return None
    return [channel or missing_channel(name) for channel, name in zip(found, names, strict=True)]


def bands_in(assets: Mapping[str, pystac.Asset]) -> str:
    """List the names of all bands that the assets are described by; empty if they are not."""
    names = [band.names[2] or band.names[1] for band in _bands(assets)]
    return ", ".join(dict.fromkeys(name for name in names if name))


def _find(bands: Sequence[_Band], wanted: str) -> Channel | None:
    for name in (wanted.lower(), _ALSO.get(wanted.lower())):
        matches = [(band.names.index(name), band.order, i) for i, band in enumerate(bands) if name in band.names]
        if matches:
            return bands[min(matches)[2]].channel
    return None


def _bands(assets: Mapping[str, pystac.Asset]) -> Iterator[_Band]:
    for key, asset in assets.items():
        more = asset.extra_fields
        described = _described(more)
        for_the_eye = bool(_FOR_THE_EYE & set(asset.roles or ()))
        for number, band in enumerate(described or [{}], 1):
            common = band.get("common_name") or band.get("eo:common_name")
            common = common or (more.get("eo:common_name") if len(described) <= 1 else None)
            key_of_one = key.lower() if len(described) <= 1 else ""
            names = key_of_one, str(band.get("name") or "").lower(), str(common or "").lower()
            order = for_the_eye, _pixel_size(band, more), len(described)
            yield _Band(names, order, _channel(key, number, band, more))


def _described(more: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Merge what an asset says of each of its bands, in STAC 1.0's extensions and in 1.1's own field."""
    merged: list[dict[str, Any]] = []
    for field in ("bands", "raster:bands", "eo:bands"):
        for number, band in enumerate(more.get(field) or []):
            if isinstance(band, dict):
                merged += [{} for _ in range(number + 1 - len(merged))]
                merged[number] |= band
    return merged


def _channel(key: str, number: int, band: Mapping[str, Any], more: Mapping[str, Any]) -> Channel:
    def value(name: str) -> float | None:
        found = next((of[k] for of in (band, more) for k in (f"raster:{name}", name) if of.get(k) is not None), None)
        try:
            return None if found is None else float(found)
        except (TypeError, ValueError):
            return None

    return Channel(key, number, value("scale"), value("offset"), value("nodata"))


def _pixel_size(band: Mapping[str, Any], more: Mapping[str, Any]) -> float:
    """Return the size of a band's pixels on the ground; infinite if nothing is said of it."""
    names = ("raster:spatial_resolution", "spatial_resolution", "gsd")
    found = [of[name] for of in (band, more) for name in names if isinstance(of.get(name), (int, float))]
    return float(found[0]) if found else float("inf")

"""Composites: one image made of bands that lie in several files, with a URI that names them and how they are read.

The URI is what the bands' URIs have in common, with `{band}` for the rest, and a fragment with the rest of each:
`s3://bucket/LC08_123_SR_{band}.TIF#band=B4,B3,B2`. The fragment may also hold, of each band, the `number` in its file
(default 1), `scale` and `offset` to physical values and the `nodata` value (default: as the file says); and `stretch`,
the range that becomes 0 to 255. A band that is missing is its name after an exclamation mark.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self
from urllib.parse import quote, unquote

_PLACE: Final = "{band}"
_ALLOWED: Final = "/:@~$'()*+;="  # in a value, besides letters, digits, - and _
_FIELDS: Final = ("band", "number", "scale", "offset", "nodata", "stretch")
_URI: Final = re.compile(r"(?P<template>.*)#(?P<fields>(?:band|number)=[^#]*)", re.DOTALL)
_START: Final = re.compile(r"#(?:band|number)=[^#]*$")
_MISSING: Final = "!"


class Channel(NamedTuple):
    """Name a band of a composite.

    Attributes:
        uri: of the file that it is in; of a band that is missing, `!` and its name.
        number: of the band in its file, from 1.
        scale: factor from samples to physical values; None: as the file says.
        offset: what is added then; None: as the file says.
        nodata: sample value of pixels without data; None: as the file says.
    """

    uri: str
    number: int = 1
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    @property
    def missing(self) -> str | None:
        """The name of a band that is missing; None: it is there."""
        return self.uri[1:] if self.uri.startswith(_MISSING) else None


def missing_channel(name: str) -> Channel:
    """Make the channel of a band that is missing, which fails when it is read."""
    return Channel(_MISSING + name)


@dataclass(frozen=True)
class Composite:
    """Describe an image made of three bands, or of one; `parse` is the inverse of `str`.

    Attributes:
        channels: to be shown as red, green and blue, or as grey; at least one is not missing.
        stretch: the range, of physical values, that becomes 0 to 255; None: percentiles of the samples.
    """

    channels: tuple[Channel, ...]
    stretch: tuple[float, float] | None = None

    def __str__(self) -> str:
        return self.template + self.fragment

    @property
    def template(self) -> str:
        """Return what the bands' URIs share, with `{band}` for the rest; the URI itself if they are one file."""
        template, _ = self._parts
        return template

    @property
    def fragment(self) -> str:
        """Return the end of the URI, which says how the bands are read: it stays the same if all their files move."""
        _, values = self._parts
        fields = {"band": values}
        numbers = [channel.number for channel in self.channels]
        fields["number"] = [str(n) for n in numbers] if set(numbers) != {1} or not any(values) else []
        for name in ("scale", "offset", "nodata"):
            found = [getattr(channel, name) for channel in self.channels]
            fields[name] = ["" if x is None else _number(x) for x in found] if any(x is not None for x in found) else []
        fields["stretch"] = [_number(x) for x in self.stretch or ()]
        return "#" + "&".join(f"{name}={','.join(texts)}" for name, texts in fields.items() if any(texts))

    @property
    def _parts(self) -> tuple[str, list[str]]:
        """Split the channels' URIs into a template and the value of each; no values if all are the same file."""
        uris = list(dict.fromkeys(channel.uri for channel in self.channels if channel.missing is None))
        if len(uris) == 1 and len({channel.missing for channel in self.channels}) == 1:
            return uris[0], []
        before, after = _in_common(uris)
        values = [
            _MISSING + _quoted(channel.missing)
            if channel.missing is not None
            else _quoted(channel.uri[len(before) : len(channel.uri) - len(after)])
            for channel in self.channels
        ]
        return f"{before}{_PLACE}{after}", values

    @classmethod
    def parse(cls, uri: str) -> Self | None:
        """Parse a composite's URI; None for other URIs, among them those of tiles of a composite."""
        found = _URI.fullmatch(uri)
        if found is None:
            return None
        fields = {name: text.split(",") for name, _, text in (f.partition("=") for f in found["fields"].split("&"))}
        try:
            return cls._of(found["template"], fields)
        except ValueError:
            return None

    @classmethod
    def _of(cls, template: str, fields: dict[str, list[str]]) -> Self | None:
        count = len(fields.get("band") or fields["number"])
        stretch = fields.pop("stretch", None)
        whole = set(fields) <= set(_FIELDS) and all(len(texts) == count for texts in fields.values())
        if not whole or (stretch and len(stretch) != 2) or ("band" in fields) != (template.count(_PLACE) == 1):
            return None
        before, _, after = template.partition(_PLACE)
        uris = [
            unquote(value) if value.startswith(_MISSING) else before + unquote(value) + after
            for value in fields.get("band", [])
        ] or [template] * count
        numbers = [int(text) for text in fields.get("number", ["1"] * count)]
        scale, offset, nodata = (
            [float(text) if text else None for text in fields.get(name, [""] * count)]
            for name in ("scale", "offset", "nodata")
        )
        channels = tuple(map(Channel, uris, numbers, scale, offset, nodata))
        return cls(channels, (float(stretch[0]), float(stretch[1])) if stretch else None)


def _quoted(value: str) -> str:
    return quote(value, safe=_ALLOWED).replace(".", "%2E")  # so that the URI ends as no file of an image does


def _number(value: float) -> str:
    return repr(float(value)).removesuffix(".0")  # as short as it can be read back


def scene_end(uri: str) -> int:
    """Find where the fragment of a composite's URI begins; the end of other URIs."""
    found = _START.search(uri)
    return len(uri) if found is None or Composite.parse(uri) is None else found.start()


def _in_common(uris: Sequence[str]) -> tuple[str, str]:
    """Find what URIs begin and end with, cut between words; of a single one, its folder."""
    if len(uris) == 1:
        return uris[0][: uris[0].rfind("/") + 1], ""
    before = os.path.commonprefix(uris)
    before = before[: max((i + 1 for i, letter in enumerate(before) if not letter.isalnum()), default=0)]
    after = os.path.commonprefix([uri[len(before) :][::-1] for uri in uris])[::-1]
    after = after[next((i for i, letter in enumerate(after) if not letter.isalnum()), len(after)) :]
    return before, after

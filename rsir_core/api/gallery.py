"""A search as pictures: the query and its best results, small and inlined, for notebooks and `rsir search --open`."""

import base64
from collections.abc import Sequence
from html import escape
from typing import Final

from rsir_core.api.hit import Hit
from rsir_core.errors import ImageError
from rsir_core.imagery.picture import Picture, shrink
from rsir_core.models.regions import Region
from rsir_core.retrieval.near_duplicates import read_here
from rsir_core.retrieval.query import Descriptor

SHOWN: Final = 12  # results
SIDE: Final = 144  # pixels of a thumbnail, at most
_CARD: Final = "width:150px;font:12px/1.35 system-ui,sans-serif;overflow-wrap:anywhere"
_FRAME: Final = "position:relative;display:inline-block;line-height:0"
_MARK: Final = "position:absolute;box-sizing:border-box;border:2px solid #ffb000"


def gallery_html(hits: Sequence[Hit], query: Descriptor, caption: str, thumbnail: bytes) -> str:
    """Draw a query and its first `SHOWN` results, each with its key region, in HTML without scripts.

    Args:
        hits: the results, which are read from where they lie.
        query: what they are the results of.
        caption: of the query, as text.
        thumbnail: JPEG of the query; empty: it is read from its URI, if it has one.
    """
    shown = hits[:SHOWN]
    uri = None if thumbnail else query.uri
    pictures = [_jpeg(found) for found in read_here([*([] if uri is None else [uri]), *(hit.uri for hit in shown)])]
    if uri is not None:
        thumbnail = pictures.pop(0)
    size = (query.height, query.width) if query.height and query.width else None
    cards = [_card(thumbnail, query.region, size, f"<b>query</b>: {escape(caption)}")]
    cards += [
        _card(jpeg, hit.region, (hit.height, hit.width) if hit.height else None, _caption(hit))
        for jpeg, hit in zip(pictures, shown, strict=True)
    ]
    more = f"<p>and {len(hits) - SHOWN} more</p>" if len(hits) > SHOWN else ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:10px;align-items:flex-start">{"".join(cards)}</div>{more}'


def _caption(hit: Hit) -> str:
    time = f"<br>{hit.time:%Y-%m-%d}" if hit.time else ""
    factors = f"{hit.distance:.3f} × {hit.query_weight:.2g} × {hit.candidate_weight:.2g}"
    return (
        f'<b>{hit.rank}</b> {escape(hit.class_name)} {hit.probability:.1%}<br><span title="{escape(hit.uri)}">'
        f"{escape(hit.image_id)}</span><br>{hit.weighted_distance:.2g} = {factors}{time}"
    )


def _card(jpeg: bytes, region: Region | None, size: tuple[int, int] | None, caption: str) -> str:
    if not jpeg:
        return f'<div style="{_CARD}"><i>no picture</i><br>{caption}</div>'
    mark = "" if region is None or size is None else _mark(region, *size)
    image = f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" style="max-width:100%">'
    return f'<div style="{_CARD}"><div style="{_FRAME}">{image}{mark}</div><br>{caption}</div>'


def _mark(region: Region, height: int, width: int) -> str:
    """Draw the key region over a thumbnail of an image of height × width pixels."""
    edges = {
        "left": region.x / width, "top": region.y / height,
        "width": region.width / width, "height": region.height / height,
    }  # fmt: skip
    place = ";".join(f"{edge}:{100 * share:.1f}%" for edge, share in edges.items())
    return f'<div title="key region" style="{_MARK};{place}"></div>'


def _jpeg(found: Picture | ImageError) -> bytes:
    """Return a thumbnail; nothing where the image cannot be read any more."""
    return b"" if isinstance(found, ImageError) else shrink(found, SIDE)

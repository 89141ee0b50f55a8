"""Cutting scenes into tiles: the grid of each scene, and a listing in which tiles replace scenes."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rasterio.windows import Window

from rsir_core import schemas
from rsir_core.arrays import Ints, Mask
from rsir_core.imagery.tile_uri import Recipe, cell_fragment, fragment, recipe_of

EXTENSIONS: Final = (".tif", ".tiff", ".gtif", ".gtiff", ".jp2", ".j2k", ".j2c", ".jpc", ".jpx", ".jpf", ".vrt")

MIN_SIDE: Final = 16  # pixels of a tile; smaller ones show nothing, and there would be millions
MIN_VALID: Final = 0.5  # share of valid pixels below which a tile is skipped

Size = tuple[int, int]  # width, height, in pixels of the scene


@dataclass(frozen=True)
class Tiling:
    """Hold the options of how scenes are cut; `str` is the key under which the resulting grids are stored.

    Attributes:
        side: largest side of a tile, in pixels, as it is described.
        overlap: share of a tile that the next one covers too; 0 to less than 1.
        metres: side of a tile on the ground; None: `side` pixels of the scene.
        bands: three or one, by number or name, comma-separated; None: as `rgb.colour_bands` chooses.
        zoom: of the global grid whose cells are the tiles; None: tiles lie as the scene does.
    """

    side: int
    overlap: float
    metres: float | None = None
    bands: str | None = None
    zoom: int | None = None

    def __str__(self) -> str:
        zoom = "" if self.zoom is None else f" zoom={self.zoom}"
        return f"side={self.side} overlap={self.overlap:g} metres={self.metres} bands={self.bands}{zoom}"


class TileGrid(NamedTuple):
    """Cut one scene into a grid of equal tiles; the last of each row and column ends at the scene's edge."""

    scene: Size
    tile: Size
    step: Size
    recipe: Recipe
    kept: Mask | None  # whether each tile is kept, row by row; None: all are

    @property
    def fragments(self) -> list[str]:
        """Return the end of each kept tile's id, which follows the scene's id."""
        return [fragment(window) for window in self.windows]

    @property
    def windows(self) -> Iterator[Window]:
        """The tiles that are kept, row by row."""
        lefts, tops = grid(self)
        for i, top in enumerate(tops):
            for j, left in enumerate(lefts):
                if self.kept is None or self.kept[i * len(lefts) + j]:
                    yield Window(int(left), int(top), *self.tile)

    @property
    def skipped(self) -> int:
        """The number of tiles that are not kept."""
        return 0 if self.kept is None else int(np.count_nonzero(~self.kept))

    def row(self) -> dict[str, Any]:
        """Return columns of `schemas.SCENES`."""
        return {
            "scene": _sized(self.scene),
            "tile": _sized(self.tile),
            "step": _sized(self.step),
            "recipe": str(self.recipe),
            "kept": None if self.kept is None else np.packbits(self.kept).tobytes(),
            "skipped": self.skipped,
        }

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> "TileGrid":
        """Build from columns of `schemas.SCENES`: the inverse of `row`."""
        scene, tile, step = ((row[n]["width"], row[n]["height"]) for n in ("scene", "tile", "step"))
        cut = cls(scene, tile, step, recipe_of(row["recipe"]), None)
        if row["kept"] is None:
            return cut
        lefts, tops = grid(cut)
        bits = np.unpackbits(np.frombuffer(row["kept"], np.uint8), count=len(lefts) * len(tops))
        return cut._replace(kept=bits.astype(np.bool_))


class SceneCells(NamedTuple):
    """Cut one scene into cells of the global grid.

    Attributes:
        scene: its size.
        cells: quadkeys of the cells that are kept.
        recipe: how each is read.
        skipped: number of cells that the scene meets, but has data for less than `MIN_VALID` of.
    """

    scene: Size
    cells: list[str]
    recipe: Recipe
    skipped: int

    @property
    def fragments(self) -> list[str]:
        """Return the end of each kept cell's id, which follows the scene's id."""
        return [cell_fragment(cell) for cell in self.cells]

    def row(self) -> dict[str, Any]:
        """Return columns of `schemas.SCENES`."""
        row = {"scene": _sized(self.scene), "recipe": str(self.recipe), "kept": None, "skipped": self.skipped}
        return {**row, "cells": self.cells}

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> "SceneCells":
        """Build from columns of `schemas.SCENES`: the inverse of `row`."""
        scene = row["scene"]["width"], row["scene"]["height"]
        return cls(scene, row["cells"], recipe_of(row["recipe"]), row["skipped"])


def _sized(size: Size) -> dict[str, int]:
    return {"width": size[0], "height": size[1]}


def grid(cut: TileGrid) -> tuple[Ints, Ints]:
    """Compute the left edges and the upper edges of the tiles, in pixels of the scene."""
    lefts, tops = (
        np.minimum(np.arange(ceil((whole - part) / step) + 1) * step, whole - part)
        for whole, part, step in zip(cut.scene, cut.tile, cut.step, strict=True)
    )
    return lefts, tops


def may_be_scenes(listing: pa.Table) -> pa.Table:
    """Select the rows of a listing whose extension is of a format that can be read by windows."""
    names = pc.utf8_lower(listing[schemas.IMAGE_ID])
    return listing.filter(pc.match_substring_regex(names, "(" + "|".join(EXTENSIONS).replace(".", r"\.") + ")$"))


def with_tiles(listing: pa.Table, scenes: pa.Table) -> tuple[pa.Table, int]:
    """Replace the scenes in a listing by their tiles; also returns how many tiles were skipped.

    A tile's etag combines the scene's etag with the tile's recipe, so that all tiles count as changed when the scene is
    delivered again or read differently.

    Args:
        listing: schema `schemas.LISTING`.
        scenes: schema `schemas.SCENES`, of one tiling; rows whose etag differs from the listing's are ignored.
    """
    cut_scenes = scenes.filter(scenes["scene"].is_valid())
    cuts = {(row[schemas.IMAGE_ID], row[schemas.ETAG]): row for row in cut_scenes.to_pylist()}
    keys = (
        list(zip(listing[schemas.IMAGE_ID].to_pylist(), listing[schemas.ETAG].to_pylist(), strict=True)) if cuts else []
    )
    is_cut = np.array([key in cuts for key in keys], np.bool_)
    if not is_cut.any():
        return listing, 0
    pieces, skipped = [listing.filter(pa.array(~is_cut))], 0
    for row in listing.filter(pa.array(is_cut)).to_pylist():
        cut_row = cuts[row[schemas.IMAGE_ID], row[schemas.ETAG]]
        cut = TileGrid.of_row(cut_row) if cut_row["cells"] is None else SceneCells.of_row(cut_row)
        pieces.append(_tiles(row, cut))
        skipped += cut.skipped
    return pa.concat_tables(pieces), skipped


def _tiles(row: dict[str, Any], cut: TileGrid | SceneCells) -> pa.Table:
    ends, recipe = cut.fragments, str(cut.recipe)
    n, etag = len(ends), row[schemas.ETAG] + str(cut.recipe._replace(stretch=None))
    columns = {
        schemas.IMAGE_ID: [row[schemas.IMAGE_ID] + end for end in ends],
        schemas.URI: [row[schemas.URI] + end + recipe for end in ends],
        schemas.ETAG: [etag] * n,
        schemas.SIZE: [row[schemas.SIZE]] * n,
        schemas.TIME: [row[schemas.TIME]] * n,
    }
    return pa.table(columns, schemas.LISTING)

"""Cells of the global grid: every scene's tiles of a cell show the same ground on the same pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from rsir_core.archive.hrefs import as_it_lies, href_of
from rsir_core.archive.listing import Root, rebase_uri, root_of
from rsir_core.errors import ImageError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.geo.cells import CRS, bounds_of, cells_in
from rsir_core.imagery import scene_file
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.surroundings import read_surroundings
from rsir_core.imagery.tile_grid import SceneCells, Tiling
from rsir_core.imagery.tile_survey import survey_on_grid
from rsir_core.imagery.tile_uri import CellTile, Recipe, parse_tile
from tests.support.ground import GROUND, SIZE, painted, scene_of
from tests.support.rasters import gdal_file

ZOOM, MAX_PIXELS = 17, 10**8


def cells_of(uri: str, side: int = 256, zoom: int = ZOOM, bands: str | None = None) -> SceneCells:
    found = survey_on_grid(uri, Tiling(side, 0.25, bands=bands, zoom=zoom), MAX_PIXELS)
    assert isinstance(found, SceneCells)
    assert SceneCells.of_row(found.row()) == found
    return found


def uris_of(uri: str, cut: SceneCells) -> dict[str, str]:
    return {cell: str(CellTile(uri, cell, cut.recipe)) for cell in cut.cells}


@given(st.text(), st.text("0123", min_size=1), st.none() | st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_a_cells_uri_says_all_about_it(scene: str, cell: str, size: tuple[int, int] | None) -> None:
    tile = CellTile(scene, cell, Recipe(size, (3, 2, 1), (0.5, 7.25)))
    assert parse_tile(str(tile)) == tile


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "fine" else pytest.mark.slow) for name in GROUND]
)
def test_a_cell_of_any_scene_is_what_lies_there(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / "s.tif")
    Path(uri).write_bytes(scene_of(name))
    cut = cells_of(uri)
    assert len(cut.cells) >= 6
    whole = 0
    for cell, tile in uris_of(uri, cut).items():
        found = read_picture(tile)
        assert found.pixels.shape == (256, 256, 3) and found.cell == cell and found.covered is not None
        visible = found.pixels.any(axis=2)
        assert visible.mean() == pytest.approx(found.covered, abs=1e-6) and found.covered > 0.45
        left, bottom, right, top = bounds_of(cell)
        steps = (np.arange(256) + 0.5) / 256
        expected = painted(*np.meshgrid(left + steps * (right - left), top - steps * (top - bottom))).transpose(1, 2, 0)
        error = np.abs(found.pixels.astype(float) - expected)[visible]
        # Where slopes turn an interpolation must be off; elsewhere half a pixel of these scenes is 0.2.
        assert np.median(error) < 0.5 and np.percentile(error, 95) < 1.1
        assert found.footprint is not None and found.footprint.crs == GROUND[name]["crs"]
        outline = shapely.from_wkb(found.footprint.polygon)
        assert Transformer.from_crs(4326, 3857, always_xy=True).transform(*outline.bounds[:2]) == pytest.approx(
            (left, bottom), abs=1e-3
        )
        whole += found.covered == 1
    assert whole >= 2


@pytest.mark.parametrize("name", GROUND)
def test_the_cells_kept_are_those_that_the_scene_covers_by_half(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / "s.tif")
    Path(uri).write_bytes(scene_of(name))
    cut = cells_of(uri)
    corners = np.array([(0, 0), (1000, 0), (1000, 1100), (0, 1100)]).repeat(200, axis=0).reshape(4, 200, 2)
    edge = np.concatenate([a + np.linspace(0, 1, 200)[:, None] * (b - a) for a, b in zip(
        corners[:, 0], np.roll(corners[:, 0], -1, 0), strict=True)])  # fmt: skip
    a, b, c, d, e, f, *_ = GROUND[name]["transform"]
    ring = a * edge[:, 0] + b * edge[:, 1] + c, d * edge[:, 0] + e * edge[:, 1] + f
    to_web = Transformer.from_crs(GROUND[name]["crs"], CRS, always_xy=True)
    outline = shapely.Polygon(np.column_stack(to_web.transform(*ring)))
    to_degrees = Transformer.from_crs(CRS, 4326, always_xy=True)
    around = outline.buffer(1000).bounds
    box = BoundingBox(*to_degrees.transform(*around[:2]), *to_degrees.transform(*around[2:]))
    share = {cell: _share(outline, cell) for cell in cells_in(box, ZOOM)}
    assert {cell for cell, s in share.items() if s > 0.53} <= set(cut.cells)
    assert set(cut.cells) <= {cell for cell, s in share.items() if s > 0.47}
    met = sum(s > 0.03 for s in share.values())
    assert met <= len(cut.cells) + cut.skipped <= sum(s > 0 for s in share.values())


def _share(outline: shapely.Polygon, cell: str) -> float:
    box = shapely.box(*bounds_of(cell))
    return float(outline.intersection(box).area / box.area)


@pytest.mark.slow
def test_different_scenes_share_cells_and_pixels(tmp_path: Path) -> None:
    seen: dict[str, list[Any]] = {}
    for name in GROUND:
        uri = str(tmp_path / f"{name}.tif")
        Path(uri).write_bytes(scene_of(name))
        for cell, tile in uris_of(uri, cells_of(uri)).items():
            picture = read_picture(tile)
            if picture.covered == 1:
                seen.setdefault(cell, []).append(picture)
    shared = [pictures for pictures in seen.values() if len(pictures) > 1]
    assert len(shared) >= 4
    for first, *others in shared:
        for other in others:
            assert np.median(np.abs(first.pixels.astype(int) - other.pixels)) <= 1
            assert first.footprint.bbox == other.footprint.bbox


@pytest.mark.slow
def test_parts_without_data_are_black_and_counted(tmp_path: Path) -> None:
    data = scene_of("utm", nodata=0)
    with rasterio.MemoryFile(data) as file, file.open() as dataset:
        samples = dataset.read()
    samples[:, :, 300:] = 0
    uri = str(tmp_path / "s.tif")
    Path(uri).write_bytes(gdal_file(samples, **GROUND["utm"], nodata=0))
    cut = cells_of(uri)
    Path(tmp_path / "all.tif").write_bytes(scene_of("utm"))
    everything = cells_of(str(tmp_path / "all.tif"))
    assert set(cut.cells) < set(everything.cells)
    assert len(cut.cells) + cut.skipped == len(everything.cells) + everything.skipped
    pictures = [read_picture(tile) for tile in uris_of(uri, cut).values()]
    assert any(0.4 < (picture.covered or 0) < 0.99 for picture in pictures)
    for picture in pictures:
        assert picture.covered == pytest.approx(picture.pixels.any(axis=2).mean(), abs=0.01)


@pytest.mark.slow
def test_zeros_around_a_deep_scene_are_no_data_said_or_not(tmp_path: Path) -> None:
    with rasterio.MemoryFile(scene_of("utm")) as file, file.open() as dataset:
        samples = dataset.read().astype(np.uint16) * 10 + 10
    samples[:, :, 350:] = 0
    found = []
    ways: dict[str, dict[str, Any]] = {"said": {"nodata": 0}, "unsaid": {}}
    for name, options in ways.items():
        uri = str(tmp_path / f"{name}.tif")
        Path(uri).write_bytes(gdal_file(samples, **GROUND["utm"], **options))
        cut = cells_of(uri)
        found.append((cut.cells, [read_picture(tile) for tile in uris_of(uri, cut).values()]))
    (said_cells, said), (unsaid_cells, unsaid) = found
    assert said_cells == unsaid_cells
    assert any(0.5 < (picture.covered or 0) < 0.6 for picture in said)  # of a cell that the zeros begin in
    for one, other in zip(said, unsaid, strict=True):
        assert one.covered == other.covered and np.array_equal(one.pixels, other.pixels)


@pytest.mark.slow
def test_deep_samples_alpha_palettes_and_masks(tmp_path: Path) -> None:
    with rasterio.MemoryFile(scene_of("utm")) as file, file.open() as dataset:
        samples = dataset.read()
    place = GROUND["utm"]
    alpha = np.full((1, *SIZE), 255, np.uint8)
    alpha[:, :, 300:] = 0
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    five = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.undefined, ColorInterp.alpha)
    files = {
        "deep": gdal_file(samples.astype(np.uint16) * 37, **place),
        "alpha": gdal_file(np.concatenate([samples, alpha]), colours=colours, **place),
        "five": gdal_file(np.concatenate([samples, samples[:1], alpha]), colours=five, **place),
        "float": gdal_file(np.where(alpha > 0, samples.astype(np.float32), np.nan), **place),
    }
    for name, data in files.items():
        uri = str(tmp_path / f"{name}.tif")
        Path(uri).write_bytes(data)
        cut = cells_of(uri)
        pictures = [read_picture(tile) for tile in uris_of(uri, cut).values()]
        assert (cut.recipe.stretch is not None) == (name in ("deep", "float"))
        hidden = [p for p in pictures if (p.covered or 0) < 1]
        assert hidden and all(abs((p.covered or 0) - p.pixels.any(axis=2).mean()) < 0.02 for p in pictures)
    with rasterio.open(tmp_path / "palette.tif", "w", driver="GTiff", dtype="uint8", count=1, height=SIZE[0],
                       width=SIZE[1], **place) as dataset:  # fmt: skip
        dataset.write(np.full((1, *SIZE), 7, np.uint8))
        dataset.write_colormap(1, {7: (10, 200, 30, 255)})
    uri = str(tmp_path / "palette.tif")
    found = next(p for tile in uris_of(uri, cells_of(uri)).values() if (p := read_picture(tile)).covered == 1)
    assert (found.pixels == (10, 200, 30)).all()


@pytest.mark.slow
def test_surroundings_have_the_cell_in_their_middle(tmp_path: Path) -> None:
    uri = str(tmp_path / "s.tif")
    Path(uri).write_bytes(scene_of("utm"))
    for tile in uris_of(uri, cells_of(uri)).values():
        inside, wide = read_picture(tile).pixels, read_surroundings(tile, 0.5).pixels
        assert wide.shape == (512, 512, 3)
        differences = np.abs(wide[128:384, 128:384].astype(int) - inside)
        assert np.percentile(differences, 98) <= 1


def test_few_blocks_are_read_of_a_scene_with_overviews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    class Counting(scene_file._Handle):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            read.append(len(data))
            return data

    uri = str(tmp_path / "s.tif")
    noise = np.random.default_rng(0).integers(1, 255, (3, 2048, 2048), np.uint8)
    Path(uri).write_bytes(gdal_file(noise, "COG", blocksize=128, compress="none", **GROUND["fine"]))
    size = Path(uri).stat().st_size
    small, large = cells_of(uri, 64, 18), cells_of(uri, 64, 15)
    assert len(small.cells) > 20 and len(large.cells) >= 1
    monkeypatch.setattr(scene_file, "_Handle", Counting)
    for cut in (small, large):
        read.clear()
        read_picture(next(iter(uris_of(uri, cut).values())))
        assert sum(read) < size / 12


@pytest.mark.parametrize(
    ("place", "zoom", "word"),
    [
        ({}, 17, "georeferenced"),
        (GROUND["utm"], 24, "smaller --grid"),
        (GROUND["utm"], 9, "larger --grid"),
        ({"crs": "EPSG:3413", "transform": Affine(30, 0, 0, 0, -30, 0)}, 12, "85°"),
        ({"gcps": [GroundControlPoint(r, c, 15 + c / 1e4, 45 - r / 1e4) for r, c in
                   ((0, 0), (0, 99), (99, 0), (99, 99))], "crs": "EPSG:4326"}, 14, "gdalwarp"),
    ],
)  # fmt: skip
def test_scenes_without_a_place_on_the_grid_are_refused(tmp_path: Path, place: Any, zoom: int, word: str) -> None:
    (tmp_path / "s.tif").write_bytes(gdal_file(np.ones((3, 100, 100), np.uint8), **place))
    with pytest.raises(ImageError, match=word) as refused:
        survey_on_grid(str(tmp_path / "s.tif"), Tiling(256, 0.25, zoom=zoom), MAX_PIXELS)
    assert refused.value.kind == "unsupported"


def test_a_cells_uri_moves_with_its_archive() -> None:
    cell = "#cell=1202&size=256,256"
    assert root_of(f"/old/a/s.tif{cell}", "a/s.tif#cell=1202") == Root("/old/")
    assert rebase_uri(Root("s3://new/"), f"/old/a/s.tif{cell}", "a/s.tif#cell=1202") == f"s3://new/a/s.tif{cell}"
    composite = f"/old/a_{{band}}.tif#band=B4,B3,B2{cell}"
    assert root_of(composite, "a_{band}.tif#cell=1202") == Root("/old/")
    assert as_it_lies(href_of(f"/a b/s.tif{cell}")).endswith(cell)


def test_quadkeys_are_those_of_other_programs() -> None:
    assert cells_in(BoundingBox(13.4, 52.5, 13.4, 52.5), 12) == ["120210233222"]

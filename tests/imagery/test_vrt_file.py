"""Virtual rasters are read like what they are made of, and name nothing that they may not."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.transform import Affine

from rsir_core.archive.listing import list_images
from rsir_core.arrays import Pixels
from rsir_core.errors import ArchiveError, ImageError
from rsir_core.imagery.decode import read_picture
from rsir_core.imagery.tile_grid import Tiling
from rsir_core.imagery.tile_survey import survey
from rsir_core.imagery.vrt_file import sources_of
from tests.imagery.test_composite import GEOTIFF, needs_geotiff
from tests.support.rasters import gdal_file

RNG = np.random.default_rng(0)
BAND = """<VRTRasterBand dataType="Byte" band="{n}"><ColorInterp>{colour}</ColorInterp>{sources}</VRTRasterBand>"""
SOURCE = """<SimpleSource><SourceFilename relativeToVRT="{relative}">{file}</SourceFilename><SourceBand>{n}</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="64" ySize="64"/><DstRect xOff="{x}" yOff="0" xSize="64" ySize="64"/></SimpleSource>"""


def mosaic(west: str, east: str, relative: int = 1) -> bytes:
    """Two files side by side."""
    bands = "".join(
        BAND.format(n=n, colour=colour, sources="".join(
            SOURCE.format(relative=relative, file=file, n=n, x=64 * i) for i, file in enumerate((west, east))))
        for n, colour in enumerate(("Red", "Green", "Blue"), 1)
    )  # fmt: skip
    place = "<SRS>EPSG:32633</SRS><GeoTransform>500000, 10, 0, 5000000, 0, -10</GeoTransform>"
    return f'<VRTDataset rasterXSize="128" rasterYSize="64">{place}{bands}</VRTDataset>'.encode()


@pytest.fixture
def samples(tmp_path: Path) -> Pixels:
    found = RNG.integers(1, 250, (3, 64, 128)).astype(np.uint8)
    (tmp_path / "tiles").mkdir()
    for name, part in (("west", found[..., :64]), ("east", found[..., 64:])):
        (tmp_path / f"tiles/{name}.tif").write_bytes(gdal_file(part, crs="EPSG:32633", transform=Affine.identity()))
    return found.transpose(1, 2, 0)


def test_a_mosaic_is_one_image(tmp_path: Path, samples: Pixels) -> None:
    file = tmp_path / "mosaic.vrt"
    for west, relative in (("tiles/west.tif", 1), (f"{tmp_path}/tiles/west.tif", 0)):
        east = "./tiles/../tiles/east.tif" if relative else f"{tmp_path}/tiles/east.tif"
        file.write_bytes(mosaic(west, east, relative))
        np.testing.assert_array_equal(read_picture(str(file)).pixels, samples)
        part = read_picture(f"{file}#xywh=50,3,30,40")
        np.testing.assert_array_equal(part.pixels, samples[3:43, 50:80])
        assert part.footprint and part.footprint.crs == "EPSG:32633"
    cut = survey(str(file), Tiling(64, 0.0), 10**8)
    assert cut and len(list(cut.windows)) == 2
    assert "mosaic.vrt" in {image.image_id for image in list_images(str(tmp_path))}


@needs_geotiff
def test_gdals_own_vrt_of_a_real_scene(tmp_path: Path) -> None:
    scene = GEOTIFF / "RGB.byte.tif"
    with rasterio.open(scene) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "copy.vrt", driver="VRT")
    found, wanted = read_picture(str(tmp_path / "copy.vrt")), read_picture(str(scene))
    np.testing.assert_array_equal(found.pixels, wanted.pixels)
    assert found.footprint == wanted.footprint


def test_a_vrt_on_a_store(tmp_path: Path, samples: Pixels) -> None:
    for name in ("west", "east"):
        with fsspec.open(f"memory://vrt/tiles/{name}.tif", "wb") as file:
            file.write((tmp_path / f"tiles/{name}.tif").read_bytes())
    with fsspec.open("memory://vrt/x/mosaic.vrt", "wb") as file:
        file.write(mosaic("../tiles/west.tif", "../tiles/east.tif"))
    np.testing.assert_array_equal(read_picture("memory://vrt/x/mosaic.vrt").pixels, samples)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (mosaic("gone.tif", "gone.tif"), "missing", "gone.tif is gone"),
        (mosaic("text.tif", "text.tif"), "unsupported", "text.tif is no TIFF"),
        (mosaic("/vsizip/a.zip/b.tif", "x.tif"), "unsupported", "names '/vsizip"),
        (mosaic("<VRTDataset/>", "x.tif").replace(b"<VRTDataset/>", b"&lt;VRTDataset/&gt;", 6), "missing", "is gone"),
        (b'<VRTDataset subClass="VRTWarpedDataset"/>', "unsupported", "VRTWarpedDataset"),
        (mosaic("a", "b").replace(b'band="1"', b'band="1" subClass="VRTRawRasterBand"'), "unsupported", "VRTRaw"),
        (mosaic("a", "b").replace(b"<ColorInterp>Red", b"<PixelFunctionCode>x</PixelFunctionCode><ColorInterp>Red"),
         "unsupported", "PixelFunctionCode"),
        (b"<VRTDataset", "corrupt", "cannot be read as a VRT"),
        (b"", "empty", "is empty"),
    ],
)  # fmt: skip
def test_vrts_that_are_refused(tmp_path: Path, data: bytes, kind: str, words: str) -> None:
    (tmp_path / "x.vrt").write_bytes(data)
    (tmp_path / "text.tif").write_text("text that is no image")
    with pytest.raises(ImageError, match=words) as refused:
        read_picture(str(tmp_path / "x.vrt"))
    assert refused.value.kind == kind


def test_a_remote_vrt_names_no_local_file() -> None:
    with pytest.raises(ImageError, match=r"names '/etc/x\.tif'"):
        sources_of(mosaic("/etc/x.tif", "b.tif", relative=0), "s3://b/x.vrt")
    found = sources_of(mosaic("/vsis3/other/a.tif", "/vsicurl/https://h/b.tif", relative=0), "s3://b/x.vrt")
    assert found[1] == ["s3://other/a.tif", "https://h/b.tif"]


@pytest.mark.parametrize("name", ["x.nc", "x.zarr/", "s3://bucket/x.H5"])
def test_cubes_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ArchiveError, match="multi-dimensional") as refused:
        list(list_images(name))
    assert "\n" not in str(refused.value)

"""An archive whose bands are files of their own is indexed as the same archive in one file per scene is."""

import io
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pystac
import pytest
import rasterio
from PIL import Image

from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index
from tests.indexing.test_index import table_of
from tests.indexing.test_scene_search import CORNERS, EARLY, UCMERCED, counts, pictures, write_models
from tests.support.mosaics import write_mosaic
from tests.support.options import replaced
from tests.support.serving import local_app, serving

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.skipif(not UCMERCED.is_dir(), reason=f"no data in {UCMERCED}"),
]
BANDS = ("4", "3", "2")
PATTERN = "{scene}_B{band}.TIF"


@pytest.fixture
def config(tmp_path: Path) -> IndexConfig:
    """Two scenes as they are, in `whole`, and with a file per band, in `apart`; one of a third scene is broken."""
    write_models(str(tmp_path / "models"))
    for folder in ("whole", "apart"):
        (tmp_path / folder).mkdir()
    for n, scene in enumerate(("LC08_20230712", "LC08_20240115")):
        whole = tmp_path / "whole" / f"{scene}.TIF"
        write_mosaic(whole, pictures(5 * n), 448, CORNERS[EARLY], dtype="uint16", nodata=0)
        with rasterio.open(whole) as dataset:
            profile = {**dataset.profile, "driver": "GTiff", "count": 1}
            for band, samples in zip(BANDS, dataset.read(), strict=True):
                with rasterio.open(tmp_path / "apart" / f"{scene}_B{band}.TIF", "w", **profile) as out:
                    out.write(samples, 1)
    for band in BANDS:
        (tmp_path / "apart" / f"broken_B{band}.TIF").write_bytes((tmp_path / f"apart/{scene}_B{band}.TIF").read_bytes())
    (tmp_path / "apart/broken_B3.TIF").write_bytes(b"II*\0")
    (tmp_path / "apart/lacking_B4.TIF").write_bytes((tmp_path / f"apart/{scene}_B4.TIF").read_bytes())
    return IndexConfig(
        archive=str(tmp_path / "apart"), models=str(tmp_path / "models"), index=str(tmp_path / "index"), components=4,
        batch_size=4, actors=1, max_failure_rate=0.5, tile=256, bands=",".join(BANDS), band_files=PATTERN,
    )  # fmt: skip


def rows(index: str) -> dict[tuple[str, Any], Any]:
    """By scene and window."""
    stored = Index(index).features().to_pylist()
    return {(row["image_id"][:13], tuple(row["window"].values())): row for row in stored}


def test_bands_apart_are_indexed_as_scenes_are(config: IndexConfig, tmp_path: Path) -> None:
    first = index_archive(config)
    assert counts(first) == {"listed": 10, "new": 10, "described": 8, "failed": 2, "rows": 8}
    whole = replaced(
        config, archive=str(tmp_path / "whole"), index=str(tmp_path / "other"), bands=None, band_files=None
    )
    index_archive(whole)
    apart, together = rows(config.index), rows(whole.index)
    assert apart.keys() == together.keys() and len(apart) == 8
    for key, row in apart.items():
        assert row["class_probabilities"] == together[key]["class_probabilities"]
        assert all(
            row[name] == together[key][name] for name in ("geometry", "crs", "time", "height", "notes", "region")
        )
        np.testing.assert_array_equal(read_picture(row["uri"]).pixels, read_picture(together[key]["uri"]).pixels)
    failed = {row["image_id"]: row for row in table_of(Index(config.index), "failures").to_pylist()}
    assert (
        failed["broken_{band}.TIF"]["kind"] == "corrupt" and "broken_B3.TIF" in failed["broken_{band}.TIF"]["message"]
    )
    assert (
        failed["lacking_{band}.TIF"]["kind"] == "missing"
        and "lacking_B3.TIF is gone" in failed["lacking_{band}.TIF"]["message"]
    )
    check_endpoint(config, row)
    assert counts(index_archive(config)) == {"listed": 10, "rows": 8}

    changed = Path(config.archive) / "LC08_20240115_B2.TIF"  # one band of one scene is delivered again
    with rasterio.open(changed, "r+") as dataset:
        dataset.write(dataset.read(1)[::-1], 1)
    assert counts(index_archive(config)) == {"listed": 10, "changed": 4, "described": 4, "rows": 8}

    moved = Path(config.archive).rename(tmp_path / "moved")
    assert counts(index_archive(replaced(config, archive=str(moved)))) == {"listed": 10, "rows": 8}
    assert all(row["uri"].startswith(f"{moved}/LC08_") for row in rows(config.index).values())


def check_endpoint(config: IndexConfig, row: Any) -> None:
    """Its pictures, with surroundings, and queries by its id and its URI; no URI that is not in the index."""
    with serving(local_app(config.index)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for around, side in ((0, 256), (0.5, 512)):
            answer = client.get(f"/image/{quote(row['image_id'])}", params={"around": around})
            assert Image.open(io.BytesIO(answer.content)).size == (side, side)
        by_id = client.post("/search", json={"image_id": row["image_id"], "k": 3}).json()["results"]
        assert client.post("/search", json={"uri": row["uri"], "k": 3}).json()["results"] == by_id and len(by_id) == 3
        refused = client.post("/search", json={"uri": row["uri"].replace("B4", "B1"), "k": 3})
        assert refused.status_code == 404


def test_false_colours_of_a_catalogue(config: IndexConfig, tmp_path: Path) -> None:
    scene = "LC08_20230712"
    item = pystac.Item(scene, None, None, None, {"start_datetime": "2023-07-12T00:00:00Z",
                       "end_datetime": "2023-07-12T00:00:00Z"})  # fmt: skip
    for key, band in (("red", "4"), ("green", "3"), ("nir08", "2")):
        href = str(tmp_path / f"apart/{scene}_B{band}.TIF")
        item.add_asset(key, pystac.Asset(href, media_type=pystac.MediaType.COG, roles=["data"],
                       extra_fields={"raster:bands": [{"scale": 0.0001}]}))  # fmt: skip
    pystac.ItemCollection([item]).save_object(str(tmp_path / "items.json"))
    wanted = replaced(
        config,
        archive=str(tmp_path / "items.json"),
        band_files=None,
        bands="nir,red,green",
        stretch=(0, 2.55),
        components=3,
    )
    assert counts(index_archive(wanted)) == {"listed": 4, "new": 4, "described": 4, "rows": 4}
    for row in Index(config.index).features().to_pylist():
        x, y, width, height = row["window"].values()
        with rasterio.open(tmp_path / f"whole/{scene}.TIF") as dataset:
            samples = dataset.read([3, 1, 2])[:, y : y + height, x : x + width] / 100
        difference = read_picture(row["uri"]).pixels.transpose(2, 0, 1) - samples
        assert abs(difference).max() <= 1 and "float32 0 to 2.55" in row["notes"]

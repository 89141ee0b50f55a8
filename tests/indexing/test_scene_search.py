"""Scenes never seen go in by one command and are found: by location, by date, by a window cut from them."""

import io
from pathlib import Path
from typing import Any

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import torch
from deltalake import DeltaTable
from PIL import Image
from rasterio.warp import transform
from rasterio.windows import Window

from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from rsir_core import schemas
from rsir_core.archive.listing import list_images
from rsir_core.imagery.decode import read_picture
from rsir_core.index.index import Index
from rsir_core.index.writer import write_rows
from rsir_core.models.bundle import write_classifier
from rsir_core.models.classifier import build_classifier, load_start_weights, settings_for
from tests.support.models import CLASSES
from tests.support.mosaics import write_mosaic
from tests.support.serving import local_app, png, serving, upload
from tests.support.writing import writer_of

UCMERCED = Path(__file__).parents[3] / "shared" / "data" / "ucmerced"
pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.skipif(not UCMERCED.is_dir(), reason=f"no data in {UCMERCED}"),
]
SIDE = 640  # by tiles of 256 with an overlap of a quarter: 3 × 3
EARLY, LATE = "east/scene_20230712.tif", "S2A_20240115T101031_west.tif"
CORNERS = {EARLY: (600_000, 5_000_000), LATE: (400_000, 5_000_000)}


def pictures(first: int) -> list[str]:
    return [str(file) for file in sorted(UCMERCED.glob("*/*.jpg"))[first::97]]


def write_models(uri: str) -> None:
    """ImageNet's embeddings of central key regions, which pictures that are nearly alike have in common; no classes."""
    model = build_classifier("efficientnet_lite0", len(CLASSES))
    load_start_weights(model, "efficientnet_lite0", None)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    write_classifier(uri, settings_for("efficientnet_lite0", CLASSES, 64), model.state_dict(), 0.9, "uri,label,split\n")


@pytest.fixture
def config(tmp_path: Path) -> IndexConfig:
    write_models(str(tmp_path / "models"))
    (tmp_path / "archive/east").mkdir(parents=True)
    write_mosaic(tmp_path / "archive" / EARLY, pictures(0), SIDE, CORNERS[EARLY], dtype="uint16", nodata=0)
    write_mosaic(tmp_path / "archive" / LATE, pictures(5), SIDE, CORNERS[LATE])
    (tmp_path / "archive/broken.tif").write_bytes((tmp_path / "archive" / LATE).read_bytes()[:100])
    Image.fromarray(read_picture(pictures(9)[0]).pixels).save(tmp_path / "archive/photo.png")
    return IndexConfig(
        archive=str(tmp_path / "archive"), models=str(tmp_path / "models"), index=str(tmp_path / "index"),
        components=4, batch_size=4, actors=1, max_failure_rate=0.2, tile=256, overlap=0.25,
    )  # fmt: skip


def counts(summary: Any) -> dict[str, int]:
    names = ("listed", "new", "changed", "gone", "described", "failed", "skipped", "rows")
    return {name: summary[name] for name in names if summary[name]}


def test_scenes_are_found_by_place_by_date_and_by_a_window_of_theirs(config: IndexConfig) -> None:
    archive, index = Path(config.archive), Index(config.index)
    with rasterio.open(archive / EARLY, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as scene:
        scene.write(np.zeros((3, 256, SIDE), np.uint16), window=Window(0, 384, SIDE, 256))  # the lowest tiles: nodata
    refuse_once(index, archive)
    first = index_archive(config)
    expected = {"listed": 17, "new": 17, "described": 16, "failed": 1, "skipped": 3, "rows": 16}
    assert counts(first) == expected
    again = index_archive(config)
    assert counts(again) == {"listed": 17, "skipped": 3, "rows": 16} and again["version"] == first["version"]
    assert DeltaTable(index.table_uri("scenes")).version() == 1  # and no header was read again

    stored = {row["image_id"]: row for row in index.features().to_pylist()}
    early = [row for id_, row in stored.items() if id_.startswith(EARLY)]
    assert len(early) == 6 and len({row["notes"] for row in early}) == 1 and "of the scene" in early[0]["notes"]
    check_search(config, stored)
    check_other_readers(config)

    # Delivered again, and smaller: all of the old tiles go, and the new ones come, in one commit.
    write_mosaic(archive / LATE, pictures(11), 448, CORNERS[LATE])
    third = index_archive(config)
    assert counts(third) == {"listed": 12, "changed": 4, "gone": 5, "described": 4, "skipped": 3, "rows": 11}
    assert third["version"] == first["version"] + 1


def refuse_once(index: Index, archive: Path) -> None:
    """As a run leaves it whose credentials expired as it looked into a scene: the next one cuts it all the same."""
    (scene,) = [file for file in list_images(str(archive)) if file.image_id == EARLY]
    said = {"bundle": "b", "stage": "read", "kind": "denied", "message": "access is denied"}
    row = {"image_id": scene.image_id, "uri": scene.uri, "etag": scene.etag, **said}
    table = pa.Table.from_pylist([row], schemas.FAILURES)
    writer_of(index).commit("failures", [write_rows(index.uri, "failures", table)], "append")


def check_search(config: IndexConfig, stored: dict[str, Any]) -> None:
    with serving(local_app(config.index)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for scene in (EARLY, LATE):
            x, y = 192, 0  # a window that is a tile, and one that is nearly that
            tile = stored[f"{scene}#xywh={x},{y},256,256"]
            found = upload(client, png(read_picture(tile["uri"]).pixels), k=1).json()["results"][0]
            assert found["image_id"] == tile["image_id"] and found["distance"] < 1e-4
            assert found["window"] == {"x": x, "y": y, "width": 256, "height": 256}
            near = tile["uri"].replace(f"#xywh={x},{y}", f"#xywh={x + 6},{y + 4}")
            results = upload(client, png(read_picture(near).pixels), k=2).json()["results"]
            assert tile["image_id"] in [result["image_id"] for result in results]

            # By location: the tiles around a point in the upper left corner, which only the first tile covers.
            (lon,), (lat,) = transform("EPSG:32633", "OGC:CRS84", [CORNERS[scene][0] + 50], [CORNERS[scene][1] - 50])
            box = f"[{lon}, {lat}, {lon + 1e-6}, {lat + 1e-6}]"
            there = upload(client, png(read_picture(tile["uri"]).pixels), k=50, bbox=box).json()["results"]
            assert [result["image_id"] for result in there] == [f"{scene}#xywh=0,0,256,256"]

            thumbnail = client.get(f"/thumbnail/{tile['image_id'].replace('#', '%23')}")
            shown = np.array(Image.open(io.BytesIO(thumbnail.content)), np.float32)
            assert shown.shape == (256, 256, 3) and np.abs(shown - read_picture(tile["uri"]).pixels).mean() < 12
        span = {"start": "2024-01-15T10:10:31Z", "end": "2024-01-16T00:00:00Z"}
        dated = client.post("/search", json={"image_id": "photo.png", "k": 50, **span}).json()["results"]
        assert sorted(result["image_id"] for result in dated) == sorted(id_ for id_ in stored if id_.startswith(LATE))
        assert client.post("/search", json={"uri": tile["uri"], "k": 1}).json()["results"][0]["distance"] == 0


def check_other_readers(config: IndexConfig) -> None:
    """`features` as any reader of Parquet and of Delta Lake has it."""
    files = f"{config.index}/features/*.parquet"
    sql = f"SELECT count(*), count(geometry), min(bbox.xmin) FROM '{files}' WHERE \"window\".width = 256"
    assert duckdb.connect().execute(sql).fetchone() == (15, 15, pytest.approx(13.7, abs=0.1))
    table = DeltaTable(f"{config.index}/features").to_pyarrow_table()
    assert table["geometry"].null_count == 1 and table.column_names == schemas.FEATURES.names

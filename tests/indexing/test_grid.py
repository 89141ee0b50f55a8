"""An archive of several dates and reference systems along one grid: cells are shared, and found at all dates."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import rsir_core as rsir
from jobs.index import index_archive
from jobs.indexing.options import IndexConfig
from rsir_core.errors import QueryError
from rsir_core.index.index import Index
from tests.indexing.test_scene_search import counts, write_models
from tests.support.ground import scene_of
from tests.support.options import replaced
from tests.support.rasters import gdal_file
from tests.support.serving import local_app, serving

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]
SCENES = {"a_20230301.tif": "utm", "b/b_20240301.tif": "degrees", "c_20250301.tif": "web"}  # how each is stored
SIZE = 700, 640


@pytest.fixture
def config(tmp_path: Path) -> IndexConfig:
    write_models(str(tmp_path / "models"))
    (tmp_path / "archive/b").mkdir(parents=True)
    for name, place in SCENES.items():
        (tmp_path / "archive" / name).write_bytes(scene_of(place, SIZE))
    (tmp_path / "archive/nowhere.tif").write_bytes(gdal_file(np.ones((3, 600, 600), np.uint8)))
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "archive/photo.png")
    return IndexConfig(
        archive=str(tmp_path / "archive"), models=str(tmp_path / "models"), index=str(tmp_path / "index"),
        components=4, batch_size=8, actors=1, max_failure_rate=0.2, grid=16, tile=128,
    )  # fmt: skip


def test_scenes_of_all_dates_share_the_cells_of_one_grid(config: IndexConfig) -> None:
    first = index_archive(config)
    rows = {row["image_id"]: row for row in Index(config.index).features().to_pylist()}
    assert first["failed"] == 1 and first["rows"] == len(rows) == first["listed"] - 1
    (failure,) = Index(config.index).rows("failures", ["uri", "kind", "message"]).to_pylist()
    assert failure["uri"].endswith("nowhere.tif") and failure["kind"] == "unsupported"
    again = index_archive(config)
    assert counts(again)["listed"] == first["listed"] and again["version"] == first["version"]
    assert "described" not in counts(again)  # and not the failure either

    assert rows["photo.png"]["cell"] is None
    tiles = [row for row in rows.values() if row["cell"]]
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for row in tiles:
        assert row["image_id"].endswith(f"#cell={row['cell']}") and len(row["cell"]) == 16
        assert (row["height"], row["width"]) == (128, 128) and 0.45 < row["covered"] <= 1
        assert row["time"].year == int(row["image_id"].partition("#")[0][-12:-8])
        window, (height, width) = row["window"], SIZE
        assert window["x"] + window["width"] <= width and window["y"] + window["height"] <= height
        by_cell.setdefault(row["cell"], []).append(row)
    shared = {cell: found for cell, found in by_cell.items() if len(found) == len(SCENES)}
    assert len(shared) >= 2
    for found in shared.values():
        assert len({str(row["bbox"]) for row in found}) == 1 and len({row["crs"] for row in found}) == 3
    check_same_place(config.index, shared, rows)

    other = index_archive(replaced(config, grid=17))  # cut anew: all of the old tiles go
    assert other["gone"] == len(tiles) and other["failed"] == 0
    assert {len(row["cell"]) for row in Index(config.index).features().to_pylist() if row["cell"]} == {17}


def check_same_place(uri: str, shared: dict[str, list[dict[str, Any]]], rows: dict[str, Any]) -> None:
    index = rsir.open(uri)
    with serving(local_app(uri)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for cell, found in shared.items():
            dates = [row["image_id"] for row in sorted(found, key=lambda row: row["time"])]
            for row in found:
                hits = index.same_place(row["image_id"])
                assert [hit.image_id for hit in hits] == dates and {hit.cell for hit in hits} == {cell}
                assert [hit.image_id for hit in hits if hit.distance == 0][:1] == [row["image_id"]]
                assert index.same_place(hits[-1]).to_arrow()["image_id"].to_pylist() == dates
                answer = client.post("/search", json={"uri": row["uri"], "same_place": True}).json()
                assert [result["image_id"] for result in answer["results"]] == dates
                assert answer["ranked_by"] == "distance" and answer["query"]["image_id"] == row["image_id"]
                assert [result["covered"] for result in answer["results"]] == [hit.covered for hit in hits]
            late = {"image_id": dates[0], "same_place": True, "start": "2024-02-01"}
            assert [r["image_id"] for r in client.post("/search", json=late).json()["results"]] == dates[1:]
            image = client.get(f"/image/{dates[0].replace('#', '%23')}?around=0.5")
            assert image.status_code == 200 and image.headers["content-type"] == "image/jpeg"
        wrong = client.post("/search", json={"image_id": "photo.png", "same_place": True})
        assert wrong.status_code == 422 and "--grid" in wrong.json()["detail"]
        assert client.post("/search", json={"positive": [dates[0]], "same_place": True}).status_code == 422
        assert client.post("/search", json={"image_id": "none", "same_place": True}).status_code == 404
    with pytest.raises(QueryError, match="--grid"):
        index.same_place("photo.png")
    with pytest.raises(QueryError):
        index.same_place("none.png")

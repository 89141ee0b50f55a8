"""Files to take away, opened by what QGIS opens them with: the same rows whichever the format and the way."""

import csv
import io
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import httpx
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

import rsir_core as rsir
from jobs import rsir as command
from rsir_core import schemas
from rsir_core.archive.labels import label_images
from rsir_core.archive.listing import list_images
from rsir_core.errors import ConfigError
from rsir_core.export.formats import FORMATS, MEDIA_TYPES, Format
from rsir_core.index.index import Index
from rsir_core.index.labels import save_labels
from tests.support.page import place_rows
from tests.support.serving import ONE, copy_of, local_app, serving

FACTORS = ["weighted_distance", "distance", "query_weight", "candidate_weight", "probability"]


class Placed:
    """An index with times and footprints, its endpoint, and a collection: two of its images, and one that is gone."""

    def __init__(self, index: Index, client: httpx.Client) -> None:
        self.index, self.client = index, client
        self.rows = {row["image_id"]: row for row in index.features().to_pylist()}
        self.first, self.last = min(self.rows), max(self.rows)  # without a place; across ±180°
        labels: dict[str, str | None] = {self.first: "good", self.last: "bad", "gone.jpg": "good"}
        save_labels(index, "tanks", labels, dict.fromkeys(labels, "/gone.jpg"), "alice")


@pytest.fixture(scope="module")
def placed(index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    copy = copy_of(index, tmp_path_factory.mktemp("downloads") / "index")
    place_rows(copy)
    with serving(local_app(copy.uri)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield Placed(copy, client)


def opened(data: bytes, kind: Format, folder: Path) -> Any:
    """Open a file as a GIS does; the geometry of a CSV is read as WKT, and bounds become columns."""
    path = folder / f"file.{kind}"
    path.write_bytes(data)
    if kind == "csv":
        frame = pd.read_csv(path)
        return geopandas.GeoDataFrame(frame, geometry=geopandas.GeoSeries.from_wkt(frame.pop("geometry")), crs=4326)
    if kind == "parquet":
        return geopandas.read_parquet(path)
    info = pyogrio.read_info(path)
    assert info["crs"] == "EPSG:4326" and info["features"] > 0
    return geopandas.read_file(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_results_have_ranks_scores_times_and_footprints(placed: Placed, kind: Format, tmp_path: Path) -> None:
    asked = {"image_id": ONE, "k": 60}  # more than a search may ask for
    answer = placed.client.post("/download", params={"format": kind}, json=asked)
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, MEDIA_TYPES[kind])
    assert f'filename="results.{kind}"' in answer.headers["content-disposition"]
    frame = opened(answer.content, kind, tmp_path)
    wanted = placed.client.post("/search", json=asked | {"k": 28}).json()["results"]
    assert frame["image_id"].tolist() == [row["image_id"] for row in wanted]
    assert frame["rank"].tolist() == list(range(1, 29)) and frame.crs.to_authority()[1] in ("4326", "CRS84")
    for name in FACTORS:
        np.testing.assert_allclose(frame[name].to_numpy(float), [row[name] for row in wanted], rtol=1e-6)
    assert frame["uri"].tolist() == [row["uri"] for row in wanted]
    for row, (_, found) in zip(wanted, frame.iterrows(), strict=True):
        box = row["bbox"]
        assert (found["geometry"] is None) == (box is None)
        if box is None:
            assert pd.isna(found["time"])
            continue
        assert pd.Timestamp(found["time"]) == pd.Timestamp(row["time"])
        if box["xmin"] <= box["xmax"]:
            assert found["geometry"].bounds == pytest.approx(tuple(box[edge] for edge in schemas.BBOX_FIELDS))
        else:  # two parts, and not the whole globe between them
            assert found["geometry"].area == pytest.approx(
                (360 + box["xmax"] - box["xmin"]) * (box["ymax"] - box["ymin"])
            )
    region = frame["region"][0]["x"] if kind == "parquet" else frame["region_x"][0]
    assert region == wanted[0]["region"]["x"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_collection_has_labels_and_what_is_known_of_their_images(
    placed: Placed, kind: Format, tmp_path: Path
) -> None:
    answer = placed.client.get("/collections/tanks/download", params={"format": kind})
    frame = opened(answer.content, kind, tmp_path).set_index("image_id")
    assert frame["label"].to_dict() == {placed.first: "good", placed.last: "bad", "gone.jpg": "good"}
    assert set(frame["by"]) == {"alice"} and "tanks." in answer.headers["content-disposition"]
    assert frame["uri"].to_dict() == {
        name: placed.rows[name]["uri"] if name in placed.rows else "/gone.jpg" for name in frame.index
    }
    assert frame["geometry"].isna().to_dict() == {placed.first: True, placed.last: False, "gone.jpg": True}
    assert frame["class"].to_dict()[placed.last] == placed.rows[placed.last]["class"]


def test_the_csv_of_a_collection_is_one_that_training_takes(placed: Placed, tmp_path: Path) -> None:
    placed.client.post("/collections/ships/labels", json={"labels": [
        {"image_id": placed.first, "label": "a, b"}, {"image_id": placed.last, "label": "c"}]})  # fmt: skip
    file = tmp_path / "labels.csv"
    file.write_bytes(placed.client.get("/collections/ships/download").content)
    archive = str(Path(placed.rows[ONE]["uri"]).parents[1])
    assert [label for _, label in label_images(list_images(archive), str(file))] == ["a, b", "c"]


def test_python_and_the_terminal_write_the_same_files(placed: Placed, tmp_path: Path) -> None:
    index = rsir.open(placed.index.uri)
    for kind in FORMATS:
        path = tmp_path / f"hits.{kind}"
        index.search(ONE, k=9).to_file(path)
        served = placed.client.post("/download", params={"format": kind}, json={"image_id": ONE, "k": 9}).content
        ours, theirs = (opened(data, kind, tmp_path) for data in (path.read_bytes(), served))
        pd.testing.assert_frame_equal(ours, theirs)
    index.collection("tanks").to_file(tmp_path / "tanks.gpkg")
    assert len(geopandas.read_file(tmp_path / "tanks.gpkg")) == 3
    out = str(tmp_path / "found.gpkg")
    assert command.main(["search", ONE, "--index", placed.index.uri, "--k", "4", "--out", out]) == 0
    assert len(geopandas.read_file(out)) == 4
    with pytest.raises(ConfigError, match=r"\.csv, "):
        index.search(ONE).to_file(tmp_path / "hits.xlsx")
    assert not list(tmp_path.glob("hits.xlsx*"))


@pytest.mark.parametrize("distance", ["plain", "weighted"])
def test_all_that_are_near_enough_are_found_and_no_others(placed: Placed, distance: str) -> None:
    by = "distance" if distance == "plain" else "weighted_distance"
    asked: dict[str, Any] = {"image_id": ONE, "k": 28, "distance": distance}
    values = [row[by] for row in placed.client.post("/search", json=asked).json()["results"]]
    limit = values[11]
    text = placed.client.post("/download", json=asked | {"k": 100_000, "max_distance": limit}).text
    assert [float(row[by]) for row in csv.DictReader(io.StringIO(text))] == pytest.approx(values[:12])
    found = placed.client.post("/search", json=asked | {"max_distance": limit}).json()["results"]
    assert [row[by] for row in found] == values[:12]
    assert len(rsir.open(placed.index.uri).search(ONE, 28, distance=distance, max_distance=limit)) == 12  # type: ignore[arg-type]


def test_what_cannot_be_taken_away_is_refused_and_no_file_is_left(
    placed: Placed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for params, asked, status in (
        ({"format": "shp"}, {"image_id": ONE}, 422),
        ({}, {"image_id": "none.jpg"}, 404),
        ({}, {"image_id": ONE, "k": 100_001}, 422),
        ({}, {"image_id": ONE, "max_distance": -1}, 422),
    ):
        refused = placed.client.post("/download", params=params, json=asked)
        assert (refused.status_code, list(refused.json())) == (status, ["detail"])
    assert placed.client.get("/collections/.x/download").status_code == 422
    for kind in FORMATS:
        assert placed.client.post("/download", params={"format": kind}, json={"image_id": ONE}).status_code == 200
        empty = placed.client.get("/collections/none/download", params={"format": kind})
        assert empty.status_code == 200, empty.text
    assert placed.client.get("/healthz").status_code == 200  # after which the files of earlier answers are gone
    assert not list(tmp_path.iterdir())


def test_times_and_outlines_come_back_as_they_are(placed: Placed, tmp_path: Path) -> None:
    rows = (
        placed.index.features(columns=[*schemas.FEATURES.names])
        .slice(0, 2)
        .select(["image_id", "time", "bbox", "geometry"])
    )
    outline = shapely.Polygon([(5, 51), (6, 51), (5.5, 52)])
    field = rows.schema.field("geometry")
    rows = rows.set_column(3, field, [[outline.wkb, None]])
    from rsir_core.export.formats import write_file  # noqa: PLC0415

    write_file(rows, tmp_path / "rows.gpkg", "gpkg")
    frame = geopandas.read_file(tmp_path / "rows.gpkg")
    assert frame["geometry"][0].equals(outline)
    assert frame["time"][1] == datetime(2020, 1, 31, 12, tzinfo=UTC)

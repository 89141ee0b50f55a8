"""The Python API: what the endpoint answers, without it."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from PIL import Image

import rsir_core as rsir
from rsir_core import schemas
from rsir_core.archive.labels import folder_label
from rsir_core.errors import ConfigError, ImageError, LabelError, QueryError, StorageError, TableError
from rsir_core.evaluation.metrics import score_retrieval
from rsir_core.index.index import Index
from rsir_core.models.regions import Box, object_region
from tests.support.serving import ONE, Rows, copy_of, publish, upload

FACTORS = ("weighted_distance", "distance", "query_weight", "candidate_weight", "probability")


@pytest.fixture(scope="module")
def opened(index: str) -> rsir.SearchIndex:
    return rsir.open(index)


@pytest.fixture(scope="module")
def placed(index: str, tmp_path_factory: pytest.TempPathFactory) -> rsir.SearchIndex:
    """The index with a square degree for each row but the first, from 0° east on, and days from 2020 on."""
    copy = copy_of(index, tmp_path_factory.mktemp("placed") / "index")
    table = copy.features()
    n = len(table)
    squares = [None, *(shapely.box(i, 0, i + 1, 1) for i in range(1, n))]
    bounds = [square and dict(zip(schemas.BBOX_FIELDS, square.bounds, strict=True)) for square in squares]
    columns = {
        schemas.GEOMETRY: [square and square.wkb for square in squares],
        schemas.BBOX: bounds,
        schemas.CRS: [None, *["EPSG:32631"] * (n - 1)],
        schemas.TIME: [datetime(2020, 1, 1 + i, tzinfo=UTC) for i in range(n)],
    }
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    publish(copy, table, files=2)
    return rsir.open(copy.uri)


# Search


def check_answered(hits: rsir.SearchHits, answer: dict[str, Any]) -> None:
    """Compare hits with the endpoint's answer to the same question."""
    assert (hits.class_name, hits.ranked_by, hits.least_weight, hits.no_match) == (
        answer["query"]["class"], answer["ranked_by"], answer["least_weight"], answer["no_match"],
    )  # fmt: skip
    assert [(h.rank, h.image_id, h.uri, h.class_name) for h in hits] == [
        (r["rank"], r["image_id"], r["uri"], r["class"]) for r in answer["results"]
    ]
    for hit, result in zip(hits, answer["results"], strict=True):
        assert [getattr(hit, name) for name in FACTORS] == pytest.approx([result[name] for name in FACTORS], rel=1e-3)
        assert hit.region._asdict() == result["region"]
        assert (hit.object is None) == (result["object_class"] is None)


def test_every_form_of_an_image_is_answered_as_an_upload_of_it(
    opened: rsir.SearchIndex, client: httpx.Client, stored: Rows, tmp_path: Path
) -> None:
    with Image.open(stored[3]["uri"]) as image:
        pixels = np.asarray(image.convert("RGB"))[:200]
    file = tmp_path / "query.png"
    Image.fromarray(pixels).save(file)
    answer = upload(client, file.read_bytes(), k=7).json()
    for query in (file, str(file), f"file://{file}", file.read_bytes(), Image.fromarray(pixels), pixels):
        check_answered(opened.search(query, k=7), answer)
    (descriptor,) = opened.describe(pixels)
    check_answered(opened.search(descriptor, k=7), answer)


def test_an_indexed_image_is_found_by_id_uri_file_and_hit(
    opened: rsir.SearchIndex, client: httpx.Client, stored: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = [row for row in stored if row["image_id"] == ONE]
    answer = client.post("/search", json={"image_id": ONE, "k": 4}).json()
    hits = opened.search(ONE, k=4)
    assert hits[0].image_id == ONE and hits[0].distance == 0
    copy = shutil.copy(row["uri"], tmp_path / "other.jpg")
    monkeypatch.chdir(Path(row["uri"]).parents[1])
    for query in (ONE, row["uri"], hits[0], copy, Path(row["uri"]).read_bytes()):
        check_answered(opened.search(query, k=4), answer)


def test_a_file_goes_before_an_image_id_of_the_same_name(
    opened: rsir.SearchIndex, stored: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = next(row for row in stored if row["class"] == "river")
    (tmp_path / ONE).parent.mkdir()
    shutil.copy(other["uri"], tmp_path / ONE)
    monkeypatch.chdir(tmp_path)
    assert opened.search(ONE, k=1)[0].image_id == other["image_id"]


def test_a_box_is_described_or_centres_the_key_region(
    opened: rsir.SearchIndex, client: httpx.Client, stored: Rows
) -> None:
    box = [0, 0, 10, 10]
    check_answered(
        opened.search(ONE, 3, box=box), client.post("/search", json={"image_id": ONE, "box": box, "k": 3}).json()
    )
    pixels = np.asarray(Image.open(stored[0]["uri"]).convert("RGB"))
    found = opened.search(pixels, 3, box=box)
    assert found.query.region is not None and found.query.region[:2] == (0, 0)
    around = opened.search(pixels, 3, box=box, box_as="object").query.region
    assert around == object_region(256, 256, Box(*box)) and around != found.query.region


@pytest.mark.parametrize(
    "asked",
    [
        {"classes": ["beach", "river"]}, {"classes": "beach, river"}, {"distance": "plain"}, {"distance": "auto"},
        {"where": [("width", ">", 0), ("class", "in", ["forest"])]}, {"bbox": (0, 0, 1, 1)}, {"start": "2020-01-01"},
        {"near_duplicates": True},
    ],
    ids=str,
)  # fmt: skip
def test_filters_and_orders_are_those_of_the_endpoint(
    opened: rsir.SearchIndex, client: httpx.Client, asked: dict[str, Any]
) -> None:
    answer = client.post("/search", json={"image_id": ONE, "k": 9, **asked}).json()
    hits = opened.search(ONE, 9, **asked)
    check_answered(hits, answer)
    if "near_duplicates" in asked:
        assert [hit.same_picture for hit in hits] == [row["same_picture"] for row in answer["results"]]


def test_places_and_times_are_filtered_and_carried(placed: rsir.SearchIndex) -> None:
    found = placed.search(ONE, 50, bbox=(3.2, 0.2, 5.8, 0.8), end=datetime(2020, 1, 5, tzinfo=UTC))
    assert sorted(hit.time.day for hit in found if hit.time) == [4, 5]
    for hit in found:
        assert hit.footprint is not None and hit.footprint.geom_type == "Polygon"
        assert hit.bbox is not None and tuple(hit.bbox) == hit.footprint.bounds and hit.crs == "EPSG:32631"


@pytest.mark.slow
def test_any_number_of_threads_may_search_one_index(index: str, stored: Rows) -> None:
    shared, queries = rsir.open(index), [row["uri"] for row in stored[:6]] * 3
    pixels = [np.asarray(Image.open(uri).convert("RGB"))[: 256 - 8 * i] for i, uri in enumerate(queries)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda query: [h.image_id for h in shared.search(query, 5)], pixels))
    assert together == [[h.image_id for h in shared.search(query, 5)] for query in pixels]


def test_an_older_version_can_be_opened(index: str, tmp_path: Path) -> None:
    copy = copy_of(index, tmp_path / "index")
    table = copy.features()
    gone = table[schemas.IMAGE_ID][0].as_py()
    publish(copy, table.slice(1))
    assert (len(rsir.open(copy.uri)), len(rsir.open(copy.uri, 1))) == (len(table) - 1, len(table))
    assert rsir.open(copy.uri, version=1).search(gone, 1)[0].image_id == gone
    with pytest.raises(QueryError, match=gone):
        rsir.open(copy.uri).search(gone)


@pytest.mark.parametrize(
    ("query", "asked", "error", "words"),
    [
        ("none/such.jpg", {}, QueryError, r"none/such.jpg is no file.*image id|by its id"),
        ("file:///none/such.jpg", {}, ImageError, "such.jpg"),
        (b"no image", {}, ImageError, "no JPEG"),
        (np.zeros((8, 8, 3), np.float32), {}, QueryError, "8×8×3 float32; give H×W×3 uint8"),
        (np.zeros((8, 8), np.uint8), {}, QueryError, "H×W×3"),
        (7, {}, QueryError, "type int"),
        (ONE, {"k": 0}, QueryError, "k: .*1"),
        (ONE, {"distance": "cosine"}, QueryError, "distance: .*cosine"),
        (ONE, {"classes": ["moon"]}, QueryError, "moon unknown; known are airport"),
        (ONE, {"where": [("colour", "==", 1)]}, QueryError, "colour"),
        (ONE, {"box": (0, 0, 300, 300)}, QueryError, "256×256"),
        (ONE, {"box": (0, 0)}, QueryError, "x0, y0, x1, y1"),
        (ONE, {"box": (0, 0, 9, 9), "box_as": "middle"}, QueryError, "auto, object, centre"),
        (ONE, {"start": "2021-01-01", "end": "2020-01-01"}, QueryError, "later"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    opened: rsir.SearchIndex, query: Any, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        opened.search(query, **asked)


def test_a_descriptor_that_is_a_row_up_to_rounding_takes_the_rows(opened: rsir.SearchIndex, stored: Rows) -> None:
    row = stored[2]
    feature, p = (np.array(row[name], np.float32) for name in ("feature", "class_probabilities"))
    hits = opened.search(rsir.Descriptor(None, None, feature + np.float32(1e-5), p), 2)
    assert (hits[0].image_id, hits[0].distance) == (row["image_id"], 0)


def test_descriptors_that_do_not_fit_are_refused(opened: rsir.SearchIndex) -> None:
    (good,) = opened.describe(np.zeros((64, 64, 3), np.uint8))
    short = rsir.Descriptor(None, None, good.feature[:-1], good.class_probabilities)
    with pytest.raises(QueryError, match="feature: 7 numbers; this index has 8"):
        opened.search(short)
    with pytest.raises(QueryError, match="sum to 2"):
        opened.search(rsir.Descriptor(None, None, good.feature, 2 * good.class_probabilities))


def test_an_index_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"no index at .*jobs\.index"):
        rsir.open(tmp_path / "none")


def test_what_the_package_offers_is_there() -> None:
    assert all(getattr(rsir, name) for name in rsir.__all__)
    with pytest.raises(AttributeError, match="Opener"):
        rsir.Opener  # noqa: B018


# Describe, measure, write


def test_images_are_described_as_the_rows_were(opened: rsir.SearchIndex, stored: Rows) -> None:
    described = opened.describe(row["uri"] for row in stored[:20])
    for found, row in zip(described, stored, strict=False):
        assert found.feature.tolist() == pytest.approx(row["feature"], abs=1e-4)
        assert found.class_probabilities.tolist() == pytest.approx(row["class_probabilities"], abs=1e-4)
        assert found.region is not None and found.region._asdict() == row["region"]
    assert len(described) == 20 and opened.describe([]) == []
    with pytest.raises(QueryError, match="type int"):
        opened.describe([stored[0]["uri"], 3])  # type: ignore[list-item]


def test_scores_are_those_of_the_evaluation(opened: rsir.SearchIndex, stored: Rows, tmp_path: Path) -> None:
    feature, p = (np.array([row[name] for row in stored], np.float32) for name in ("feature", "class_probabilities"))
    labels = [folder_label(row["image_id"]) for row in stored]
    for weighted in (True, False):
        wanted = score_retrieval(feature, p, labels, weighted)
        found = opened.evaluate(weighted=weighted)
        assert (found.map, found.anmrr, found.queries) == (wanted.map, wanted.anmrr, len(stored))
        assert found.map_per_label.keys() == set(labels)
    few = {row["image_id"]: label for row, label in zip(stored, labels, strict=True) if label in ("beach", "river")}
    chosen = opened.evaluate(few)
    assert chosen.queries == len(few) and chosen.map_per_label.keys() == {"beach", "river"}
    split = tmp_path / "split.csv"
    lines = [f"{row['uri']},{few[row['image_id']]},test\n" for row in stored if row["image_id"] in few]
    split.write_text("uri,label,split\n" + "".join(lines))
    assert opened.evaluate(split) == chosen
    by_uri = {row["uri"]: row["image_id"] for row in stored}
    mixed = {uri if i % 2 else by_uri[uri]: few[by_uri[uri]] for i, uri in enumerate(by_uri) if by_uri[uri] in few}
    assert opened.evaluate(mixed) == chosen
    with pytest.raises(LabelError, match=r"1 of 2 labels .*moon"):
        opened.evaluate({ONE: "beach", "moon.jpg": "moon"})


def test_rows_are_written_as_geoparquet(placed: rsir.SearchIndex, tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    placed.to_geoparquet(tmp_path / "new" / "rows.parquet")
    frame = geopandas.read_parquet(tmp_path / "new" / "rows.parquet")
    assert len(frame) == len(placed) and frame.crs == "OGC:CRS84"
    assert sorted(shape.bounds[0] for shape in frame.geometry if shape) == list(range(1, len(placed)))
    written = pq.read_table(tmp_path / "new" / "rows.parquet").sort_by(schemas.IMAGE_ID)
    assert written.equals(Index(placed.uri).features())
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder"):
        placed.to_geoparquet(tmp_path / "folder")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["rows.parquet"]


# Hits


def test_hits_are_tables(placed: rsir.SearchIndex) -> None:
    hits = placed.search(ONE, 5)
    frame = hits.to_pandas()
    assert frame["rank"].tolist() == [1, 2, 3, 4, 5] and frame["image_id"].tolist() == [h.image_id for h in hits]
    assert frame["region.width"].tolist() == [h.region.width for h in hits]
    assert frame["footprint"].tolist() == [h.footprint for h in hits]
    assert len(hits[1:3]) == 2 and hits.to_arrow().num_rows == len(hits) == 5 and ONE in repr(hits)
    placed_hits = placed.search(ONE, 5, bbox=(0, 0, 90, 90))
    geopandas = pytest.importorskip("geopandas")
    places = placed_hits.to_geopandas()
    assert isinstance(places, geopandas.GeoDataFrame) and places.crs == "EPSG:4326"
    assert places.geometry.tolist() == [h.footprint for h in placed_hits]


def test_no_hits_are_tables_and_pictures_too(opened: rsir.SearchIndex) -> None:
    none = opened.search(ONE, bbox=(0, 0, 1, 1))
    assert list(none) == [] and len(none.to_pandas()) == 0 and "query" in none.to_html()


def test_a_missing_package_is_named_with_its_remedy(opened: rsir.SearchIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    hits = opened.search(ONE, 1)
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(ConfigError, match=r"geopandas.*pip install 'rsir\[notebook\]'"):
        hits.to_geopandas()


def test_hits_are_pictures_in_a_notebook(index: str, stored: Rows, tmp_path: Path) -> None:
    copy = copy_of(index, tmp_path / "index")
    table = copy.features()
    place = table[schemas.IMAGE_ID].to_pylist().index(ONE)
    ids, uris = table[schemas.IMAGE_ID].to_pylist(), table[schemas.URI].to_pylist()
    ids[place], uris[(place + 1) % len(uris)] = "<b>&.jpg", "/none/such.jpg"
    for name, values in ((schemas.IMAGE_ID, ids), (schemas.URI, uris)):
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    publish(copy, table)
    hits = rsir.open(copy.uri).search("<b>&.jpg", len(stored))
    page = hits._repr_html_()
    assert page.count("data:image/jpeg;base64,") + page.count("no picture") == 13  # the query and the first twelve
    assert "&lt;b&gt;&amp;.jpg" in page and "<b>&.jpg" not in page and "<script" not in page
    assert f"and {len(stored) - 12} more" in page and len(page) < 200_000
    everything = rsir.open(copy.uri).search("<b>&.jpg", 3, where=[("uri", "==", "/none/such.jpg")])
    assert everything.to_html().count("no picture") == 1

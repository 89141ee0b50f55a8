"""Archives of embeddings by others: which columns are read, what is listed, when a row counts as changed."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from rsir_core.archive.vector_columns import AUTO, choose_columns, parse_columns
from rsir_core.archive.vectors import explain_vector, list_vectors, open_vectors, read_pieces
from rsir_core.errors import ArchiveError
from rsir_core.geo.geometries import bounds_of, to_degrees

D = 4
LIST, TEXT, WKB = pa.list_(pa.float32()), pa.string(), pa.binary()
CLAY_0 = {"index": pa.int64(), "source_url": TEXT, "date": pa.date32(), "embeddings": LIST, "geometry": WKB}
CLAY_15 = {"chips_id": TEXT, "cell_id": TEXT, "stac_item_id": TEXT, "datetime": pa.timestamp("ms"), "embedding": LIST,
           "geometry": WKB}  # fmt: skip
EARTH_INDEX = {"id": TEXT, "geometry": WKB, "embedding": pa.list_(pa.float32(), D)}
MAJOR_TOM = {"unique_id": TEXT, "embedding": LIST, "timestamp": TEXT, "grid_cell": TEXT, "centre_lat": pa.float64(),
             "geometry": WKB, "parquet_url": TEXT}  # fmt: skip


def write(path: Path, seed: int = 0, n: int = 10, **more: Any) -> pa.Table:
    """A file of vectors with ids, and what else is given."""
    vectors = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    columns = {"id": [f"{path.stem}{i}" for i in range(n)], "embedding": pa.array(vectors.tolist(), LIST), **more}
    table = pa.table(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)
    return table


def etags(path: Path, **named: str) -> dict[str, str]:
    listing = list_vectors(open_vectors(str(path), AUTO, named)).listing
    return dict(zip(listing["image_id"].to_pylist(), listing["etag"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        (CLAY_0, ("embeddings", None, "source_url", "geometry", "date")),
        (CLAY_15, ("embedding", "chips_id", None, "geometry", "datetime")),
        (EARTH_INDEX, ("embedding", "id", None, "geometry", None)),
        (MAJOR_TOM, ("embedding", "unique_id", None, "geometry", "timestamp")),
    ],
)
def test_published_layouts_are_known(layout: dict[str, pa.DataType], wanted: tuple[str | None, ...]) -> None:
    assert choose_columns(pa.schema(layout.items()), AUTO, {}, "f")[:5] == wanted


def test_columns_are_those_that_are_named() -> None:
    schema = pa.schema({**CLAY_0, "other": pa.large_list(pa.float64()), "name": TEXT}.items())
    named = parse_columns("id=name,geometry=none")
    assert choose_columns(schema, "other", named, "f")[:5] == ("other", "name", "source_url", None, "date")


@pytest.mark.parametrize(
    ("vector", "named", "said"), [("none", {}, "missing"), ("date", {}, "date32"), (AUTO, {"id": "geometry"}, "binary")]
)
def test_columns_that_do_not_suit_are_refused(vector: str, named: dict[str, str], said: str) -> None:
    with pytest.raises(ArchiveError, match=said):
        choose_columns(pa.schema(CLAY_0.items()), vector, named, "f")
    with pytest.raises(ArchiveError, match="no column of vectors"):
        choose_columns(pa.schema({"a": TEXT}.items()), AUTO, {}, "f")
    with pytest.raises(ValueError, match="color"):
        parse_columns("color=red")


def test_a_row_changes_with_anything_that_is_read_of_it_and_with_nothing_else(tmp_path: Path) -> None:
    path, day, home = tmp_path / "v.parquet", date(2024, 5, 1), shapely.to_wkb(shapely.Point(1, 2))
    once = {"date": day, "uri": "s3://b/x.tif", "geometry": home, "note": "a"}
    about: dict[str, Any] = {name: [value] * 10 for name, value in once.items()}
    table = write(path, **about)
    before = etags(path)
    assert len(set(before.values())) == len(before) == 10
    pq.write_table(table.take(list(range(9, -1, -1))), path, row_group_size=3, compression="gzip")
    assert etags(path) == before
    write(path, **about | {"note": ["b"] * 10})
    assert etags(path) == before
    changes: list[tuple[str, Any]] = [("date", date(2024, 5, 2)), ("uri", "s3://b/y.tif"), ("geometry", home[::-1])]
    for name, value in changes:
        write(path, **about | {name: [*about[name][:3], value, *about[name][4:]]})
        assert {i for i, tag in etags(path).items() if tag != before[i]} == {"v3"}
    rows = table["embedding"].to_pylist()
    rows[5][2] = np.nextafter(np.float32(rows[5][2]), np.float32(9))
    write(path, **about | {"embedding": pa.array(rows, LIST)})
    assert {i for i, tag in etags(path).items() if tag != before[i]} == {"v5"}


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16()), pa.list_(pa.int8(), D)]
)
def test_vectors_of_any_type_are_read(tmp_path: Path, kind: pa.DataType) -> None:
    wanted = np.array([[1, -2, 3, 4], [5, 6, -7, 8]])
    numbers = wanted.astype(kind.value_type.to_pandas_dtype())
    array = pa.array(list(numbers), kind)
    pq.write_table(pa.table({"vector": array}), tmp_path / "v.parquet")
    archive = open_vectors(str(tmp_path), AUTO, {})
    (piece,) = read_pieces(archive, archive.groups[0])
    assert archive.dimensions == D and piece["embedding"].to_pylist() == wanted.tolist()


def test_files_of_a_folder_are_one_archive(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 1)
    write(tmp_path / "deep" / "b.geoparquet", 2)
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / ".hidden" / "c.parquet", 3)
    (tmp_path / "readme.txt").write_text("no vectors")
    assert set(etags(tmp_path)) == {f"{stem}{i}" for stem in "ab" for i in range(10)}
    numbered = etags(tmp_path, id="none")
    assert set(numbered) == {f"{name}#row={i}" for name in ("a.parquet", "deep/b.geoparquet") for i in range(10)}


def test_what_cannot_be_an_archive_is_refused(tmp_path: Path) -> None:
    for uri, said in ((tmp_path / "none.parquet", "does not exist"), (tmp_path, "no file with")):
        with pytest.raises(ArchiveError, match=said):
            open_vectors(str(uri), AUTO, {})
    path = tmp_path / "v.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(ArchiveError, match="cannot be read as Parquet"):
        open_vectors(str(path), AUTO, {})
    write(path, id=["same"] * 10)
    with pytest.raises(ArchiveError, match=r"same.*id=none"):
        list_vectors(open_vectors(str(path), AUTO, {}))
    write(tmp_path / "a.parquet", geometry=[b""] * 10)
    write(path)
    with pytest.raises(ArchiveError, match=r"v\.parquet lacks the column 'geometry'"):
        list_vectors(open_vectors(str(tmp_path), AUTO, {}))


def test_a_remote_archive_names_no_local_image(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    write(tmp_path / "v.parquet", uri=["s3://b/x.tif"] * 9 + ["/etc/passwd"])
    memory.pipe("/vectors/v.parquet", (tmp_path / "v.parquet").read_bytes())
    with pytest.raises(ArchiveError, match="/etc/passwd"):
        list_vectors(open_vectors("memory://vectors", AUTO, {}))
    assert len(list_vectors(open_vectors("memory://vectors", AUTO, {"uri": "none"})).listing) == 10


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pa.array([date(2024, 5, 1)]), datetime(2024, 5, 1, tzinfo=UTC)),
        (pa.array([datetime(2024, 5, 1, 2, 3)]), datetime(2024, 5, 1, 2, 3, tzinfo=UTC)),
        (pa.array(["20240501T020304"]), datetime(2024, 5, 1, 2, 3, 4, tzinfo=UTC)),
        (pa.array(["2024-05-01T02:00:00+02:00"]), datetime(2024, 5, 1, tzinfo=UTC)),
        (pa.array(["in May"]), None),
    ],
)
def test_times_of_every_kind_are_read(tmp_path: Path, column: pa.Array, wanted: datetime | None) -> None:
    pq.write_table(pa.table({"vector": pa.array([[1.0] * D]), "time": column}), tmp_path / "v.parquet")
    listing = list_vectors(open_vectors(str(tmp_path), AUTO, {})).listing
    assert listing["time"].to_pylist() == [wanted]


def test_bad_vectors_are_explained() -> None:
    good = np.ones(D)
    assert explain_vector(good, D) is None
    bad = [None, good[:3], good * np.nan, good * np.inf, good * 0]
    assert all(explain_vector(vector, D) is not None for vector in bad)


def test_geometries_get_their_bounds_also_across_the_antimeridian() -> None:
    fiji = shapely.MultiPolygon([shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -178, -16)])
    found = bounds_of(np.array([shapely.Point(5, 6), fiji, None, shapely.Polygon(), shapely.Point(1e6, 0)], object))
    assert found == [(5, 6, 5, 6), (177, -19, -178, -16), None, None, None]


def test_geometries_are_reprojected_as_geoparquet_says(tmp_path: Path) -> None:
    about = {"columns": {"geometry": {"encoding": "WKB", "crs": {"id": {"authority": "EPSG", "code": 32633}}}}}
    schema = pa.schema(EARTH_INDEX.items(), {"geo": json.dumps({"primary_column": "geometry", **about})})
    columns = choose_columns(schema, AUTO, {}, "f")
    assert columns.crs == "EPSG:32633"
    (point,) = to_degrees(np.array([shapely.Point(500_000, 5_000_000)], object), columns.crs)
    assert (point.x, point.y) == pytest.approx((15, 45.15), abs=0.01)
    with pytest.raises(ValueError, match="EPSG:1"):
        to_degrees(np.array([shapely.Point(0, 0)], object), "EPSG:1")

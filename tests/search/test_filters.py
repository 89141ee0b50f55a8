"""Filters: what passes is what a person would say of each row, and clusters never hide one of them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.arrays import Mask
from rsir_core.errors import QueryError
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.retrieval.partition import SCHEMA
from rsir_core.search import filters
from rsir_core.search.clusters import Clusters, Ranges, make_clusters
from rsir_core.search.filter_options import Operator
from rsir_core.search.filters import EVERYTHING, Filter, columns_to_ask

Row = dict[str, Any]

CLASSES = ("beach", "forest", "river")
NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
TESTS: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "not in": lambda a, b: a not in b,
}
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "height": st.integers(0, 3) | st.sampled_from([0.5, 2.0, -1, 2**40]),
    "object_score": st.sampled_from([0.1, 0.5, float(np.float32(0.1)), 1]),
    "notes": st.sampled_from(["", "a", "ä", "b" * 50]),
    "class": st.sampled_from(CLASSES),
    "time": st.integers(-2, 2).map(lambda days: NOON + timedelta(days=days)),
}

longitudes = st.integers(-18, 18).map(lambda n: n * 10.0)  # so coarse that edges touch, the antimeridian's as well
latitudes = st.lists(st.integers(-9, 9).map(lambda n: n * 10.0), min_size=2, max_size=2).map(sorted)
footprints = st.builds(lambda w, ns, e: BoundingBox(w, ns[0], e, ns[1]), longitudes, latitudes, longitudes)
times = st.none() | VALUES["time"]
edges_of_rows = footprints.map(lambda f: dict(zip(("xmin", "ymin", "xmax", "ymax"), f, strict=True)))
corners = st.lists(st.tuples(longitudes, latitudes.map(lambda ns: ns[0])), min_size=3, max_size=5).map(tuple)
polygons = corners.filter(lambda c: shapely.Polygon(c).is_valid)


def with_outline(row: Row) -> Row:
    """Half of the footprints are known by their outlines: here triangles that fill half of the bounds."""
    box = row["bbox"]
    if box is None or box["xmin"] > box["xmax"] or row["height"] % 2:
        return row
    outline = shapely.Polygon([(box["xmin"], box["ymin"]), (box["xmax"], box["ymin"]), (box["xmin"], box["ymax"])])
    return {**row, "geometry": shapely.to_wkb(outline)}


stored_rows = st.fixed_dictionaries(
    {
        "class": st.sampled_from(CLASSES),
        "time": times,
        "bbox": st.none() | edges_of_rows,
        "height": st.integers(0, 3),
        "object_score": st.none() | st.sampled_from([0.1, 0.5]).map(lambda x: float(np.float32(x))),
        "notes": st.none() | VALUES["notes"],
    }
).map(with_outline)


@st.composite
def predicates(draw: st.DrawFn) -> tuple[str, Operator, Any]:
    column = draw(st.sampled_from(sorted(VALUES)))
    asked = draw(st.sampled_from(sorted(TESTS)))
    one = VALUES[column]
    return column, asked, draw(st.lists(one, max_size=3) if asked in ("in", "not in") else one)


some_filters = st.builds(
    Filter,
    classes=st.none() | st.lists(st.sampled_from(CLASSES), max_size=2).map(tuple),
    start=times,
    end=times,
    bbox=st.none() | footprints,
    where=st.lists(predicates(), max_size=3).map(tuple),
    polygon=st.none() | polygons,
)


def passes(row: Row, wanted: Filter) -> bool:
    """The filter's definition, for one row."""
    time, bbox = row["time"], row["bbox"]
    return (
        (wanted.classes is None or row["class"] in wanted.classes)
        and (wanted.start is None or (time is not None and time >= wanted.start))
        and (wanted.end is None or (time is not None and time <= wanted.end))
        and (wanted.bbox is None or (bbox is not None and meet(BoundingBox(*bbox.values()), wanted.bbox)))
        and (wanted.polygon is None or (bbox is not None and meets_polygon(row, wanted.polygon)))
        and all(row[c] is not None and TESTS[asked](row[c], value) for c, asked, value in wanted.where)
    )


def meets_polygon(row: Row, corners: tuple[tuple[float, float], ...]) -> bool:
    if row.get("geometry"):
        return bool(shapely.Polygon(corners).intersects(shapely.from_wkb(row["geometry"])))
    west, south, east, north = row["bbox"].values()
    parts = [(west, east)] if west <= east else [(west, 180), (-180, east)]
    return any(shapely.Polygon(corners).intersects(shapely.box(w, south, e, north)) for w, e in parts)


def meet(a: BoundingBox, b: BoundingBox) -> bool:
    """Two arcs of a circle meet if one of them begins in the other."""
    over = in_arc(a.west, b) or in_arc(b.west, a)
    return over and a.south <= b.north and b.south <= a.north


def in_arc(longitude: float, f: BoundingBox) -> bool:
    width = 360 if f.east - f.west == 360 else (f.east - f.west) % 360
    return (longitude - f.west) % 360 <= width


def stored(found: list[Row], seed: int = 0) -> tuple[list[Row], pa.Table, Clusters]:
    """Rows as an index holds them: in their clusters' runs."""
    rng = np.random.default_rng(seed)
    feature = rng.normal(size=(len(found), 2)).astype(np.float32)
    of_class = np.array([CLASSES.index(row["class"]) for row in found], np.int64)
    order, clusters = make_clusters(
        feature, of_class, np.ones((len(found), len(CLASSES)), np.float32), Ranges.of(table_of(found))
    )
    ordered = [found[i] for i in order]
    return ordered, table_of(ordered), clusters


def table_of(found: list[Row]) -> pa.Table:
    """In chunks of 3, as of several files."""
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA])
    pieces = [pa.Table.from_pylist(found[i : i + 3], schema) for i in range(0, len(found), 3)]
    return pa.concat_tables([schema.empty_table(), *pieces])


def answer(found: list[Row], wanted: Filter) -> tuple[list[bool], list[bool]]:
    """Which rows pass, as they lie in their clusters: by the filter, and by its definition."""
    ordered, table, clusters = stored(found)
    mask = wanted.rows(table, clusters, CLASSES)
    return [True] * len(found) if mask is None else mask.tolist(), [passes(row, wanted) for row in ordered]


@given(st.lists(stored_rows, max_size=30), some_filters)
def test_a_row_passes_if_the_definition_says_so(found: list[Row], wanted: Filter) -> None:
    passed, expected = answer(found, wanted)
    assert passed == expected


@given(st.lists(stored_rows, min_size=1, max_size=30), some_filters, st.sampled_from([0, 2, 100]))
def test_whatever_lies_between_two_spans(found: list[Row], wanted: Filter, gap: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filters, "GAP", gap)
        passed, expected = answer(found, wanted)
        assert passed == expected


@given(st.lists(stored_rows, min_size=9, max_size=60), some_filters)
def test_a_row_that_passes_lies_in_a_cluster_that_can_have_one(found: list[Row], wanted: Filter) -> None:
    ordered, _, clusters = stored(found)
    possible = np.repeat(wanted._possible(clusters, CLASSES), clusters.count)
    assert all(can for row, can in zip(ordered, possible, strict=True) if passes(row, wanted))


@given(footprints, footprints)
def test_footprints_meet_as_arcs_do(a: BoundingBox, b: BoundingBox) -> None:
    row = {"class": "beach", "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), a, strict=True)), "time": None}
    assert answer([row], Filter(bbox=b)) == ([meet(a, b)], [meet(a, b)])


@pytest.mark.parametrize(
    ("row", "asked", "meets"),
    [
        ((170, 0, 180, 1), (-180, 0, -170, 1), True),  # on either side, touching
        ((-180, 0, -170, 1), (170, 0, 180, 1), True),
        ((170, 0, 179, 1), (-179, 0, -170, 1), False),
        ((175, 0, -175, 1), (176, 0, 177, 1), True),  # the row is across
        ((175, 0, -175, 1), (-177, 0, -176, 1), True),
        ((175, 0, -175, 1), (-174, 0, 174, 1), False),
        ((-179, 0, -178, 1), (170, 0, -170, 1), True),  # the question is
        ((0, 0, 1, 1), (170, 0, -170, 1), False),
        ((175, 0, -175, 1), (179, 0, -179, 1), True),  # both are
        ((-180, -90, 180, 90), (179, 0, -179, 1), True),
        ((0, 0, 10, 10), (10, 10, 20, 20), True),  # corners touch
        ((0, 0, 10, 10), (0, 10.001, 10, 20), False),
    ],
)
def test_boxes_at_the_antimeridian(row: tuple[float, ...], asked: tuple[float, ...], meets: bool) -> None:
    bbox = dict(zip(("xmin", "ymin", "xmax", "ymax"), map(float, row), strict=True))
    assert answer([{"class": "beach", "time": None, "bbox": bbox}], Filter(bbox=BoundingBox(*asked))) == (
        [meets],
        [meets],
    )


def test_no_filter_is_no_mask() -> None:
    _, table, clusters = stored([{"class": "beach", "bbox": None, "time": None}])
    assert EVERYTHING.rows(table, clusters, CLASSES) is None


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(classes=("river",)),
        Filter(classes=()),
        Filter(start=NOON + timedelta(days=9)),
        Filter(end=NOON - timedelta(days=9)),
        Filter(bbox=BoundingBox(20, 20, 30, 30)),
        Filter(bbox=BoundingBox(170, 0, -170, 10), where=(("height", ">", 0),)),
    ],
)
def test_what_no_cluster_can_have_is_answered_without_looking(monkeypatch: pytest.MonkeyPatch, wanted: Filter) -> None:
    bbox = {"xmin": 0.0, "ymin": 0.0, "xmax": 10.0, "ymax": 10.0}
    found = [{"class": c, "bbox": bbox, "time": NOON, "height": 1} for c in ("beach", "forest")] * 20
    _, table, clusters = stored(found)
    looked_at: list[int] = []
    evaluate = filters._evaluate

    def counting(table: pa.Table, test: pc.Expression) -> Mask:
        looked_at.append(len(table))
        return evaluate(table, test)

    monkeypatch.setattr(filters, "_evaluate", counting)
    mask = wanted.rows(table, clusters, CLASSES)
    assert mask is not None and not mask.any()
    assert sum(looked_at) == 0


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Filter(classes=("moon", "beach")), "classes: moon unknown; known are beach, forest, river"),
        (Filter(where=(("colour", "==", 1),)), "no column 'colour'; there are image_id"),
        (Filter(where=(("bbox", "==", 1),)), "no column 'bbox'"),
        (Filter(where=(("feature", "==", 1),)), "no column 'feature'"),
        (Filter(where=(("height", "==", "tall"),)), "height holds numbers; it cannot be compared with 'tall'"),
        (Filter(where=(("height", "==", True),)), "compared with True"),
        (Filter(where=(("height", "in", [1, None]),)), "compared with None"),
        (Filter(where=(("height", "in", [1, "2"]),)), "compared with '2'"),
        (Filter(where=(("height", "in", 1),)), "height in takes a list, got 1"),
        (Filter(where=(("notes", "in", "ab"),)), "notes in takes a list, got 'ab'"),
        (Filter(where=(("notes", "<", ["a"]),)), "notes < takes one value"),
        (Filter(where=(("notes", "==", 1),)), "notes holds texts"),
        (Filter(where=(("notes", "==", "\ud800"),)), "cannot be compared"),
        (Filter(where=(("time", ">", 5),)), "time holds times"),
        (Filter(where=(("time", ">", "yesterday"),)), "'yesterday' is no ISO 8601 time"),
        (Filter(where=(("height", ">", 2**70),)), "cannot be compared"),
        (Filter(where=(("height", "in", [2**70]),)), "cannot be compared"),
        (Filter(where=(("object_score", "==", 2**60 + 1),)), "does not go with its column"),
    ],
)
@pytest.mark.parametrize("count", [0, 3])  # also where there is no row to find it out by
def test_what_cannot_be_asked_is_refused_in_words(wanted: Filter, words: str, count: int) -> None:
    _, table, clusters = stored([{"class": "beach", "bbox": None, "time": None, "height": 1}] * count)
    with pytest.raises(QueryError, match=words.replace("(", r"\(")) as refused:
        wanted.rows(table, clusters, CLASSES)
    assert refused.value.kind == "invalid"


def test_a_time_may_be_given_as_text() -> None:
    found = [{"class": "beach", "bbox": None, "time": time} for time in (NOON, NOON + timedelta(days=1), None)]
    _, table, clusters = stored(found)
    for text, count in (("2024-02-29T12:00:00Z", 1), ("2024-02-29T13:00:00+01:00", 1), ("2024-03-02", 2)):
        mask = Filter(where=(("time", "<=", text),)).rows(table, clusters, CLASSES)
        assert mask is not None and mask.sum() == count, text


def test_columns_of_one_value_can_be_asked_for() -> None:
    assert columns_to_ask(SCHEMA) == [
        "image_id", "uri", "height", "width", "notes", "time", "object_class", "object_score", "class", "crs",
        "cell", "covered",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_polygon_keeps_the_footprints_that_meet_it_and_no_others(seed: int) -> None:
    """Small footprints all around: many meet the polygon's bounds alone."""
    rng = np.random.default_rng(seed)
    found: list[Row] = []
    for i, (west, south) in enumerate(rng.uniform((-180, -80), (180, 80), (400, 2))):
        east = west + 8 if west < 172 else west + 8 - 360
        box = dict(zip(("xmin", "ymin", "xmax", "ymax"), (west, south, east, south + 8), strict=True))
        found.append(with_outline({"class": "beach", "bbox": box, "time": None, "height": i}))
    polygon = tuple((float(x), float(y)) for x, y in rng.uniform((-180, -80), (180, 80), (3, 2)))
    got, expected = answer(found, Filter(polygon=polygon))
    assert got == expected == [meets_polygon(row, polygon) for row in stored(found)[0]]
    assert 0 < sum(got) < len(got)

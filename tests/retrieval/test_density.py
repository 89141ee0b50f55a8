"""Counts by cells are those that a person would count, whatever the shares of the rows, and few."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rsir_core import schemas
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.retrieval.density import CELLS, CellCounts, cell_size, count_cells, merge_cells

latitudes = st.lists(st.floats(-90, 90), min_size=2, max_size=2).map(sorted)
boxes = st.builds(
    lambda w, ns, e: BoundingBox(w, ns[0], e, ns[1]), st.floats(-180, 180), latitudes, st.floats(-180, 180)
)


def column_of(found: list[BoundingBox | None]) -> pa.ChunkedArray:
    rows: list[Any] = [box and dict(zip(schemas.BBOX_FIELDS, box, strict=True)) for box in found]
    kind = schemas.FEATURES.field(schemas.BBOX).type
    return pa.chunked_array([rows[i : i + 3] for i in range(0, len(rows), 3)], kind)


def counted(found: CellCounts) -> dict[tuple[int, int], int]:
    _, column, row, count = found
    return dict(zip(zip(column.tolist(), row.tolist(), strict=True), count.tolist(), strict=True))


@given(st.lists(st.none() | boxes, max_size=20), st.integers(0, 10), st.integers(1, 3))
def test_each_footprint_counts_in_the_cell_of_its_middle(
    found: list[BoundingBox | None], level: int, parts: int
) -> None:
    degrees = 360 / 2**level
    expected: Counter[tuple[int, int]] = Counter()
    for box in found:
        if box is not None:
            turn = 360 if box.west > box.east else 0
            middle = ((box.west + box.east + turn) / 2 + 180) % 360, (box.south + box.north) / 2 + 90
            expected[int(middle[0] // degrees), int(middle[1] // degrees)] += 1
    shares = [count_cells(column_of(found[part::parts]), degrees) for part in range(parts)]
    assert counted(merge_cells(shares)) == expected


@given(boxes.filter(lambda box: box.west <= box.east))
def test_few_cells_span_any_bounds_and_no_fewer_than_needed(bounds: BoundingBox) -> None:
    degrees = cell_size(bounds)
    span = max(bounds.east - bounds.west, bounds.north - bounds.south)
    assert span / degrees <= CELLS * (1 + 1e-9)
    assert span / degrees > CELLS / 2 * (1 - 1e-9) or degrees == 360 / 2**24
    assert np.log2(360 / degrees) % 1 == 0

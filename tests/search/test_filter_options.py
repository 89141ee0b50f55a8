"""One filter, however it is written: on the command line, in a form, in JSON or in a YAML file."""

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.command import parse
from jobs.querying.options import QueryConfig
from rsir_core.geo.bounding_box import BoundingBox
from rsir_core.search.filter_options import FilterOptions
from rsir_core.search.filters import EVERYTHING, Filter

TEXTS = {
    "classes": "beach, river,beach",
    "start": "2024-01-15",
    "end": "2024-01-15T10:00+02:00",
    "bbox": "170,-5,-170,5",
    "where": '[["width", ">=", 3], ["class", "in", ["a", "b"]]]',
    "polygon": "[[10, 40], [20, 40], [15.5, 50]]",
}
VALUES = {**TEXTS, "classes": ["beach", "river"], "bbox": [170, -5, -170, 5], "where": json.loads(TEXTS["where"]),
          "polygon": json.loads(TEXTS["polygon"])}  # fmt: skip
MEANT = Filter(
    ("beach", "river"),
    datetime(2024, 1, 15, tzinfo=UTC),
    datetime(2024, 1, 15, 8, tzinfo=UTC),
    BoundingBox(170, -5, -170, 5),
    (("width", ">=", 3), ("class", "in", ["a", "b"])),
    ((10.0, 40.0), (20.0, 40.0), (15.5, 50.0)),
)


def test_texts_json_and_the_command_line_mean_the_same() -> None:
    argv = ["--queries", "q", "--index", "i", "--out", "o", *(f"--{name}={text}" for name, text in TEXTS.items())]
    for options in (
        FilterOptions.model_validate(TEXTS),
        FilterOptions.model_validate_json(json.dumps(VALUES)),
        FilterOptions.model_validate({**VALUES, "start": date(2024, 1, 15)}),  # as YAML reads it
        parse(QueryConfig, "query", argv),
    ):
        assert Filter.of(options) == MEANT
    assert Filter.of(FilterOptions()) == EVERYTHING


@given(st.tuples(*[st.floats(-180, 180), st.floats(-90, 90)] * 2))
def test_boxes_are_taken_where_south_lies_south_of_north(edges: tuple[float, float, float, float]) -> None:
    text = ",".join(map(repr, edges))
    if edges[1] <= edges[3]:
        assert Filter.of(FilterOptions.model_validate({"bbox": text})).bbox == BoundingBox(*edges)
    else:
        with pytest.raises(ValidationError, match="south"):
            FilterOptions.model_validate({"bbox": text})


@pytest.mark.parametrize(
    "wrong",
    [
        {"bbox": "1,2,3"},
        {"bbox": "1,2,3,4,5"},
        {"bbox": "181,0,0,1"},
        {"bbox": "0,0,1,91"},
        {"bbox": "0,0,1,nan"},
        {"bbox": "a,0,1,1"},
        {"polygon": "[[0, 0], [1, 1]]"},
        {"polygon": "[[0, 0], [1, 1], [2, 2]]"},  # a line
        {"polygon": "[[0, 0], [1, 1], [1, 0], [0, 1]]"},  # crosses itself
        {"polygon": "[[0, 0], [181, 0], [0, 1]]"},
        {"polygon": "0,0,1,1,1,0"},
        {"start": "2020"},  # not so many seconds since 1970
        {"start": 2020},
        {"start": 20_240_115},
        {"end": "yesterday"},
        {"start": "2024-01-16", "end": "2024-01-15"},
        {"classes": ""},
        {"classes": " , "},
        {"where": '[["width", "~", 3]]'},
        {"where": "width > 3"},
        {"what": "x"},
    ],
)
def test_what_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FilterOptions.model_validate(wrong)

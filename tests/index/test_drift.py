"""Sums of rows in any parts, and what they say of new rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.index.drift import MIN_ROWS, REFIT_RATIO, Drift, FeatureStatistics, total

SCHEMA = pa.schema([("class", pa.string()), ("object_class", pa.string()), ("error", pa.float64())])
found = st.tuples(st.sampled_from("abc"), st.sampled_from([None, "ship"]), st.integers(0, 8).map(float))


def table(found_rows: list[tuple[str, str | None, float]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in found_rows], SCHEMA)


@given(st.lists(st.lists(found, max_size=5), max_size=5))
def test_sums_do_not_depend_on_the_parts(parts: list[list[tuple[str, str | None, float]]]) -> None:
    whole = [row for part in parts for row in part]
    together = total(FeatureStatistics.from_json(FeatureStatistics.of(table(part)).to_json()) for part in parts)
    assert together == FeatureStatistics.of(table(whole))
    assert together.count == len(whole) and together.error == sum(error for *_, error in whole)
    assert together.without_object == sum(thing is None for _, thing, _ in whole)
    assert together.classes == {c: n for c in "abc" if (n := sum(name == c for name, *_ in whole))}


def test_like_rows_have_not_drifted_and_others_have() -> None:
    rng = np.random.default_rng(0)
    drawn = zip(rng.integers(2, size=900), rng.random(900), strict=True)
    usual = [("ab"[i], "ship" if i else None, float(error)) for i, error in drawn]
    before = FeatureStatistics.of(table(usual), mean_error=0.5)
    same = Drift(before, FeatureStatistics.of(table(usual[:300])))
    assert same.error_ratio == pytest.approx(1, abs=0.1) and same.class_shift < 0.05 and not same.suggests_refit
    other = Drift(before, FeatureStatistics.of(table([("c", None, 2.0)] * MIN_ROWS)))
    assert other.error_ratio == 4 and other.class_shift == 1 and other.suggests_refit
    assert other.shifts()[0] == ("c", 1.0)
    told = other.to_dict()
    assert told["without_object"] == 1 and told["without_object_before"] == pytest.approx(0.5, abs=0.05)
    assert not Drift(before, FeatureStatistics.of(table([("c", None, 2.0)] * (MIN_ROWS - 1)))).suggests_refit
    assert not Drift(before, FeatureStatistics.of(table([("a", None, 0.5 * REFIT_RATIO)] * 99))).suggests_refit
    assert "4.00 times" in other.summary and "4.00 times" in told["told"]


@pytest.mark.parametrize("fitted", [0.0, 3e-16])
def test_a_pca_of_few_images_says_nothing_of_drift_but_that_it_should_be_fitted_again(fitted: float) -> None:
    before = FeatureStatistics.of(table([("a", None, 0.0)] * 20), mean_error=fitted)
    more = Drift(before, FeatureStatistics.of(table([("a", None, 0.3)] * MIN_ROWS)))
    assert more.error_ratio is None and more.suggests_refit and more.to_dict()["error_ratio"] is None
    assert "says nothing" in more.summary
    assert not Drift(before, FeatureStatistics.of(table([("a", None, 0.0)] * MIN_ROWS))).suggests_refit

"""Pairs of tiles of a cell, and the thresholds from which on they differ by more than without a change."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsir_core import schemas
from rsir_core.changes.threshold import MIN_PAIRS, threshold_of, thresholds_of
from rsir_core.changes.tile_pairs import COLUMNS, pair_tiles

START = datetime(2024, 1, 1, 10, tzinfo=UTC)
SCHEMA = pa.schema([schemas.FEATURES.field(name).with_nullable(True) for name in COLUMNS])


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def row(name: str, cell: str | None, hours: int | None, covered: float = 1, feature: Any = (0.0, 0.0)) -> Any:
    time = None if hours is None else START + timedelta(hours=hours)
    return {"image_id": name, "cell": cell, "covered": covered, "time": time, "feature": feature}


rows_drawn = st.lists(
    st.tuples(
        st.sampled_from([None, "0", "01", "3"]),
        st.none() | st.integers(0, 100),
        st.sampled_from([0.5, 0.95, 1.0]),
    ),
    max_size=12,
)


@given(rows_drawn)
@settings(deadline=None)
def test_each_tile_is_paired_with_the_last_day_before_it(drawn: list[tuple[str | None, int | None, float]]) -> None:
    rows = [row(f"{i:02}", *values) for i, values in enumerate(drawn)]
    expected = set()
    for cell in ("0", "01", "3"):
        days: dict[Any, list[dict[str, Any]]] = {}
        for one in rows:
            if one["cell"] == cell and one["time"] is not None and one["covered"] >= 0.9:
                days.setdefault(one["time"].date(), []).append(one)
        best = [min(days[day], key=lambda one: (-one["covered"], one["image_id"])) for day in sorted(days)]
        expected |= {(a["image_id"], b["image_id"]) for a, b in pairwise(best)}
    found = pair_tiles(table_of(rows), 0.9, 1, 0.01)
    names = [one["image_id"] for one in rows]
    assert {(names[a], names[b]) for a, b in zip(found.before, found.after, strict=True)} == expected
    assert len(found.before) == len(expected)


def test_what_all_tiles_of_two_days_have_in_common_is_no_change() -> None:
    rng = np.random.default_rng(0)
    n = 200
    ground = rng.normal(size=(n, 8))
    later = ground + rng.normal(size=8) * 5 + rng.normal(size=(n, 8)) * 0.1  # a season
    later[:5] += 4
    rows = [row(f"a{i}", f"{i:08b}", 0, feature=f) for i, f in enumerate(ground)]
    rows += [row(f"b{i}", f"{i:08b}", 240, feature=f) for i, f in enumerate(later)]
    rows += [row("c", "3", 0, feature=ground[0]), row("d", "3", 480, feature=ground[1])]  # other days, alone
    shuffled = rng.permutation(len(rows))
    pairs = pair_tiles(table_of([rows[i] for i in shuffled]), 0.9, 1, 0.01)
    names = [rows[i]["image_id"] for i in shuffled]
    found = dict(zip((names[i] for i in pairs.after), pairs.distance, strict=True))
    assert found["d"] == pytest.approx(np.linalg.norm(ground[1] - ground[0]), rel=1e-5)
    assert sorted(found, key=lambda name: -found[name])[:6].count("d") <= 1
    changed = {f"b{i}" for i in range(5)}
    assert changed <= set(sorted(found, key=lambda name: -found[name])[:6])
    assert max(found[f"b{i}"] for i in range(5, n)) < 1
    thresholds = dict(zip((names[i] for i in pairs.after), pairs.threshold, strict=True))
    assert np.isnan(thresholds["d"])
    called = {name for name in found if found[name] > thresholds[name]}
    assert changed <= called and len(called) <= 5 + 0.03 * n


def test_a_tile_is_compared_with_the_day_that_is_most_alike() -> None:
    rng = np.random.default_rng(3)
    n, day = 50, 24
    ground = rng.normal(size=(n, 8))
    winter = ground @ rng.normal(size=(8, 8))
    rows = []
    for number, season in enumerate((ground, winter, ground, winter)):
        seen = season + rng.normal(size=(n, 8)) * 0.1
        rows += [row(f"{number}-{i}", f"{i:06b}", number * day, feature=f) for i, f in enumerate(seen)]
    rows.append(row("4-0", "0" * 6, 9 * day, feature=ground[0]))  # of a day that has few
    for last, expected in ((1, [0, 1, 2, 3]), (2, [0, 0, 1, 3]), (4, [0, 0, 1, 3])):
        pairs = pair_tiles(table_of(rows), 0.9, last, 0.01)
        names = [(rows[a]["image_id"], rows[b]["image_id"]) for a, b in zip(pairs.before, pairs.after, strict=True)]
        assert len(names) == 3 * n + 1 and all(a.split("-")[1] == b.split("-")[1] for a, b in names)
        assert {(int(a[0]), int(b[0])) for a, b in names} == set(zip(expected, (1, 2, 3, 4), strict=True))


@pytest.mark.parametrize("share", [0, 0.05, 0.2])
@pytest.mark.parametrize("false_alarms", [0.001, 0.01, 0.1])
def test_few_pairs_without_a_change_lie_above_the_threshold(share: float, false_alarms: float) -> None:
    rng = np.random.default_rng(1)
    unchanged = rng.lognormal(0, 0.4, 20_000)
    changed = rng.lognormal(3, 0.4, int(share / (1 - share) * len(unchanged)))
    threshold = threshold_of(np.concatenate([unchanged, changed]), false_alarms)
    above = (unchanged > threshold).mean()
    assert above < false_alarms * 1.8 and (share or above > false_alarms * 0.5)
    assert (changed > threshold).mean() > 0.99 if share else True


def test_thresholds_are_of_two_days_each_and_scale_with_the_distances() -> None:
    rng = np.random.default_rng(2)
    distance = rng.lognormal(0, 0.3, 300)
    group = np.repeat([0, 1, -1], 100)
    found = thresholds_of(distance, group, 0.01)
    for number in (-1, 0, 1):
        assert set(found[group == number]) == {threshold_of(distance[group == number], 0.01)}
    np.testing.assert_allclose(thresholds_of(distance * 7, group, 0.01), found * 7)
    assert np.isnan(threshold_of(distance[: MIN_PAIRS - 1], 0.01))
    assert threshold_of(np.zeros(MIN_PAIRS), 0.01) >= 0
    assert len(thresholds_of(np.empty(0), np.empty(0, np.int64), 0.01)) == 0

"""The job that lists places that changed, over an index whose changes are known."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from jobs.changes import changes
from jobs.changing.options import ChangesConfig
from rsir_core import schemas
from rsir_core.errors import ConfigError, TableError
from tests.support import serving

CELLS, MOVED = 60, (7, 11, 30)
DAYS = [
    datetime(2023, 6, 1, 10, tzinfo=UTC),
    datetime(2023, 12, 1, 10, tzinfo=UTC),
    datetime(2024, 6, 1, 10, tzinfo=UTC),
]


@pytest.fixture(scope="module")
def dated(index: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An index of cells on three days; some moved far on the last one, others far on the second one."""
    copy, rng = serving.copy_of(index, tmp_path_factory.mktemp("changes") / "index"), np.random.default_rng(0)
    one = copy.features().to_pylist()[0]
    rows: list[dict[str, Any]] = []
    for i in range(CELLS):
        feature = rng.normal(size=8)
        box = (10 + i / 10, 45, 10.1 + i / 10, 45.1)
        for n, day in enumerate(DAYS):
            feature = feature + rng.normal(size=8) * 0.05 + n * 0.5 + (3 if n == 2 and i in MOVED else 0)
            place: dict[str, Any] = {
                schemas.BBOX: dict(zip(schemas.BBOX_FIELDS, box, strict=True)),
                schemas.CRS: "EPSG:32633",
            }
            place[schemas.GEOMETRY] = shapely.to_wkb(shapely.box(*box))
            cell = {schemas.CELL: f"{i:06b}", schemas.COVERED: 0.5 if (i, n) == (0, 2) else 1.0}
            feature = feature.astype(np.float32)
            rows.append({**one, **place, **cell, "image_id": f"{day:%Y}{n}#{i}", "uri": f"/a/{n}#{i}", "time": day,
                         "feature": feature})  # fmt: skip
    rows.append({**one, "image_id": "photo", "cell": None, "time": None})
    serving.publish(copy, pa.Table.from_pylist(rows, schemas.FEATURES))
    return copy.uri


def test_places_that_moved_most_come_first(dated: str, tmp_path: Path) -> None:
    out = tmp_path / "changes.parquet"
    summary = changes(ChangesConfig(index=dated, out=str(out)))
    rows = pq.read_table(out).to_pylist()
    assert summary == {"places": CELLS, "changed": sum(row["changed"] for row in rows), "pairs": 2 * CELLS - 1,
                       "written": CELLS, "other_regions": 0}  # fmt: skip
    assert {int(row["cell"], 2) for row in rows[: len(MOVED)]} == set(MOVED)
    assert all(row["changed"] for row in rows[: len(MOVED)]) and summary["changed"] <= len(MOVED) + 3
    moved = [row["distance"] / row["threshold"] for row in rows]
    assert moved == sorted(moved, reverse=True)
    newest = {row["cell"]: row for row in rows}
    assert newest["000000"]["time"] == DAYS[1] and newest["000001"]["time"] == DAYS[2]  # the first shows too little
    for row in rows[:5]:
        assert row["before_time"] == DAYS[1] and row["before_image_id"] == row["image_id"].replace("20242", "20231")
    frame = geopandas.read_parquet(out)
    assert frame.crs.to_epsg() == 4326 or frame.crs.to_string() == "OGC:CRS84"
    assert frame.geometry[0].bounds == pytest.approx((10 + int(rows[0]["cell"], 2) / 10, 45, 10.1 + int(
        rows[0]["cell"], 2) / 10, 45.1))  # fmt: skip


def test_some_places_only(dated: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "changes.gpkg")
    assert changes.main(["--index", dated, "--out", out, "--changed-only", "--start", "2024-01-01", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["places"] == CELLS - 1 and summary["written"] == summary["changed"] == len(geopandas.read_file(out))
    assert changes(ChangesConfig(index=dated, out=out, end=DAYS[1]))["places"] == CELLS
    assert changes(ChangesConfig(index=dated, out=out, start=DAYS[0]))["places"] == 2 * CELLS - 1
    few = changes(ChangesConfig(index=dated, out=out, false_alarms=0.4))["changed"]
    assert few > summary["changed"]


def test_what_cannot_be_compared_is_said(dated: str, index: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="--grid"):
        changes(ChangesConfig(index=index, out=str(tmp_path / "a.csv")))
    with pytest.raises(ConfigError, match="later"):
        changes(ChangesConfig(index=dated, out=str(tmp_path / "a.csv"), start=DAYS[1], end=DAYS[0]))
    with pytest.raises(ConfigError, match="format"):
        changes(ChangesConfig(index=dated, out=str(tmp_path / "a.docx")))
    assert changes.main(["--index", index, "--out", str(tmp_path / "a.csv")]) == 1
    assert changes.main(["--index", index, "--out", str(tmp_path / "a.xyz")]) == 2
    assert not list(tmp_path.iterdir())

"""Find the places that changed: compare tiles of consecutive dates of each cell, and write them as a file."""

import logging
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.changing.options import ChangesConfig
from jobs.command import Summary
from rsir_core import schemas
from rsir_core.arrays import Ints, Mask
from rsir_core.changes.tile_pairs import COLUMNS, TilePairs, pair_tiles
from rsir_core.errors import ConfigError, TableError
from rsir_core.export.formats import export_rows, format_of
from rsir_core.index.index import Index

KEPT: Final = (
    schemas.IMAGE_ID, schemas.URI, schemas.CELL, schemas.TIME, schemas.CLASS, schemas.COVERED, schemas.REGION,
    schemas.BBOX, schemas.GEOMETRY, schemas.CRS,
)  # fmt: skip
BEFORE: Final = (schemas.IMAGE_ID, schemas.URI, schemas.TIME, schemas.CLASS, schemas.COVERED, schemas.REGION)

log = logging.getLogger("jobs.changes")


def find_changes(config: ChangesConfig) -> Summary:
    """Run the job once.

    Raises:
        ConfigError: the start is after the end, or --out is of no known format.
        TableError: there is no index, or it has no cell with tiles of two days.
    """
    format_of(config.out)
    if config.start is not None and config.end is not None and config.start > config.end:
        raise ConfigError(f"--start: {config.start.isoformat()} is later than --end {config.end.isoformat()}")
    rows = _read(config)
    pairs = pair_tiles(rows, config.min_covered, config.last, config.false_alarms)
    if not len(pairs.after):
        what = "has no cell with tiles of two days; index scenes of several dates with --grid"
        raise TableError(f"{config.index} {what}")
    threshold = pairs.threshold
    if unknown := np.count_nonzero(np.isnan(threshold)):
        log.warning("%d pairs have no threshold: there are too few to calibrate one", unknown)
    wanted = _wanted(rows, pairs, config)
    changed = pairs.distance > threshold
    chosen = wanted & changed if config.changed_only else wanted
    moved = np.where(np.isnan(threshold), pairs.distance, pairs.distance / threshold)
    order = np.flatnonzero(chosen)[np.argsort(-moved[chosen], kind="stable")]
    table = _table(rows, pairs, order)
    if others := _count_other_regions(table):
        log.warning("%d places have key regions at two places of the cell: a bundle without a detector has one", others)
    export_rows(table, config.out)
    return {
        "places": int(np.count_nonzero(wanted)),
        "changed": int(np.count_nonzero(changed & wanted)),
        "pairs": len(pairs.after),
        "written": len(table),
        "other_regions": others,
    }


def _read(config: ChangesConfig) -> pa.Table:
    """Read the rows; features that were averaged with their neighbours as they were before."""
    rows = Index(config.index).features(config.version, list(dict.fromkeys([*COLUMNS, *KEPT, schemas.UNAVERAGED])))
    if len(rows) and rows[schemas.UNAVERAGED].null_count == 0:
        place = rows.schema.get_field_index(schemas.FEATURE)
        rows = rows.set_column(place, schemas.FEATURE, rows[schemas.UNAVERAGED])
    return rows


def _wanted(rows: pa.Table, pairs: TilePairs, config: ChangesConfig) -> Mask:
    """Choose pairs by the time of the later tile (n,): within --start and --end, or the newest of each cell."""
    if config.start is None and config.end is None:
        cells = rows[schemas.CELL].take(pa.array(pairs.after)).to_numpy(zero_copy_only=False)
        newest: Mask = np.append(cells[1:] != cells[:-1], np.True_)  # pairs are in order of cell and day
        return newest
    times = rows[schemas.TIME].take(pa.array(pairs.after))
    passed = pa.array(np.ones(len(times), np.bool_))
    for bound, test in ((config.start, pc.greater_equal), (config.end, pc.less_equal)):
        if bound is not None:
            passed = pc.and_(passed, test(times, pa.scalar(bound, schemas.UTC)))
    found: Mask = passed.to_numpy(zero_copy_only=False)
    return found


def _count_other_regions(table: pa.Table) -> int:
    """Count the pairs whose key regions lie at different places, so that these are not the same ground."""
    after, before = (
        np.stack([pc.struct_field(table[name], field.name).to_numpy() for field in schemas.PIXELS])
        for name in (schemas.REGION, f"before_{schemas.REGION}")
    )
    return int(np.count_nonzero((after != before).any(axis=0)))


def _table(rows: pa.Table, pairs: TilePairs, order: Ints) -> pa.Table:
    """Return one row per pair, in the order given: the later tile, the earlier one, and how far they are apart."""
    after, before = (rows.take(pa.array(side[order])) for side in (pairs.after, pairs.before))
    table = after.select(list(KEPT))
    distance = pairs.distance[order]
    limits = pa.array(pairs.threshold[order], from_pandas=True)
    more = {
        "distance": pa.array(distance),
        "threshold": limits,
        "changed": pc.greater(pa.array(distance), limits),
        **{f"before_{name}": before[name] for name in BEFORE},
    }
    for place, (name, column) in enumerate(more.items(), len(KEPT) - 3):
        table = table.add_column(place, name, column)
    return table

"""Options of the search for changes."""

from jobs.command import JobConfig, option
from rsir_core.search.filter_options import Time


class ChangesConfig(JobConfig):
    """Order the tiles of an acquisition by how far each moved from the last ones of its cell (`index --grid`)."""

    index: str = option("URI of the index")
    version: int | None = option("version of the index; default: the newest", None, ge=1)
    out: str = option("file to write: NAME.parquet (GeoParquet), NAME.gpkg, NAME.geojson or NAME.csv")
    start: Time | None = option(
        "only tiles taken at this time (ISO 8601) or later; default, without --end: the newest of each cell", None
    )
    end: Time | None = option("only tiles taken at this time or earlier", None)
    last: int = option(
        "days of a cell to look back: of these, the one to which the acquisition as a whole moved least, mostly of the "
        "same season, is compared; 1: always the last",
        4,
        ge=1,
        le=100,
    )
    false_alarms: float = option("share of unchanged places that may be called changed", 0.01, gt=0, lt=0.5)
    min_covered: float = option("share of a cell that a tile must show", 0.9, ge=0, le=1)
    changed_only: bool = option("write only the places that are called changed", False)

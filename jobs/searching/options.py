"""Options of a search at the terminal."""

from typing import Annotated

from pydantic import FiniteFloat

from jobs.command import JobConfig, option
from rsir_core.models.regions import BoxRole
from rsir_core.search.filter_options import JsonText
from rsir_core.search.ranking_options import RankingOptions


class SearchConfig(RankingOptions, JobConfig):
    """Rank an index for one image and show the results: a table, JSON, GeoJSON or a page of pictures."""

    image: str = option("path or URI of the image to ask with, or the id of an indexed one (`rsir search IMAGE …`)")
    index: str = option("URI of the index")
    version: int | None = option("version of the index; default: the newest", None, ge=1)
    k: int = option("number of results", 10, ge=1, le=10_000)
    box: Annotated[tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None, JsonText] = option(
        "x0,y0,x1,y1 in pixels: the object that is looked for; default: the detector's", None
    )
    box_as: BoxRole = option(
        "what is described of a box: object (a square around it, with a margin, which finds single objects), centre "
        "(the key region that is centred on it, which finds scenes), or auto (object if the index has regions of "
        "objects, else centre)",
        "auto",
    )
    geojson: bool = option("print the results as a STAC item collection (GeoJSON)", False)
    out: str | None = option(
        "file to write the results to: NAME.csv, NAME.geojson, NAME.gpkg or NAME.parquet (GeoParquet)", None
    )
    open: bool = option("show query and results as pictures in the browser", False)

"""Options of the job that answers a folder of queries."""

from typing import Literal

from jobs.command import option
from jobs.options import DescribingConfig
from rsir_core.search.filter_options import FilterOptions


class QueryConfig(FilterOptions, DescribingConfig):
    """Rank an index against each image of a folder, into Parquet."""

    queries: str = option("URI of the images to ask with (folder, s3://, gs://, az://, …)")
    index: str = option("URI of the index")
    out: str = option("URI of the folder to make: results/ and failures/, Parquet")
    k: int = option("results per query", 50, ge=1, le=10_000)
    near_duplicates: bool = option(
        "only images as near as a copy encoded or scaled anew (0.2), by the plain distance; as look-alikes can be, "
        "column same_picture tells of the first 20 by their pixels",
        False,
    )
    distance: Literal["weighted", "plain", "auto"] = option(
        "what ranks; auto: the weighted distance where the query's class is sure, else the plain one", "weighted"
    )

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
        "only images within Euclidean distance 0.2, where copies saved or scaled anew usually lie; look-alikes can lie "
        "there too, so column same_picture compares the pixels of the first 20",
        False,
    )
    distance: Literal["weighted", "plain", "auto"] = option(
        "the order: weighted (distance × class weights), plain (Euclidean), or auto (weighted if the query's class is "
        "at least 99 % probable, else plain)",
        "weighted",
    )

"""Options of the job that answers a folder of queries."""

from jobs.command import option
from jobs.options import DescribingConfig
from rsir_core.search.ranking_options import RankingOptions


class QueryConfig(RankingOptions, DescribingConfig):
    """Rank an index against each image of a folder, into Parquet."""

    queries: str = option("URI of the images to ask with (folder, s3://, gs://, az://, …)")
    index: str = option("URI of the index")
    out: str = option("URI of the folder to make: results/ and failures/, Parquet")
    k: int = option("results per query", 50, ge=1, le=10_000)

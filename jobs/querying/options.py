"""Options of the job that answers a folder of queries."""

from jobs.command import option
from jobs.options import DescribingConfig
from rsir_core.search.ranking_options import RankingOptions


class QueryConfig(RankingOptions, DescribingConfig):
    """Rank an index against each image of a folder, into Parquet."""

    queries: str = option("URI of the images to ask with (folder, s3://, gs://, az://, …)")
    index: str = option("URI of the index")
    out: str = option("URI of the folder to make: results/ and failures/, Parquet")
    collection: str | None = option(
        "collection whose scorer gives each result a `score`, see the guide to labels; default: none does", None
    )
    min_score: float = option("with --collection: only images that score at least this", 0.0, ge=0, le=1)
    k: int = option("results per query", 50, ge=1, le=10_000)

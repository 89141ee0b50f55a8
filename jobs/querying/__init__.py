"""Parts of `jobs.query`: its options, and the Ray Data stages from listed queries to Parquet."""

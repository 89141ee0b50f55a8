"""What the query job is made of: the Ray Data stages from listed queries to Parquet."""

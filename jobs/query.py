"""Rank an index against each image of a folder: `python -m jobs.query`."""

import sys

from jobs.command import Job
from jobs.querying.options import QueryConfig

answer_queries = Job("query", QueryConfig, "jobs.querying.query:answer_queries")

if __name__ == "__main__":
    sys.exit(answer_queries.main())

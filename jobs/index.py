"""Index an archive, or bring its index up to date: `python -m jobs.index`."""

import sys

from jobs.command import Job
from jobs.indexing.options import IndexConfig

index_archive = Job("index", IndexConfig, "jobs.indexing.index:index_archive")

if __name__ == "__main__":
    sys.exit(index_archive.main())

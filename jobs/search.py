"""Rank an index for one image and show the results: `python -m jobs.search`, or `rsir search IMAGE`."""

import sys

from jobs.command import Job
from jobs.searching.options import SearchConfig

search = Job("search", SearchConfig, "jobs.searching.search:search")

if __name__ == "__main__":
    sys.exit(search.main())

"""The jobs: each is `python -m jobs.NAME`, also through `ray job submit`."""

"""The endpoint of `jobs.serve`, and what of it `jobs.query` answers with."""

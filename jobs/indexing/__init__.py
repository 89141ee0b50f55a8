"""The stages of `jobs.index`: survey, describe, commit, publish, compact, report."""

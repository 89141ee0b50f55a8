"""Benchmarks: scripts that print one JSON object on their last line; not collected by pytest."""

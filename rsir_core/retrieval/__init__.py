"""Queries: how they are described, and ranked by rows in memory; pictures that are near duplicates."""

"""Published rows in memory, and pictures that are near duplicates."""

"""Storage: open file systems by URI, list S3 buckets, read and write files."""

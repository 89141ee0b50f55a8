"""The Python API: an index that is opened, searched, described with and measured in this process."""

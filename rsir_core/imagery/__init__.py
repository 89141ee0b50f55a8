"""From a file to 8-bit RGB: decoding, orientation, tiles of large rasters, and the sandbox that reads files."""

"""Changes on the ground: the tiles of a cell at consecutive dates, and how far apart these are without a change."""

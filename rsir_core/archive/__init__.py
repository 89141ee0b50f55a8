"""Archives: listings, STAC catalogues and labels."""

"""What an archive holds: listings, STAC catalogues, and labels."""

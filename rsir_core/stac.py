"""Reading STAC."""

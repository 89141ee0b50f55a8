"""Results and labelled images as files that other programs open: CSV, GeoJSON, GeoPackage, GeoParquet."""

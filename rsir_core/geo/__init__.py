"""Places on earth: bounding boxes, outlines and their well-known binary, and from pixels to longitude and latitude."""

"""Options of `jobs.convert_boxes` and `jobs.propose_boxes`."""

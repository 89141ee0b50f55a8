"""What `jobs.evaluate` ranks: labels, the database of each arm, its gallery and duplicates."""

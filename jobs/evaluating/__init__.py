"""Parts of `jobs.evaluate`: the opened index, the database of each arm, and the gallery."""

"""Changes on the ground: the options, and the job that writes them to a file."""

"""The endpoint on Ray Serve: its deployments, metrics and options."""

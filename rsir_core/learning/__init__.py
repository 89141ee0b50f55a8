"""Learning from labels: a small classifier on stored embeddings that gives every image of an index a probability."""

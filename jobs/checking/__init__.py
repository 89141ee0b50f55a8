"""What this machine has for rsir: versions, GPU, credentials, an index."""

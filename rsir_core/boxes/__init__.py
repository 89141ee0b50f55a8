"""Images with boxes: formats, splits, and the data.yaml that the detector is fine-tuned on."""

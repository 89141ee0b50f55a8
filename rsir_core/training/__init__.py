"""Fine-tuning a detector: ultralytics' trainer on checked boxes, its score, and the recipe of the classifier."""

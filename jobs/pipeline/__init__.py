"""The one stage that reads images and does something with their pixels: for index, query, evaluation and training."""

"""Fine-tuning: what runs in the workers of `jobs.finetune_classifier` and `jobs.finetune_detector`."""

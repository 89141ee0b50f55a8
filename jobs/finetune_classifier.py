"""Fine-tune the classifier of a model bundle: `python -m jobs.finetune_classifier`."""

import sys

from jobs.command import Job
from jobs.training.options import FinetuneClassifierConfig

finetune = Job("finetune_classifier", FinetuneClassifierConfig, "jobs.training.finetune_classifier:finetune")

if __name__ == "__main__":
    sys.exit(finetune.main())

"""Fine-tune the detector of a model bundle: `python -m jobs.finetune_detector`."""

import sys

from jobs.command import Job
from jobs.training.options import FinetuneDetectorConfig

finetune_detector = Job(
    "finetune_detector", FinetuneDetectorConfig, "jobs.training.finetune_detector:finetune_detector"
)

if __name__ == "__main__":
    sys.exit(finetune_detector.main())

"""Score retrieval over an index: `python -m jobs.evaluate`."""

import sys

from jobs.command import Job
from jobs.evaluating.options import EvaluateConfig

evaluate = Job("evaluate", EvaluateConfig, "jobs.evaluating.evaluate:evaluate")

if __name__ == "__main__":
    sys.exit(evaluate.main())

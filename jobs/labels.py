"""Export the labels of a collection, or list the collections: `python -m jobs.labels`, or `rsir labels`."""

import sys

from jobs.command import Job
from jobs.labelling.options import LabelsConfig

labels = Job("labels", LabelsConfig, "jobs.labelling.labels:labels")

if __name__ == "__main__":
    sys.exit(labels.main())

"""Propose boxes for an archive of class folders: `python -m jobs.propose_boxes`."""

import sys

from jobs.boxes.options import ProposeBoxesConfig
from jobs.command import Job

propose_boxes = Job("propose_boxes", ProposeBoxesConfig, "jobs.boxes.propose_boxes:propose_boxes")

if __name__ == "__main__":
    sys.exit(propose_boxes.main())

"""Convert boxes of other formats to a data.yaml: `python -m jobs.convert_boxes`."""

import sys

from jobs.boxes.options import ConvertBoxesConfig
from jobs.command import Job

convert_boxes = Job("convert_boxes", ConvertBoxesConfig, "jobs.boxes.convert_boxes:convert_boxes")

if __name__ == "__main__":
    sys.exit(convert_boxes.main())

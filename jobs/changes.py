"""Find the places that changed between two dates: `python -m jobs.changes`, or `rsir changes`."""

import sys

from jobs.changing.options import ChangesConfig
from jobs.command import Job

changes = Job("changes", ChangesConfig, "jobs.changing.changes:find_changes")

if __name__ == "__main__":
    sys.exit(changes.main())

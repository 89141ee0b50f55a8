"""Say what is installed and whether an index opens: `python -m jobs.doctor`, or `rsir doctor`."""

import sys

from jobs.checking.options import DoctorConfig
from jobs.command import Job

doctor = Job("doctor", DoctorConfig, "jobs.checking.doctor:doctor")

if __name__ == "__main__":
    sys.exit(doctor.main())

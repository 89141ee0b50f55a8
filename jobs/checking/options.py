"""Options of the check of this machine."""

from jobs.command import JobConfig, option


class DoctorConfig(JobConfig):
    """Say what is installed, which GPU and credentials are found, and whether an index opens."""

    index: str | None = option("URI of an index to open; the models' weights are checked as well", None)

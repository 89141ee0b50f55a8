"""Run the demo: `python -m jobs.demo`."""

import signal
import sys

from jobs.command import Job
from jobs.demo.options import DemoConfig

demo = Job("demo", DemoConfig, "jobs.demo.demo:demo")

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does, it ends the job under way, too
    sys.exit(demo.main())

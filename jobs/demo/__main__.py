"""Run the demo: `python -m jobs.demo`."""

import signal
import sys

from jobs.command import run
from jobs.demo.demo import demo
from jobs.demo.options import DemoConfig

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does, it ends the job under way, too
    sys.exit(run(demo, DemoConfig, "demo"))

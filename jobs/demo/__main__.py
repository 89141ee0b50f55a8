"""Run the demo: `python -m jobs.demo`."""

import signal
import sys
from collections.abc import Sequence

from jobs.command import Job
from jobs.demo.options import DemoConfig

demo = Job("demo", DemoConfig, "jobs.demo.demo:demo")


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the demo as a command; SIGTERM ends the job under way too, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return demo.main(argv, prog)


if __name__ == "__main__":
    sys.exit(main())

"""Run jobs one after another in one process that has Ray, as starting Ray takes longer than a job on a few images.

Reads a list of words per line of stdin, `["jobs.index", "--archive", …]`, and writes the job's exit status to the file
descriptor that is its argument. What jobs print goes where this process prints.
"""

import json
import os
import runpy
import sys

import ray


def main(status: int) -> None:
    """Serve until stdin ends."""
    ray.init(address="local", num_cpus=2, include_dashboard=False)
    for line in sys.stdin:
        module, *options = json.loads(line)
        sys.argv = [module, *options]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
            ended = 0
        except SystemExit as end:
            ended = int(end.code or 0)
        os.write(status, f"{ended}\n".encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Start the script: `python -m tests.gpu`."""

import sys

from tests.gpu.script import main

if __name__ == "__main__":
    sys.exit(any(line.name.startswith("WRONG") for line in main().lines))

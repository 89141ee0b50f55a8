"""A few of the kills that `python -m tests.kills` makes hundreds of."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_an_index_is_whole_after_kills() -> None:
    command = [sys.executable, "-m", "tests.kills", "--count", "3", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=840)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 3 and result["checks"] >= 1

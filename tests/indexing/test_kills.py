"""A few of the kills that `python -m tests.kills` makes hundreds of."""

import json

import pytest

from tests.support import forks


@pytest.mark.ray
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("forks")
def test_an_index_is_whole_after_kills() -> None:
    done = forks.run(["tests.kills", "--count", "3", "--seed", "1"])
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 3 and result["checks"] >= 1

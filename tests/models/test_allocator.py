"""Freed memory is kept for the next pass, and goes when it is told to; in a process of its own, whose memory it is."""

import platform
import subprocess
import sys

import pytest

CODE = """
import re
import numpy as np
from rsir_core.models.allocator import give_back, keep_activations

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

if {keep}:
    keep_activations()
before = held()
layers = [np.ones(20 << 18, np.float32) for _ in range(5)]  # 20 MiB each
most = held()
del layers
kept = held()
give_back()
print(most - before, kept - before, held() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide by themselves")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_kept_and_given_back(keep: bool) -> None:
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    most, kept, after = map(int, done.stdout.split())
    assert most >= 100
    assert kept >= 100 if keep else kept < 10
    assert after < 10

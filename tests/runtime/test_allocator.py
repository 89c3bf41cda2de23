"""Freed memory stays with the process: using it again faults no pages in."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, BYTES = 6, 100, 1_000_000
PROGRAM = f"""
import resource, sys
from runtime.allocator import give_back_unused, keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for step in range(2 * {ROUNDS}):
    if step == {ROUNDS}:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"x" * ({BYTES} + i) for i in range({BLOCKS})]
    del blocks
    if sys.argv[2:] == ["give back"]:
        give_back_unused()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*how: str) -> int:
    words = [sys.executable, "-c", PROGRAM, *how]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's mallopt")
def test_what_was_freed_is_used_again_without_page_faults():
    pages = BLOCKS * BYTES // resource.getpagesize()
    assert faults("plain") > ROUNDS * pages / 2  # given back to the kernel in every round
    assert faults("keep") < pages / 2
    assert faults("keep", "give back") > ROUNDS * pages / 2

"""Freed memory is returned to the system after a pause without requests, and only then."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import textwrap

import pytest

from app.processes.memory import IDLE_SECONDS, IdleHeap, shared_words

HAS_GLIBC = hasattr(ctypes.CDLL(None), "malloc_trim")


def test_pages_are_returned_once_per_pause() -> None:
    heap = IdleHeap()
    found = []
    for handled, now in [(1, 0), (1, IDLE_SECONDS / 2), (1, IDLE_SECONDS), (1, 99), (2, 100), (2, 100 + IDLE_SECONDS)]:
        heap.look(handled, now)
        found.append(heap.is_trimmed)
    assert found == [False, False, True, True, False, True]


def test_new_requests_delay_the_return() -> None:
    heap = IdleHeap()
    for handled in range(1, 50):
        heap.look(handled, handled * 0.9 * IDLE_SECONDS)
        assert not heap.is_trimmed


@pytest.mark.skipif(not HAS_GLIBC, reason="this C library has no malloc_trim")
def test_pages_between_used_blocks_are_returned_too() -> None:
    code = """
        import re
        from app.processes.memory import IDLE_SECONDS, IdleHeap

        def resident_kb():
            return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])

        blocks = [bytes(2000) for _ in range(50_000)]
        blocks = blocks[::1000]  # what stays is spread over the whole heap
        before = resident_kb()
        heap = IdleHeap()
        heap.look(1, 0.0)
        heap.look(1, IDLE_SECONDS)
        print(before - resident_kb())
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"-?\d+\n", run.stdout)
    assert int(run.stdout) > 50_000


def test_a_child_and_its_parent_see_what_the_other_writes() -> None:
    words = shared_words()
    assert set(words) == {0}
    words[0] = 2**64 - 1
    child = os.fork()
    if child == 0:
        words[1] = words[0]
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert words[1] == 2**64 - 1

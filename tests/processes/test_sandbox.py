"""A child of the fork server can only compute, also with hostile code."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import sandbox_probe
from sandbox_probe import ATTEMPTS, HELLO, REPLY, REQUEST

from app.processes.channel import Channel, shared_block
from app.processes.forkserver import Event, ForkServer
from app.processes.sandbox import ALL_MEASURES, Measures, describe

BLOCK_BYTES = 4096
ALLOWED = ("start a thread", "read a limit")


@pytest.fixture(scope="module")
def child() -> Iterator[tuple[int, Channel]]:
    """A child behind the sandbox: its process id and our end of its channel."""
    server = ForkServer(sandbox_probe.__name__, BLOCK_BYTES)
    ours, theirs = socket.socketpair()
    block = shared_block(2 * BLOCK_BYTES)
    channel = Channel(ours, block, BLOCK_BYTES)
    with theirs:
        server.fork(theirs, block)
    os.close(block)
    event, pid, _ = server.events(60)
    assert event is Event.FORKED
    yield pid, channel
    channel.close()
    server.close()


@pytest.fixture(scope="module")
def enforced(child: tuple[int, Channel]) -> Measures:
    """What the child says of its sandbox."""
    return Measures(*child[1].receive(HELLO))


def test_everything_is_enforced_here(enforced: Measures) -> None:
    assert enforced == ALL_MEASURES


@pytest.mark.parametrize("attempt", [name for name in ATTEMPTS if name not in ALLOWED])
def test_a_child_cannot(child: tuple[int, Channel], enforced: Measures, attempt: str) -> None:
    assert outcome(child[1], attempt) == errno.EPERM


@pytest.mark.parametrize("attempt", ALLOWED)
def test_a_child_can(child: tuple[int, Channel], enforced: Measures, attempt: str) -> None:
    assert outcome(child[1], attempt) == 0


def test_a_child_has_no_new_rights_and_a_filter(child: tuple[int, Channel], enforced: Measures) -> None:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{child[0]}/status").read_text().splitlines())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_a_child_leaves_no_core_and_writes_no_file(child: tuple[int, Channel], enforced: Measures) -> None:
    limits = Path(f"/proc/{child[0]}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
    assert [line.split()[3:5] for line in limits.splitlines() if "Max file size" in line] == [["0", "0"]]


def test_child_is_killed_first_when_memory_runs_out(child: tuple[int, Channel], enforced: Measures) -> None:
    assert Path(f"/proc/{child[0]}/oom_score_adj").read_text() == "1000\n"


def test_ctrl_c_in_a_terminal_does_not_reach_a_child(child: tuple[int, Channel], enforced: Measures) -> None:
    assert os.getpgid(child[0]) != os.getpgid(0)


def test_a_child_keeps_no_file_open_but_its_channel(child: tuple[int, Channel], enforced: Measures) -> None:
    links = [os.readlink(link) for link in Path(f"/proc/{child[0]}/fd").iterdir()]
    # The block is open twice: mmap keeps a descriptor of its own.
    assert sorted(link.partition(":")[0] for link in links) == ["/dev/null"] * 3 + ["/memfd"] * 2 + ["socket"]


def test_missing_measures_are_named() -> None:
    assert describe(ALL_MEASURES) == "no files, sockets or processes (seccomp), no new rights, no core dumps"
    assert "not enforced: no files, sockets" in describe(Measures.NO_CORE_DUMPS)
    assert describe(Measures(0)).startswith("nothing; not enforced: ")


def outcome(channel: Channel, attempt: str) -> int:
    """Have the child try something; return the errno, 0 if it worked."""
    channel.send(REQUEST.pack(list(ATTEMPTS).index(attempt)))
    channel.socket.settimeout(20)
    (number,) = channel.receive(REPLY)
    return int(number)

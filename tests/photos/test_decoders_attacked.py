"""Decoders survive the failure of other processes, limits and threads, and a decoder that lies."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import resource
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import bomb_photos
import numpy as np
import pytest
from decoder_pools import MEBI, PATIENCE_SECONDS, PHOTO, WANTED, fork_server_of, replacing, settled
from fakes import colour_png
from waiting import wait_until

from app.errors import BrokenImage, ClientClosedRequest, DeadlineExceeded, Overloaded, TooCostly
from app.photos import supervisor
from app.photos.decoders import Decoders
from app.photos.decoding import Geometry
from app.photos.protocol import Wanted
from app.processes import usage
from app.processes.channel import Channel, Disconnected
from app.processes.forkserver import ForkServer
from app.queueing.scheduling import Deadline

# The widths of the photos about which `liar` lies.
LIED_ABOUT = range(301, 310)


@pytest.fixture(scope="module")
def pool() -> Iterator[Decoders]:
    """Two decoders that know `hostile_plugin`."""
    hostile = ("hostile_plugin",)
    with closing(Decoders(2, max_bytes=8 * MEBI, memory_bytes=256 * MEBI, extra_modules=hostile)) as pool:
        pool.start()
        yield pool


def test_what_one_photo_damages_costs_no_other_photo(pool: Decoders) -> None:
    for _ in range(2):
        pool.decode(bomb_photos.hostile("poisons"), WANTED)
        assert pool.decode(PHOTO, WANTED).crop[112, 112].tolist() == [200, 100, 50]


def test_a_photo_that_starts_threads_without_end_is_too_costly(pool: Decoders) -> None:
    with pytest.raises(TooCostly, match="threads"):
        pool.decode(bomb_photos.hostile("multiplies"), WANTED)


def test_a_photo_that_fails_and_leaves_memory_ends_its_decoder(pool: Decoders) -> None:
    with replacing(pool), pytest.raises(BrokenImage):
        pool.decode(bomb_photos.hostile("leaks"), WANTED)


def test_a_fork_server_that_hangs_is_replaced(pool: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    before = settled(pool)
    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "MAX_SILENT_SECONDS", 0.5)
        os.kill(fork_server_of(pool), signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            pool.decode(bomb_photos.hostile("waits"), WANTED, Deadline(time.monotonic() + 0.2))
        wait_until(lambda: not set(pool.pids) & set(before))
    assert pool.decode(PHOTO, WANTED).width == 300
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))


def test_a_standstill_is_noticed_where_proc_hides_decoders(
    pool: Decoders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(usage, "PROC", tmp_path)
    monkeypatch.setattr(usage, "HIDDEN_FACTOR", 1.5)
    with pytest.raises(TooCostly, match="standstill"):
        pool.decode(bomb_photos.hostile("waits"), WANTED, Deadline(time.monotonic() + PATIENCE_SECONDS))


def test_all_that_a_decoder_maps_is_limited(pool: Decoders) -> None:
    pool.decode(PHOTO, WANTED)
    limits = [resource.prlimit(pid, resource.RLIMIT_AS)[0] for pid in pool.pids]
    assert 0 < min(limit for limit in limits if limit != resource.RLIM_INFINITY) < 2**30


def test_a_lower_limit_of_memory_stays() -> None:
    with closing(Decoders(1, max_bytes=MEBI, memory_bytes=2**31, extra_modules=("frugal",))) as pool:
        assert pool.decode(PHOTO, WANTED).width == 300
        wait_until(lambda: bool(pool.pids))
        assert resource.prlimit(pool.pids[0], resource.RLIMIT_DATA) == (512 * MEBI, 512 * MEBI)


def test_a_thread_that_cannot_start_is_tried_with_the_next_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(Decoders(1, max_bytes=MEBI, memory_bytes=64 * MEBI)) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(Overloaded, match="can be started"):
                pool.decode(PHOTO, WANTED)
        assert pool.decode(PHOTO, WANTED).width == 300


@pytest.mark.parametrize("width", LIED_ABOUT)
def test_a_reply_that_makes_no_sense_breaks_its_photo_only(lying: Decoders, width: int) -> None:
    with pytest.raises(BrokenImage, match="confuses its decoder"):
        lying.decode(colour_png(1, size=(width, 300)), Wanted(Geometry(), 10**7, thumbnail_side=150))
    assert lying.decode(PHOTO, Wanted(Geometry(), 10**7, thumbnail_side=150)).thumbnail.shape == (130, 150, 3)


@pytest.fixture(scope="module")
def lying() -> Iterator[Decoders]:
    """One decoder whose replies make no sense for some widths."""
    with closing(Decoders(1, max_bytes=MEBI, memory_bytes=64 * MEBI, extra_modules=("liar",))) as pool:
        yield pool


def test_a_decoder_that_never_gets_ready_is_killed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "MAX_HELLO_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "MAX_WAIT_SECONDS", 4.0)
    with closing(Decoders(1, max_bytes=MEBI, memory_bytes=64 * MEBI, extra_modules=("mute",))) as pool:
        with pytest.raises(Overloaded):
            pool.decode(PHOTO, WANTED)
        assert len(processes_of("mute")) <= 2  # the fork server, and the newest child
    assert caplog.text.count("could not be started") == 1


def test_decoders_closed_while_they_start_have_not_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits, receive = threading.Event(), Channel.receive

    def wait_for_hello(self: Channel, form: struct.Struct) -> tuple[int, ...]:
        waits.set()
        return receive(self, form)

    monkeypatch.setattr(Channel, "receive", wait_for_hello)
    with closing(Decoders(1, max_bytes=MEBI, memory_bytes=64 * MEBI, extra_modules=("mute",))) as pool:
        pool.begin()
        assert waits.wait(PATIENCE_SECONDS)
    assert "could not be started" not in caplog.text


def test_a_fork_server_that_starts_slowly_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "MAX_SILENT_SECONDS", 1.5)
    monkeypatch.setattr(supervisor, "MAX_WAIT_SECONDS", 0.5)
    with closing(Decoders(3, max_bytes=MEBI, memory_bytes=64 * MEBI, extra_modules=("slow_to_start",))) as pool:
        pool.start()
        wait_until(lambda: len(pool.pids) == 3)
        assert pool.decode(PHOTO, WANTED).width == 300
    assert "ended or hung" not in caplog.text


def processes_of(module: str) -> list[int]:
    """Find the processes that were started with a module's name as their last argument, except those that ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_one = (folder / "cmdline").read_bytes().endswith(f"\0{module}\0".encode())
        except OSError:
            continue
        if is_one:
            found.append(int(folder.name))
    return found


def test_a_photo_does_not_wait_for_decoders_beyond_its_deadline() -> None:
    with without_decoders() as pool, pytest.raises(DeadlineExceeded):
        pool.decode(PHOTO, WANTED, Deadline(time.monotonic() + 0.3))


def test_a_photo_does_not_wait_for_decoders_once_its_client_left() -> None:
    looks = iter([False])
    with without_decoders() as pool, pytest.raises(ClientClosedRequest):
        pool.decode(PHOTO, WANTED, Deadline(is_abandoned=lambda: next(looks, True)))


@contextmanager
def without_decoders() -> Iterator[Decoders]:
    """Make a pool that can start none, and expect that nothing waits for them as long as it might."""
    began = time.monotonic()
    with closing(Decoders(1, max_bytes=MEBI, memory_bytes=64 * MEBI, extra_modules=("no_such_module",))) as pool:
        yield pool
        assert time.monotonic() - began < supervisor.MAX_WAIT_SECONDS / 2


def test_a_decoder_that_cannot_be_asked_for_leaves_no_file_open(
    pool: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    first, _ = settled(pool)
    before = photo_blocks()
    with monkeypatch.context() as patch:
        patch.setattr(ForkServer, "fork", refuse)
        patch.setattr(supervisor, "_RETRY_SECONDS", 0.01)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(pool.pids) == 1)
        with pytest.raises(DeadlineExceeded):
            pool.decode(bomb_photos.hostile("waits"), WANTED, Deadline(time.monotonic() + 0.3))
        wait_until(lambda: not pool.pids)
        assert photo_blocks() < before
    assert pool.decode(PHOTO, WANTED).width == 300


def photo_blocks() -> int:
    """Count the open files of this process that are blocks for photos."""
    links = []
    for file in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed
            links.append(os.readlink(file))
    return sum("topthree-photo" in link for link in links)


def test_a_block_that_cannot_be_emptied_ends_its_decoder(pool: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_REMOVE", 9999)  # unknown to the kernel, as the right number is to gVisor's
    with replacing(pool):
        assert pool.decode(PHOTO + bytes(2 * MEBI), WANTED).width == 300
    assert pool.decode(PHOTO, WANTED).width == 300


def test_waiting_for_a_closed_fork_server_ends() -> None:
    server = ForkServer("app.photos.decoder", MEBI)
    server.close()
    with pytest.raises(Disconnected):
        server.events(1.0)


def test_photos_are_decoded_again_when_all_processes_were_killed(
    pool: Decoders, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    for _ in range(3):
        family = [*settled(pool), fork_server_of(pool)]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        assert np.array_equal(pool.decode(PHOTO, WANTED).crop[0, 0], [200, 100, 50])

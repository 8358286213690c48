"""A photo is decoded in the lane that its header asks for, and one that takes too long holds up no other."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import bomb_photos
import pytest
from fakes import colour_png, encode
from PIL import Image
from waiting import wait_until

from app.errors import DeadlineExceeded, Overloaded, TooCostly
from app.photos import decoder_process
from app.photos.decoders import Decoders
from app.photos.decoding import Geometry
from app.photos.protocol import Wanted
from app.queueing.lanes import Lanes
from app.queueing.scheduling import NO_DEADLINE, Deadline, Slots
from app.telemetry import metrics

MEBI = 2**20
PATIENCE_SECONDS = 60
WANTED = Wanted(Geometry(), 100_000_000)
SHORT = colour_png(10, 20, 30)
# 12 megapixels without a smaller scale to decode at: it needs more memory than a short photo may.
LONG = encode(Image.new("RGB", (4000, 3000), "teal"), "PNG")


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """Two decoders that know `hostile_plugin`, with memory for one long photo."""
    with closing(
        Decoders(2, max_bytes=8 * MEBI, memory_bytes=128 * MEBI, extra_modules=("hostile_plugin",))
    ) as decoders:
        decoders.start()
        yield decoders


@pytest.fixture
def lanes(decoders: Decoders) -> Lanes:
    """Two slots, and one in the long lane."""
    return Lanes(Slots(2), decoders)


def width_of(lanes: Lanes, photo: bytes, deadline: Deadline = NO_DEADLINE) -> int:
    """Decode a photo in its lane, and return its width."""
    with lanes.decoded(photo, WANTED, deadline) as (found, turn):
        assert turn.is_held
        return found.width


@pytest.mark.parametrize(("photo", "width"), [(SHORT, 300), (LONG, 4000)])
def test_a_photo_is_decoded_and_leaves_nothing_held(lanes: Lanes, photo: bytes, width: int) -> None:
    assert width_of(lanes, photo) == width
    with lanes.memory.reserve(lanes.memory.total_bytes):
        assert lanes.slots.in_flight == 0


def test_a_long_photo_waits_for_memory_and_short_ones_do_not(lanes: Lanes) -> None:
    with ThreadPoolExecutor(1) as threads:
        with lanes.memory.reserve(lanes.memory.total_bytes):
            long = threads.submit(width_of, lanes, LONG)
            assert width_of(lanes, SHORT) == 300
            assert not long.done()
        assert long.result(PATIENCE_SECONDS) == 4000


def test_a_long_photo_is_decoded_at_a_lower_priority_without_a_slot(lanes: Lanes) -> None:
    lower_priority, seen = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10), set()
    with ThreadPoolExecutor(1) as threads:
        long = threads.submit(width_of, lanes, LONG)
        while not long.done():
            for pid in lanes.decoders.pids:
                with suppress(ProcessLookupError):
                    if os.getpriority(os.PRIO_PROCESS, pid) == lower_priority:
                        seen.add((pid, lanes.slots.in_flight))
        assert long.result() == 4000
    assert 0 in {in_flight for _, in_flight in seen}
    # It cannot have its priority back, so another decoder takes its place.
    wait_until(lambda: not {pid for pid, _ in seen} & set(lanes.decoders.pids))
    assert width_of(lanes, SHORT) == 300


def test_a_long_photo_that_waits_its_whole_deadline_is_refused(lanes: Lanes) -> None:
    with lanes.memory.reserve(lanes.memory.total_bytes), pytest.raises(Overloaded, match="large photos"):
        width_of(lanes, LONG, Deadline(time.monotonic() + 0.5))
    assert lanes.slots.in_flight == 0


def test_a_photo_above_the_whole_memory_is_too_costly(lanes: Lanes) -> None:
    out = io.BytesIO()
    Image.new("L", (8000, 8000)).save(out, "WEBP", lossless=True, quality=0, method=0)
    with pytest.raises(TooCostly, match="MiB of memory; 128 MiB are allowed"):
        width_of(lanes, out.getvalue())


def test_a_photo_that_takes_too_long_gives_its_slot_up(lanes: Lanes) -> None:
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(width_of, lanes, bomb_photos.hostile("is slow")) for _ in range(2)]
        for _ in range(20):
            assert width_of(lanes, SHORT, Deadline(time.monotonic() + PATIENCE_SECONDS)) == 300
        assert [photo.result(PATIENCE_SECONDS) for photo in slow] == [32, 32]
    assert lanes.slots.in_flight == 0


def test_photos_that_wait_without_end_give_their_slots_up(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "MAX_STALLED_SECONDS", 10.0)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(width_of, lanes, bomb_photos.hostile("waits")) for _ in range(2)]
        pause = threading.Event()
        while lanes.slots.in_flight < 2:
            pause.wait(0.001)
        assert width_of(lanes, SHORT) == 300
        assert not any(photo.done() for photo in waiting)
        monkeypatch.setattr(decoder_process, "MAX_STALLED_SECONDS", 1.0)  # for the decoders that get them next
        for pid in set(lanes.decoders.pids):
            os.kill(pid, signal.SIGKILL)
        for photo in waiting:
            with pytest.raises(TooCostly):
                photo.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("deed", ["waits", "spins"])
def test_a_slot_is_free_again_after_its_deadline(lanes: Lanes, deed: str) -> None:
    with pytest.raises(DeadlineExceeded):
        width_of(lanes, bomb_photos.hostile(deed), Deadline(time.monotonic() + 0.2))
    assert lanes.slots.in_flight == 0
    assert width_of(lanes, SHORT) == 300


def gauges() -> tuple[float, float]:
    """Return the metrics' numbers of photos in flight and waiting."""
    lines = metrics.render("")[0].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(values["topthree_photos_in_flight"]), float(values["topthree_photos_waiting"])


@pytest.mark.parametrize("photo", [SHORT, LONG, bomb_photos.hostile("is slow")], ids=["short", "long", "slow"])
def test_every_photo_counts_once_as_in_flight(lanes: Lanes, photo: bytes) -> None:
    before = gauges()
    with lanes.decoded(photo, WANTED):
        assert gauges() == (before[0] + 1, before[1])
    assert gauges() == before


def test_a_photo_that_waits_for_memory_is_not_in_flight(lanes: Lanes) -> None:
    in_flight, waiting = gauges()
    with ThreadPoolExecutor(1) as threads:
        with lanes.memory.reserve(lanes.memory.total_bytes):
            long = threads.submit(width_of, lanes, LONG)
            wait_until(lambda: gauges() == (in_flight, waiting + 1))
        assert long.result(PATIENCE_SECONDS) == 4000

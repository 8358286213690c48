"""Show the effects of a hostile photo, and of a killed child, on the processes of pebble.

usage: pip install pebble; python scripts/pebble_failures.py PHOTOS

This is the reason why the decoders do not use pebble; compare_pools.py compares their speed.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import os
import secrets
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pebble
from compare_pools import WORKERS, Crop, children, decode_and_crop, pebble_processes

TIMEOUT_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
ANSWERED = "answered"


@dataclass(frozen=True)
class Fate:
    """The outcome of a photo, and after how many seconds it was known."""

    seconds: float
    name: str


@contextmanager
def processes(start_method: str = "forkserver") -> Iterator[pebble.ProcessPool]:
    """Start pebble's processes, and end them without waiting for answers."""
    pool = pebble_processes(start_method)
    try:
        pool.schedule(copy_only, [b""]).result()
        yield pool
    finally:
        pool.stop()
        pool.join(timeout=PATIENCE_SECONDS)


def copy_only(data: bytes) -> Crop:
    """Return as many bytes as a crop has, and do nothing else."""
    return np.zeros((224, 224, 3), np.uint8)


def spin(data: bytes) -> Crop:
    """Compute without end in native code that holds the GIL, as a decoder does with a bomb."""
    collections.deque(itertools.repeat(0), maxlen=0)
    raise AssertionError("not reached")


def wait(data: bytes) -> Crop:
    """Wait without end, using no processor time, as a reference cycle does."""
    threading.Event().wait()
    raise AssertionError("not reached")


def die(data: bytes) -> Crop:
    """Exit as if the decoder had crashed."""
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("not reached")


def cost_of_copying(photos: list[bytes]) -> None:
    """Print how long pebble takes to send a photo and return a crop, without work."""
    with processes() as pool:
        times = []
        for photo in photos:
            began = time.perf_counter()
            pool.schedule(copy_only, [photo]).result()
            times.append(1000 * (time.perf_counter() - began))
    size = statistics.mean(map(len, photos)) / 1000
    print(f"a photo ({size:.0f} kB on average) over and a crop back, no work: {statistics.median(times):.2f} ms")


def fate(pool: pebble.ProcessPool, function: Callable[[bytes], Crop], photo: bytes) -> Fate:
    """Call a function with a photo; return its outcome and the seconds until that was known."""
    began = time.perf_counter()
    try:
        pool.schedule(function, [photo], timeout=TIMEOUT_SECONDS).result(timeout=PATIENCE_SECONDS)
    except Exception as error:  # every kind of failure is an outcome
        return Fate(time.perf_counter() - began, type(error).__name__)
    return Fate(time.perf_counter() - began, ANSWERED)


def beside(function: Callable[[bytes], Crop], photos: list[bytes]) -> None:
    """Print the outcome of a hostile photo, and of good ones that are sent one after the other beside it."""
    good = []
    with processes() as pool, ThreadPoolExecutor() as threads:
        hostile = threads.submit(fate, pool, function, photos[0])
        for photo in itertools.cycle(photos):
            good.append(fate(pool, decode_and_crop, photo))
            if hostile.done():
                break
    print(
        f"{function.__name__}: {hostile.result().name} after {hostile.result().seconds:.2f} s; beside it {len(good)} "
        f"good photos, {lost(good)} lost, the slowest {max(found.seconds for found in good):.2f} s"
    )


def kill_busy(photos: list[bytes], times: int = 10) -> None:
    """Kill one child after the other while all have work, and print how many photos were lost."""
    found, end = list[Fate](), threading.Event()
    with processes() as pool, ThreadPoolExecutor() as threads:

        def go_on(photo: bytes) -> None:
            while not end.is_set():
                found.append(fate(pool, decode_and_crop, photo))
                if found[-1].name == "RuntimeError":  # the pool is broken, and rejects at once
                    break

        for photo in photos[: 2 * WORKERS]:
            threads.submit(go_on, photo)
        for _ in range(times):
            time.sleep(0.3)
            for pid in children()[:1]:
                os.kill(pid, signal.SIGKILL)
        end.set()
    names = collections.Counter(each.name for each in found)
    became = ", ".join(f"{count} {name}" for name, count in names.most_common())
    slowest = max(each.seconds for each in found)
    print(f"{times} busy children killed, four photos in flight: {became}; the slowest {slowest:.2f} s")


def lost(fates: list[Fate]) -> int:
    """Count the photos that were not answered."""
    return sum(each.name != ANSWERED for each in fates)


def kill_idle(photos: list[bytes]) -> None:
    """Print the outcome of a good photo after an idle child was killed."""
    with processes() as pool:
        os.kill(children()[0], signal.SIGKILL)
        time.sleep(1)
        found = fate(pool, decode_and_crop, photos[0])
    print(f"an idle child killed from outside: the next photo is {found.name}")


def secret_in_children(start_method: str) -> None:
    """Print whether a secret of this process can be read in the memory of its children."""
    secret = secrets.token_bytes(32)
    with processes(start_method):
        has_it = any(secret in piece for pid in children() for piece in memory_of(pid))
    print(f"{start_method}: a key of this process is {'' if has_it else 'not '}in the memory of its children")


def memory_of(pid: int) -> Iterator[bytes]:
    """Read all private memory of a process."""
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(edge, 16) for edge in span.split("-"))
                memory.seek(start)
                with suppress(OSError):
                    yield memory.read(end - start)


def main() -> None:
    """Try every failure, and print the outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder")
    options = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.jpg"))]
    cost_of_copying(photos)
    for function in (spin, wait, die):
        beside(function, photos)
    kill_busy(photos)
    kill_idle(photos)
    for start_method in ("fork", "forkserver"):
        secret_in_children(start_method)


if __name__ == "__main__":
    main()

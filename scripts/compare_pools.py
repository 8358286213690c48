"""Compare ways to decode photos in other processes: one photo, several at once, and beside busy Python.

usage: pip install pebble; python scripts/compare_pools.py PHOTOS [--seconds 2] [--rounds 3]

Each pool decodes and crops with two workers: threads of this process, processes of pebble, and our own decoders. The
pools take turns round by round, so that a drift of the machine's speed affects all alike; medians over rounds are
printed. `beside Python` runs a thread of this process that computes all the time and so holds the GIL, as JSON, logs
and templates do in a busy service.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pebble

from app.measuring.own_server import process_memory_mb
from app.photos.decoders import Decoders
from app.photos.decoding import Geometry, decode
from app.photos.protocol import Wanted

WORKERS = 2
MAX_PIXELS = 64_000_000
MAX_PHOTO_BYTES = 10 * 2**20
MAX_PHOTO_MEMORY = 512 * 2**20
TIMEOUT_SECONDS = 1.0

Crop = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pool:
    """A way to decode: a function for one photo, which any thread may call, and its processes."""

    decode: Callable[[bytes], Crop]
    pids: Callable[[], list[int]]


def decode_and_crop(data: bytes) -> Crop:
    """Decode and crop a photo as the service does."""
    return decode(data, max_pixels=MAX_PIXELS).crop(Geometry())


@contextmanager
def in_process() -> Iterator[Pool]:
    """Decode in the calling thread."""
    yield Pool(decode_and_crop, list)


def pebble_processes(start_method: str = "forkserver") -> pebble.ProcessPool:
    """Start pebble's processes; `forkserver` gives them nothing of this process's memory."""
    context = multiprocessing.get_context(start_method)
    context.set_forkserver_preload(["app.photos.decoding"])
    return pebble.ProcessPool(max_workers=WORKERS, context=context)


@contextmanager
def pebble_pool() -> Iterator[Pool]:
    """Decode in processes of pebble."""
    pool = pebble_processes()

    def send(data: bytes) -> Crop:
        crop: Crop = pool.schedule(decode_and_crop, [data], timeout=TIMEOUT_SECONDS).result()
        return crop

    try:
        yield Pool(send, children)
    finally:
        pool.stop()
        pool.join()


@contextmanager
def own_decoders() -> Iterator[Pool]:
    """Decode as the service does."""
    with closing(Decoders(WORKERS, max_bytes=MAX_PHOTO_BYTES, memory_bytes=MAX_PHOTO_MEMORY)) as pool:
        wanted = Wanted(Geometry(), MAX_PIXELS)
        yield Pool(lambda data: pool.decode(data, wanted).crop, lambda: pool.pids)


POOLS: dict[str, Callable[[], AbstractContextManager[Pool]]] = {
    "in process": in_process,
    "pebble": pebble_pool,
    "our decoders": own_decoders,
}


def children() -> list[int]:
    """List the processes that pebble started."""
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


@contextmanager
def busy_thread() -> Iterator[None]:
    """Compute in another Python thread for as long as the context lasts."""
    end = threading.Event()

    def compute() -> None:
        while not end.is_set():
            pass

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def each_ms(pool: Pool, photos: list[bytes], seconds: float) -> float:
    """Return the median time of one photo, in milliseconds."""
    times, end = [], time.perf_counter() + seconds
    for photo in itertools.cycle(photos):
        began = time.perf_counter()
        pool.decode(photo)
        times.append(time.perf_counter() - began)
        if began > end:
            return 1000 * statistics.median(times)
    raise ValueError("no photos")


def each_second(pool: Pool, photos: list[bytes], seconds: float) -> float:
    """Return the photos per second with one in flight per worker."""
    source, began = itertools.cycle(photos), time.perf_counter()

    def go_on(_: int) -> int:
        count = 0
        while time.perf_counter() < began + seconds:
            pool.decode(next(source))
            count += 1
        return count

    with ThreadPoolExecutor(WORKERS) as threads:
        done = sum(threads.map(go_on, range(WORKERS)))
    return done / (time.perf_counter() - began)


def compare_speed(photos: list[bytes], seconds: float, rounds: int) -> None:
    """Let all pools take turns, and print their medians."""
    found: dict[str, list[tuple[float, ...]]] = collections.defaultdict(list)
    for _ in range(rounds):
        for name, make in POOLS.items():
            began = time.perf_counter()
            with make() as pool:
                pool.decode(photos[0])
                start = 1000 * (time.perf_counter() - began)
                figures = [each_ms(pool, photos, seconds), each_second(pool, photos, seconds)]
                with busy_thread():
                    figures.append(each_second(pool, photos, seconds))
                memory = sum(process_memory_mb(pid) for pid in pool.pids())
            found[name].append((*figures, start, memory))
    print(f"{'':12} ms alone  photos/s at 2  the same beside Python  start ms  children MB (PSS)")
    for name, rows in found.items():
        alone, both, beside, start, memory = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"{name:12} {alone:8.2f} {both:14.1f} {beside:23.1f} {start:9.0f} {memory:18.1f}")


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.jpg"))]
    compare_speed(photos, options.seconds, options.rounds)


if __name__ == "__main__":
    main()

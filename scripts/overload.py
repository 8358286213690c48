"""Send a server of its own four times what it can answer, and fail if it does worse than refuse.

usage: python scripts/overload.py [--seconds 20] [--times 4] [--deadline-ms 2000]

The server gets the first processor and the clients the others, so that what they cost does not count as its own.
First a closed loop of eight clients finds the best throughput; then photos come at random moments at a multiple
of it, answered or not, while a process of its own asks the probes twenty times a second. The best is measured again
afterwards and the mean of both taken, since the speed of a shared machine drifts. It fails when fewer than 90% of the
best throughput are answered, when the accepted photos' 99th percentile is over the deadline, when a probe
takes over 100 ms, or when anything but 200, 503 with Retry-After, or 504 comes back.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import functools
import http.client
import io
import itertools
import multiprocessing
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from app.offline.server import own_server
from app.settings import Settings

CLIENTS = 8
LEAST_SHARE = 0.9
SLOWEST_PROBE_MS = 100.0
PROBE_PAUSE_SECONDS = 0.05
SERIAL_BYTES = 8
STATUS = re.compile(rb"HTTP/1\.1 (\d+)")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Outcome:
    """What came back: how often each status, the seconds of each 200, and how many 503 lacked Retry-After."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    without_retry_after: int = 0

    def note(self, status: int, head: bytes, seconds: float) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
        elif status == 503 and b"retry-after:" not in head.lower():
            self.without_retry_after += 1


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read a whole answer; return its status, 0 where it is no HTTP, and its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    await reader.readexactly(int(length[1]) if length else 0)
    status = STATUS.match(head)
    return int(status[1]) if status else 0, head


class Client:
    """Connections to one server, each kept and used again when it is idle; as little work as can be for each photo."""

    def __init__(self, url: str, requests: list[bytes]) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._requests = requests
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._draw = random.Random(0)
        self._serials = itertools.count()

    async def send(self, outcome: Outcome) -> None:
        """Send one photo and note what comes back."""
        began = time.monotonic()
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        # Bytes behind a JPEG's end change its digest alone; those who send the same photo at once share an answer.
        request = self._draw.choice(self._requests)[:-SERIAL_BYTES]
        writer.write(request + next(self._serials).to_bytes(SERIAL_BYTES))
        status, head = await read_answer(reader)
        outcome.note(status, head, time.monotonic() - began)
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self._idle.append((reader, writer))

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._idle:
            writer.close()


async def closed_loop(client: Client, seconds: float) -> Outcome:
    """Keep eight photos in flight."""
    outcome, end = Outcome(), time.monotonic() + seconds

    async def go_on() -> None:
        while time.monotonic() < end:
            await client.send(outcome)

    await asyncio.gather(*(go_on() for _ in range(CLIENTS)))
    return outcome


async def open_loop(client: Client, rate: float, seconds: float) -> Outcome:
    """Send photos at random moments, `rate` a second on average, whatever became of those before."""
    outcome, draw = Outcome(), random.Random(1)
    moment, end = time.monotonic(), time.monotonic() + seconds
    tasks = []
    while (moment := moment + draw.expovariate(rate)) < end:
        await asyncio.sleep(max(0.0, moment - time.monotonic()))
        tasks.append(asyncio.create_task(client.send(outcome)))
    await asyncio.gather(*tasks)
    return outcome


@functools.cache
def photo_requests() -> list[bytes]:
    """Draw twenty photos as phones send them after scaling, and write each whole request; it ends in a number."""
    requests = []
    for seed in range(20):
        coarse = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(coarse).resize((1280, 960), Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=85)
        body = encoded.getvalue() + bytes(SERIAL_BYTES)
        head = f"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)
    return requests


def probe(url: str, times: Connection) -> None:
    """Ask both probes again and again until told to stop; give back how long each answer took, in milliseconds."""
    found: list[float] = []
    while not times.poll(PROBE_PAUSE_SECONDS):
        for path in ("/healthz", "/readyz"):
            began = time.monotonic()
            connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            connection.close()
            # A probe that does not say 200 is as bad as one that never answers.
            found.append(1000 * (time.monotonic() - began) if response.status == 200 else float("inf"))
    times.send(sorted(found))


async def best_throughput(client: Client, seconds: float) -> float:
    """Measure how many photos a second are answered when there are always eight in flight."""
    return len((await closed_loop(client, seconds)).seconds) / seconds


async def measure(url: str, options: argparse.Namespace) -> tuple[list[float], Outcome, list[float]]:
    """Return the best throughput before and after, the outcome of the overload, and the probes' times meanwhile."""
    client = Client(url, photo_requests())
    await closed_loop(client, options.seconds / 4)  # warm-up
    before = await best_throughput(client, options.seconds / 2)
    ours, theirs = multiprocessing.Pipe()
    prober = multiprocessing.get_context("spawn").Process(target=probe, args=(url, theirs))
    prober.start()
    outcome = await open_loop(client, options.times * before, options.seconds)
    ours.send("stop")
    probes = await asyncio.to_thread(ours.recv)
    prober.join()
    after = await best_throughput(client, options.seconds / 2)
    client.close()
    return [before, after], outcome, probes


def quantile(ordered: list[float], share: float) -> float:
    """Return the value that a share of a sorted list does not exceed; 0 of an empty list."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> int:
    """Run the overload, print what was found, and return 0 if all of it is as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--times", type=float, default=4.0)
    parser.add_argument("--deadline-ms", type=int, default=2000)
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    settings = dataclasses.replace(settings, deadline_ms=options.deadline_ms, result_cache_bytes=0)
    processors = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, processors[:1])  # the server inherits it
    with own_server(settings) as server:
        os.sched_setaffinity(0, processors[1:] or processors)
        server.wait_for_answer(photo_requests()[0].partition(b"\r\n\r\n")[2])
        best, outcome, probes = asyncio.run(measure(server.url, options))
    share = len(outcome.seconds) / options.seconds / statistics.fmean(best)
    p99_ms = 1000 * quantile(sorted(outcome.seconds), 0.99)
    print(f"best with {CLIENTS} clients: {best[0]:.1f} photos/s before, {best[1]:.1f} after")
    print(f"offered: {options.times * best[0]:.1f} photos/s for {options.seconds:.0f} s")
    print(f"came back: {', '.join(f'{count} times {status}' for status, count in sorted(outcome.statuses.items()))}")
    print(f"answered: {100 * share:.1f}% of the best; their p99 {p99_ms:.0f} ms, deadline {options.deadline_ms} ms")
    median, p99 = quantile(probes, 0.5), quantile(probes, 0.99)
    print(f"probes: {len(probes)}, median {median:.1f} ms, p99 {p99:.1f} ms, slowest {probes[-1]:.1f} ms")
    broken = {
        f"under {100 * LEAST_SHARE:.0f}% of the best were answered": share < LEAST_SHARE,
        "the accepted came after their deadline": p99_ms > options.deadline_ms,
        f"a probe took over {SLOWEST_PROBE_MS:.0f} ms": probes[-1] > SLOWEST_PROBE_MS,
        "a 503 had no Retry-After": outcome.without_retry_after > 0,
        "something else came back": bool(set(outcome.statuses) - {200, 503, 504}),
    }
    for promise, is_broken in broken.items():
        if is_broken:
            print(f"broken: {promise}")
    return int(any(broken.values()))


if __name__ == "__main__":
    sys.exit(main())

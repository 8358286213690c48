"""Send photos to a server whose decoder spins, allocates, crashes or waits, and fail if others are affected.

usage: python scripts/hostile_bombs.py [--seconds 60]

No guard recognises these photos, since the fault is in hostile_plugin.py. For each of the first three kinds, four of
them are always in flight beside eight good clients: no good request may be lost, and their 99th percentile is at most
a second. Then three photos that wait without end are sent, and their clients stay connected: a good photo behind them
must be answered within three seconds, and `/readyz` must answer 200.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import http.client
import io
import os
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pillow_heif
from bomb_photos import hostile
from bombs import bombarding, is_fair, send
from chaos_load import load
from heif_boxes import heic_cycle
from overload import photo_requests
from PIL import Image
from promises import broken_of, verdict

from app.measuring.own_server import OwnServer, own_server
from app.settings import Settings

HERE = Path(__file__).resolve().parent
AT_ONCE = 4
WAITING = 3
MAX_P99_MS = 1000.0
MAX_BEHIND_SECONDS = 3.0
# Until then decoders have taken the photos that wait, so that the good one comes behind them.
BEFORE_SECONDS = 0.3
LARGE_PHOTOS = 20
LARGE_AT_ONCE = 3
LARGE_SIZE = (4032, 3024)
GOOD = photo_requests()[0].partition(b"\r\n\r\n")[2]


async def beside(server: OwnServer, kind: str, seconds: float) -> list[str]:
    """Keep four photos of a kind in flight beside good clients."""
    answers: dict[str, Counter[int]] = defaultdict(Counter)
    async with bombarding(server.url, {kind: hostile(kind)}, answers, at_once=AT_ONCE), load(server.url) as fates:
        await asyncio.sleep(seconds)
    came = ", ".join(f"{count} times {status}" for status, count in sorted(answers[kind].items()))
    print(f"{AT_ONCE} at once that it {kind} with ({came}): {fates}; p99 {fates.p99_ms:.0f} ms", flush=True)
    promises = {
        "a good request was lost": bool(fates.lost or fates.statuses),
        f"the p99 was over {MAX_P99_MS:.0f} ms": fates.p99_ms > MAX_P99_MS,
        "a response was not 200, a 4xx or a 503": not all(map(is_fair, answers[kind])),
    }
    return [f"{kind}: {sentence}" for sentence in broken_of(promises)]


async def behind(server: OwnServer, name: str, body: bytes) -> list[str]:
    """Send a good photo behind three that wait without end and whose clients stay connected."""
    waiting = [asyncio.create_task(send(server.url, body)) for _ in range(WAITING)]
    await asyncio.sleep(BEFORE_SECONDS)
    began = time.monotonic()
    status = await send(server.url, GOOD)
    seconds = time.monotonic() - began
    ready = await asyncio.to_thread(readiness, server.url)
    came = await asyncio.gather(*waiting)
    print(f"behind {WAITING} x {name} ({came}): {status} after {seconds:.2f} s; /readyz {ready}", flush=True)
    promises = {
        f"a good photo was not answered within {MAX_BEHIND_SECONDS:.0f} s": status != 200
        or seconds > MAX_BEHIND_SECONDS,
        "/readyz was not 200": ready != 200,
        "a response was not 200, a 4xx or a 503": not all(map(is_fair, came)),
    }
    return [f"{name}: {sentence}" for sentence in broken_of(promises)]


async def large(server: OwnServer) -> list[str]:
    """Send twenty large HEIC, three at a time."""
    body = large_heic()
    turn = asyncio.Semaphore(LARGE_AT_ONCE)

    async def one() -> tuple[int, float]:
        async with turn:
            began = time.monotonic()
            return await send(server.url, body), time.monotonic() - began

    came = await asyncio.gather(*(one() for _ in range(LARGE_PHOTOS)))
    answered = sum(status == http.HTTPStatus.OK for status, _ in came)
    slowest = max(seconds for _, seconds in came)
    print(f"{LARGE_PHOTOS} HEIC of 12 MP, {LARGE_AT_ONCE} at a time: {answered} answered, slowest {slowest:.2f} s")
    return broken_of({"a large HEIC was not answered": answered < LARGE_PHOTOS})


def large_heic() -> bytes:
    """Make a HEIC of 12 megapixels with light noise, so that it costs as much as a camera's."""
    encoded = io.BytesIO()
    width, height = LARGE_SIZE
    picture = Image.effect_noise((width // 4, height // 4), 60).resize(LARGE_SIZE, Image.Resampling.BICUBIC)
    pillow_heif.from_pillow(picture.convert("RGB")).save(encoded, quality=60, enc_params={"preset": "ultrafast"})
    return encoded.getvalue()


def readiness(url: str) -> int:
    """Ask `/readyz`; return its status."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
    connection.close()
    return status


async def run(server: OwnServer, seconds: float) -> list[str]:
    """Try all kinds, and return the promises that were broken."""
    found = []
    for kind in ("spins", "allocates", "crashes"):
        found += await beside(server, kind, seconds / 3)
    found += await behind(server, "a cycle", heic_cycle(0))
    found += await behind(server, "a decoder that waits", hostile("waits"))
    return found + await large(server)


def main() -> int:
    """Run the trial; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "hostile"), str(HERE)])
    settings = dataclasses.replace(Settings.from_environment(os.environ), result_cache_bytes=0)
    with own_server(settings) as server:
        server.wait_for_answer(GOOD)
        return verdict(asyncio.run(run(server, options.seconds)))


if __name__ == "__main__":
    sys.exit(main())

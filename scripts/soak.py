"""Send many mixed requests to a server and fail if its memory does not stay flat.

usage: python scripts/soak.py [--requests 20000] [--seconds S] [--clients 4]

Nine in ten requests are good photos, from 0.01 to 12 megapixels, in five formats; a tenth are bad in eight ways.
Memory (PSS of all processes, at rest) after the first 2,000 requests, or half of a shorter run, is compared with that
at the end: growth over 5% fails, and so does any response with an unexpected status. With --seconds the run ends after
that time.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import http.client
import io
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from app.measuring.own_server import OwnServer, own_server
from app.processes.memory import IDLE_SECONDS
from app.settings import Settings

MAX_GROWTH_PERCENT = 5.0
BAD_SHARE = 0.1
WARM_UP_REQUESTS = 2_000
# (width, height, format, how often): most photos are small, a few are as large as phones make them.
GOOD = (
    (120, 90, "PNG", 10),
    (500, 375, "JPEG", 50),
    (640, 480, "WEBP", 10),
    (800, 600, "GIF", 4),
    (1280, 960, "JPEG", 20),
    (1600, 1200, "TIFF", 2),
    (4032, 3024, "JPEG", 4),
)


@dataclass(frozen=True)
class Request:
    """A body and the expected status."""

    body: bytes
    status: int


@functools.cache
def good_requests() -> list[Request]:
    """Draw photos of all sizes and formats, each as often in the list as it is sent."""
    requests = []
    for width, height, kind, times in GOOD:
        noise = np.random.default_rng(width).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        encoded = io.BytesIO()
        Image.fromarray(noise).resize((width, height)).save(encoded, kind)
        requests += [Request(encoded.getvalue(), 200)] * times
    return requests


def bad_requests() -> list[Request]:
    """Make bad bodies, each with a different cost for the server."""
    jpeg = good_requests()[20].body
    bomb = io.BytesIO()
    Image.new("1", (12_000, 9_000)).save(bomb, "PNG")
    return [
        Request(b"", 400),
        Request(b"only text", 415),
        Request(b"%PDF-1.7 " + bytes(2000), 415),
        Request(jpeg[: len(jpeg) // 2], 422),
        Request(jpeg[:300] + os.urandom(3000), 422),
        Request(b"\x89PNG\r\n\x1a\n" + os.urandom(4000), 422),
        Request(bomb.getvalue(), 422),
        Request(jpeg + bytes(11 * 2**20), 413),
    ]


class Soak:
    """A run: the number of requests sent, and the wrong responses."""

    def __init__(self, server: OwnServer, requests: int, seconds: float | None) -> None:
        self._server = server
        self._requests = requests
        self._seconds = seconds
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._draw = random.Random(0)
        self._good, self._bad = good_requests(), bad_requests()
        self.sent = 0
        self.wrong: list[str] = []

    @property
    def share(self) -> float:
        """Return how much of the run is over, 1 at its end."""
        passed = (time.monotonic() - self._began) / self._seconds if self._seconds else 0.0
        return max(passed, self.sent / self._requests)

    def send(self, clients: int, is_over: Callable[[], bool]) -> float:
        """Let clients send until a condition holds; return the memory of the service at rest."""
        self._is_over = is_over
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(self._client, range(clients)))
        time.sleep(IDLE_SECONDS + 2)
        return self._server.memory_mb()

    def _client(self, _: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(self._server.url).netloc, timeout=60)
        while request := self._next():
            try:
                connection.request("POST", "/api/v1/predict", request.body, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status = repr(error)
            if status != request.status:
                self.wrong.append(f"{status} where {request.status} was due")

    def _next(self) -> Request | None:
        with self._lock:
            if self._is_over():
                return None
            self.sent += 1
            return self._draw.choice(self._bad if self._draw.random() < BAD_SHARE else self._good)


def main() -> int:
    """Run the soak and print one line; return 0 if memory stayed flat and every answer was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    # The photos repeat, and a cached answer would decode and compute nothing.
    settings = dataclasses.replace(Settings.from_environment(os.environ), result_cache_bytes=0)
    with own_server(settings) as server:
        server.wait_for_answer(good_requests()[0].body)
        soak = Soak(server, options.requests, options.seconds)
        before = soak.send(options.clients, lambda: soak.sent >= WARM_UP_REQUESTS or soak.share >= 0.5)
        after = soak.send(options.clients, lambda: soak.share >= 1)
    growth = 100 * (after / before - 1)
    print(
        f"{soak.sent} requests, {len(soak.wrong)} wrong answers; memory {before} MB when warm, "
        f"{after} MB at the end ({growth:+.1f}%)"
    )
    for line in sorted(set(soak.wrong)):
        print(f"wrong: {line}")
    return int(bool(soak.wrong) or growth > MAX_GROWTH_PERCENT)


if __name__ == "__main__":
    sys.exit(main())

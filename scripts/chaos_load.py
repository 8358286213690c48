"""Load on a server that loses connections, and the outcome of every request."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from overload import photo_requests, quantile, read_answer

CLIENTS = 8
# Only new connections reach a new worker; an open one stays with the worker that accepted it.
REQUESTS_ON_ONE = 10
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.02
MIN_SLOWER = 5
NOISE_MS = 100.0


@dataclass
class Fates:
    """The outcome of every request: the seconds of those answered, the local ports of those lost, other statuses."""

    seconds: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0

    def __str__(self) -> str:
        others = "".join(f", {count} times {status}" for status, count in sorted(self.statuses.items()))
        return f"{len(self.seconds)} answered, {len(self.lost)} lost{others}"

    def __iadd__(self, others: Fates) -> Fates:
        self.seconds += others.seconds
        self.lost += others.lost
        self.statuses += others.statuses
        self.refused += others.refused
        return self

    def quantile_ms(self, share: float) -> float:
        """Return the milliseconds that this share of the answered did not exceed."""
        return 1000 * quantile(sorted(self.seconds), share)

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the answered, in milliseconds."""
        return self.quantile_ms(0.99)


@dataclass
class Comparison:
    """The fates of good requests without and beside something that disturbs, measured in turns.

    A percentile is judged only if five answers on each side are slower; of fewer, it would be the chance of a single
    one. So the 99th needs 500 answers, and 100 have the 95th.
    """

    without: Fates = field(default_factory=Fates)
    beside: Fates = field(default_factory=Fates)

    @property
    def share(self) -> float:
        """The share of the answers whose slowest is judged."""
        fewer = min(len(self.without.seconds), len(self.beside.seconds))
        return max(0.5, min(0.99, math.floor(100 - 100 * MIN_SLOWER / max(1, fewer)) / 100))

    @property
    def has_lost(self) -> bool:
        """Whether a good request was lost, or got another status than 200."""
        return any(fates.lost or fates.statuses for fates in (self.without, self.beside))

    @property
    def is_slower(self) -> bool:
        """Whether good requests took over twice as long as without, plus 100 ms, or none was answered at all."""
        without, beside = (fates.quantile_ms(self.share) for fates in (self.without, self.beside))
        return not self.beside.seconds or beside > 2 * without + NOISE_MS

    def lines(self, disturbance: str) -> list[str]:
        """Describe both sides in a line each."""
        sides = (("without", self.without), (f"beside {disturbance}", self.beside))
        percent = f"{100 * self.share:.0f}"
        return [
            f"{name}: {fates}; p{percent} {fates.quantile_ms(self.share):.0f} ms, p99 {fates.p99_ms:.0f} ms"
            for name, fates in sides
        ]


class Client:
    """One request after the other, on a connection that is replaced when it is lost, and after every tenth request."""

    def __init__(self, url: str, fates: Fates) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._fates = fates
        self._sent = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> bool:
        """Send a request and note its outcome; return whether the server still accepts connections."""
        began, port = time.monotonic(), 0
        try:
            self._streams = self._streams or await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            port = writer.get_extra_info("sockname")[1]
            writer.write(request)
            status, head = await read_answer(reader)
        except ConnectionRefusedError:
            self._fates.refused += 1
            return False
        except (OSError, EOFError):
            self._fates.lost.append(port)
            self.close()
            return True
        if status == 200:
            self._fates.seconds.append(time.monotonic() - began)
        else:
            self._fates.statuses[status] += 1
        self._sent += 1
        if b"connection: close" in head.lower() or self._sent % REQUESTS_ON_ONE == 0:
            self.close()
        return True

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@asynccontextmanager
async def load(url: str) -> AsyncIterator[Fates]:
    """Keep one request per client in flight, until the end or until the server accepts none."""
    fates, requests, end = Fates(), itertools.cycle(photo_requests()), asyncio.Event()

    async def go_on() -> None:
        client = Client(url, fates)
        while not end.is_set() and await client.send(next(requests)):
            pass
        client.close()

    tasks = [asyncio.create_task(go_on()) for _ in range(CLIENTS)]
    try:
        yield fates
    finally:
        end.set()
        await asyncio.gather(*tasks)


async def compare(
    url: str, disturbing: Callable[[], AbstractAsyncContextManager[object]], turns: Sequence[tuple[float, float]]
) -> Comparison:
    """Measure good requests without and beside a disturbance, in turns, since the speed of a shared machine drifts.

    Each turn has the seconds of both.
    """
    found = Comparison()
    for without_seconds, beside_seconds in turns:
        async with load(url) as without:
            await asyncio.sleep(without_seconds)
        async with disturbing(), load(url) as beside:
            await asyncio.sleep(beside_seconds)
        found.without += without
        found.beside += beside
    return found


async def until(condition: Callable[[], bool]) -> float:
    """Wait for a condition, and return the seconds that it took."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() > began + PATIENCE_SECONDS:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s")
        await asyncio.sleep(POLL_SECONDS)
    return time.monotonic() - began

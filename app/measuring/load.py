"""Load on a target, in a closed or an open loop, and its measurements.

In a closed loop each of n clients sends its next photo when its last one is answered. In an open loop photos
are sent at random moments at a mean rate, answered or not. Latency is then measured from the moment at which a photo
was due, so that a stalled target cannot hide its stall (Schroeder et al., NSDI 2006).
"""

from __future__ import annotations

import http.client
import json
import random
import re
import statistics
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import cycle

from ..errors import TopthreeError

Send = Callable[[bytes], dict[str, float]]
"""Have one photo classified; return the stages of its Server-Timing in milliseconds; raise if it failed.

The stage `cache`, whose time is 0, means that the answer was cached or computed for another request.
"""

MakeSender = Callable[[], AbstractContextManager[Send]]
"""Open the connection of one client, which is closed at the end of the context."""

OPEN_LOOP_CLIENTS = 256
TIMEOUT_SECONDS = 60.0
CACHE = "cache"


class RequestFailed(TopthreeError):
    """The target answered with a `status` other than 200."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(f"A request was answered with status {status}. {text}".strip())
        self.status = status


@dataclass(frozen=True)
class Load:
    """The result of one load. Times are in milliseconds; `level` is clients (closed) or photos per second (open)."""

    loop: str
    level: float
    requests: int
    errors: int
    hits: int
    throughput: float
    p50: float
    p90: float
    p99: float
    slowest: float
    stages: dict[str, float]


@dataclass(frozen=True)
class _Sample:
    finished: float
    milliseconds: float
    stages: dict[str, float] | None


def http_sender(url: str) -> MakeSender:
    """Return a function that opens connections to the server at `url`."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.rstrip("/") + "/api/v1/predict"
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    @contextmanager
    def make() -> Iterator[Send]:
        connection = connect(parts.netloc, timeout=TIMEOUT_SECONDS)

        def send(photo: bytes) -> dict[str, float]:
            connection.request("POST", path, photo, {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                raise RequestFailed(response.status, _detail(body))
            return parse_server_timing(response.headers.get("Server-Timing", ""))

        with closing(connection):
            yield send

    return make


def _detail(body: bytes) -> str:
    """Return the sentence of a problem document; an empty text for any other body."""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


def parse_server_timing(header: str) -> dict[str, float]:
    """Return the durations of a `Server-Timing` header by name, and `cache` if the answer was cached."""
    stages = {name: float(value) for name, value in re.findall(r"([\w-]+);dur=([\d.]+)", header)}
    return stages | ({CACHE: 0.0} if re.search(rf"\b{CACHE};desc=\"?(hit|shared)", header) else {})


def closed_loop(make_sender: MakeSender, photos: list[bytes], *, clients: int, seconds: float) -> Load:
    """Keep `clients` photos in flight for some seconds."""
    begin = time.monotonic()
    end = begin + seconds
    source = _Shared(cycle(photos))

    def client(_: int) -> list[_Sample]:
        samples = []
        with make_sender() as send:
            while (started := time.monotonic()) < end:
                samples.append(_measure(send, next(source), started))
        return samples

    with ThreadPoolExecutor(clients) as pool:
        samples = [sample for found in pool.map(client, range(clients)) for sample in found]
    return _summarise("closed", clients, samples, begin)


def open_loop(make_sender: MakeSender, photos: list[bytes], *, rate: float, seconds: float) -> Load:
    """Send photos at random moments, `rate` per second on average, for some seconds."""
    moments = list(_arrivals(rate, seconds))
    local = threading.local()
    begin = time.monotonic()

    def send_at(moment: float, photo: bytes) -> _Sample:
        if not hasattr(local, "send"):
            local.send = connections.enter_context(make_sender())
        return _measure(local.send, photo, begin + moment)

    with ExitStack() as connections, ThreadPoolExecutor(OPEN_LOOP_CLIENTS) as pool:
        futures = []
        for moment, photo in zip(moments, cycle(photos), strict=False):
            time.sleep(max(0.0, begin + moment - time.monotonic()))
            futures.append(pool.submit(send_at, moment, photo))
        samples = [future.result() for future in futures]
    return _summarise("open", rate, samples, begin)


def _arrivals(rate: float, seconds: float) -> Iterator[float]:
    """Yield the moments of a Poisson process, the same in every run."""
    draw = random.Random(0)
    moment = draw.expovariate(rate)
    while moment < seconds:
        yield moment
        moment += draw.expovariate(rate)


class _Shared(Iterator[bytes]):
    """An iterator that several threads can use."""

    def __init__(self, source: Iterable[bytes]) -> None:
        self._source = iter(source)
        self._lock = threading.Lock()

    def __next__(self) -> bytes:
        with self._lock:
            return next(self._source)


def _measure(send: Send, photo: bytes, started: float) -> _Sample:
    try:
        stages: dict[str, float] | None = send(photo)
    except (TopthreeError, http.client.HTTPException, OSError):
        stages = None  # counted as an error, whatever it is
    finished = time.monotonic()
    return _Sample(finished, 1000 * (finished - started), stages)


def _summarise(loop: str, level: float, samples: list[_Sample], begin: float) -> Load:
    good = [sample for sample in samples if sample.stages is not None]
    times = sorted(sample.milliseconds for sample in good) or [0.0]
    timed = [sample.stages for sample in good if sample.stages]
    names = dict.fromkeys(name for stages in timed for name in stages if name != CACHE)
    stages = {name: statistics.median(found[name] for found in timed if name in found) for name in names}
    seconds = max((sample.finished for sample in samples), default=begin) - begin
    return Load(
        loop=loop,
        level=level,
        requests=len(samples),
        errors=len(samples) - len(good),
        hits=sum(CACHE in found for found in timed),
        throughput=round(len(good) / seconds, 2) if seconds else 0.0,
        p50=_quantile(times, 0.5),
        p90=_quantile(times, 0.9),
        p99=_quantile(times, 0.99),
        slowest=round(times[-1], 2),
        stages={name: round(value, 2) for name, value in stages.items()},
    )


def _quantile(ordered: list[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

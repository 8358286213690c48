"""Send costly files to a server, and fail if other clients are affected or a file costs too much.

usage: python scripts/bombs.py [--seconds 60] [--bombs FOLDER] [--grow]

First each file is sent by itself: its status is printed, with the processor time and memory of all processes of the
service and the duration. Then two loads take turns: eight good clients, and the same with sixteen more clients that
send the files, each its next one when its last is answered. The service runs in a control group of 1536 MiB if the
system allows one.

The trial fails if a good request is lost, if the 99th percentile of the good ones is over twice that without bombs
plus 100 ms, if a probe takes longer than three times the slowest without bombs plus 100 ms, if the memory is over
1 GiB, if a file costs over 2.2 seconds of processor time, or if a response is not 200, a 4xx or a 503. In a short run
a lower percentile is compared, the highest that at least five answers on each side exceed. `--bombs` sends the files
of a folder; `--grow` makes each as large as an upload may be.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from bomb_photos import bombs, bombs_of
from chaos_load import Comparison, compare
from memory_limit import Group, born_limited, leave
from overload import photo_requests, read_answer
from promises import broken_of, verdict
from service_watch import Seen, Watch, settled_processor_seconds, watching

from app.measuring.own_server import OwnServer, own_server
from app.settings import Settings

ATTACKERS = 16
TURNS = 4
GROUP_BYTES = 1536 * 2**20
MAX_MEMORY_MB = 1024.0
MAX_PROCESSOR_SECONDS = 2.2
MAX_PROBE_MS = 100.0
BUSY_FACTOR = 3
PATIENCE_SECONDS = 60.0
LOST = 0


@dataclass(frozen=True)
class Cost:
    """The costs of one file."""

    status: int
    processor_seconds: float
    memory_mb: float
    seconds: float


@dataclass
class Found:
    """The measurements of a run."""

    alone: dict[str, Cost] = field(default_factory=dict)
    good: Comparison = field(default_factory=Comparison)
    answers: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    quiet: list[Seen] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[int]:
        """Count the statuses of all files that were sent together."""
        return sum(self.answers.values(), Counter[int]())

    @property
    def memory_mb(self) -> float:
        """The largest memory of all processes while files were sent together."""
        return max(seen.memory_mb for seen in self.seen)


async def send(url: str, body: bytes) -> int:
    """Send a file on a new connection; return the status, or 0 if there is no response."""
    address = urlsplit(url)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
    except OSError:
        return LOST
    try:
        head = f"POST /api/v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        # Not `wait_for`, which in Python 3.11 can lose a cancellation that comes together with the answer.
        async with asyncio.timeout(PATIENCE_SECONDS):
            return (await read_answer(reader))[0]
    except (OSError, EOFError):  # TimeoutError is an OSError
        return LOST
    finally:
        writer.close()


async def each_alone(server: OwnServer, watch: Watch, files: dict[str, bytes]) -> dict[str, Cost]:
    """Send one file after the other, and measure the cost of each until all processes are idle."""
    found = {}
    group = server.process.pid
    for name, body in files.items():
        before = settled_processor_seconds(group)
        watch.seen()
        began = time.monotonic()
        status = await send(server.url, body)
        seconds = time.monotonic() - began
        used = settled_processor_seconds(group) - before
        found[name] = Cost(status, used, watch.seen().memory_mb, seconds)
    return found


@asynccontextmanager
async def bombarding(
    url: str, files: dict[str, bytes], answers: dict[str, Counter[int]], *, at_once: int = ATTACKERS
) -> AsyncIterator[None]:
    """Keep `at_once` files in flight as long as the context lasts; count the statuses that come back to each."""

    async def go_on(start: int) -> None:
        names = list(files)
        while True:
            for place in range(len(names)):
                name = names[(start + place) % len(names)]
                answers[name][await send(url, files[name])] += 1

    tasks = [asyncio.create_task(go_on(start)) for start in range(at_once)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_together(server: OwnServer, watch: Watch, files: dict[str, bytes], seconds: float, found: Found) -> None:
    """Measure the good clients without and with the files, in turns."""

    disturbing = partial(
        watched, watch, found.quiet, found.seen, partial(bombarding, server.url, files, found.answers)
    )
    found.good = await compare(server.url, disturbing, [(seconds / TURNS / 2, seconds / TURNS)] * TURNS)


@asynccontextmanager
async def watched(
    watch: Watch,
    before: list[Seen],
    during: list[Seen],
    disturbing: Callable[[], AbstractAsyncContextManager[None]],
) -> AsyncIterator[None]:
    """Disturb, and note what the watch has seen until then, and while it lasts."""
    before.append(watch.seen())
    async with disturbing():
        yield
    during.append(watch.seen())


def is_late(quiet: Sequence[Seen], seen: Sequence[Seen]) -> bool:
    """Return whether a probe took longer than three times the slowest without costly files plus 100 ms.

    This is about the slowest: a process that stands still for seconds answers few probes late.
    """
    return slowest_ms(seen) > MAX_PROBE_MS + BUSY_FACTOR * slowest_ms(quiet)


def slowest_ms(seen: Sequence[Seen]) -> float:
    """Return the milliseconds of the slowest probe."""
    return max(each.probe_ms for each in seen)


async def measure(server: OwnServer, files: dict[str, bytes], seconds: float) -> Found:
    """Send each file by itself, then all together."""
    found = Found()
    with watching(server) as watch:
        found.alone = await each_alone(server, watch, files)
        await all_together(server, watch, files, seconds, found)
    return found


def is_fair(status: int) -> bool:
    """Return whether a status is one that a costly file may get: 200, a 4xx, or 503."""
    return status in (200, 503) or 400 <= status < 500


def print_found(found: Found, files: dict[str, bytes], group: Group | None) -> None:
    """Print the cost of each file, and the outcome of all requests."""
    print(f"{'file':28} {'bytes':>10} status  processor s  memory MB  elapsed s")
    for name, cost in found.alone.items():
        numbers = f"{cost.status:6}  {cost.processor_seconds:11.2f}  {cost.memory_mb:9.0f}  {cost.seconds:9.2f}"
        print(f"{name:28} {len(files[name]):10,} {numbers}")
    print("\n".join(found.good.lines(f"{ATTACKERS} at once")))
    counts = ", ".join(f"{count} times {status}" for status, count in sorted(found.statuses.items()))
    print(f"responses to these: {counts}")
    where = f"its group's peak {group.peak_mb:.0f} MB, {group.kills} killed in it" if group else "no group can be made"
    print(f"slowest /healthz without {slowest_ms(found.quiet):.1f} ms, beside {slowest_ms(found.seen):.1f} ms")
    print(f"memory at most {found.memory_mb:.0f} MB ({where})")


def broken_promises(found: Found, group: Group | None) -> list[str]:
    """Return the sentences of the promises that were broken."""
    alone = found.alone.values()
    memory_mb = max([found.memory_mb, *(cost.memory_mb for cost in alone)])
    dearest_seconds = max(cost.processor_seconds for cost in alone)
    return broken_of(
        {
            "a good request was lost": found.good.has_lost,
            "good requests became slower": found.good.is_slower,
            "a probe was late": is_late(found.quiet, found.seen),
            f"memory was over {MAX_MEMORY_MB:.0f} MB": memory_mb > MAX_MEMORY_MB,
            f"a file cost over {MAX_PROCESSOR_SECONDS} s": dearest_seconds > MAX_PROCESSOR_SECONDS,
            "a response was not 200, a 4xx or a 503": not all(
                map(is_fair, [*found.statuses, *(cost.status for cost in alone)])
            ),
            "the system ended a process for lack of memory": group is not None and group.kills > 0,
        }
    )


def main() -> int:
    """Run the trial; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--bombs", type=Path, metavar="FOLDER")
    parser.add_argument("--grow", action="store_true")
    options = parser.parse_args()
    settings = dataclasses.replace(Settings.from_environment(os.environ), result_cache_bytes=0)
    size = settings.max_upload_bytes if options.grow else 0
    files = bombs_of(options.bombs, size) if options.bombs else bombs(size)
    with born_limited(GROUP_BYTES) as group, own_server(settings) as server:
        leave(group)
        server.wait_for_answer(photo_requests()[0].partition(b"\r\n\r\n")[2])
        found = asyncio.run(measure(server, files, options.seconds))
        print_found(found, files, group)
        return verdict(broken_promises(found, group))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())

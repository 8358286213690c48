"""Disturb a server under load, and fail if a request is lost that must not be.

usage: python scripts/chaos.py [--seconds 60]

Two workers answer eight clients. Each client sends its next photo when its last one is answered, on a new connection
after every tenth; the result cache is off. `bombs` takes three tenths of the time, the others equal parts of the rest:

  kill    kill -9 for a worker, again and again: only requests on its own connections may be lost, and two workers
          must be ready again within ten seconds
  reload  SIGHUP, again and again: nothing may be lost, and each reload must be done
  slow    200 connections that send headers byte by byte and 200 that stop in the middle of a body: no request of the
          clients may be lost, and they may take at most twice as long as without them plus 100 ms
  bombs   16 costly files at once, then kill -9 for a decoder, then for all, again and again: no request of the clients
          may be lost, and all decoders must be running again within two seconds
  stop    SIGTERM for a new server, again and again: every accepted request must be answered

`slow` and `bombs` measure the clients without and beside these in turns, and compare the 99th percentile, or the
highest below it that at least five answers on each side exceed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import http.client
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from chaos_bombs import attack_decoders
from chaos_load import Fates, compare, load, until
from overload import photo_requests
from promises import broken_of, verdict

from app.measuring.own_server import OwnServer, own_server
from app.processes.plan import make_plan
from app.settings import Settings

ATTACKERS = 200
RECOVERY_SECONDS = 10.0
CONNECT_SECONDS = 1.0
TURNS = 3
TRICKLE_SECONDS = 1.0
BOMBS_SHARE = 0.3


def workers_of(server: OwnServer) -> set[int]:
    """List the process numbers of a server's workers."""
    pid = server.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()}


def is_ready(server: OwnServer) -> bool:
    """Return whether `/readyz` reports two ready workers."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=RECOVERY_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        return response.status == 200 and json.loads(response.read())["workers"] == 2
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def kill(pid: int) -> set[int]:
    """Kill a worker; return the ports of the clients that were connected to it, read while it was stopped."""
    os.kill(pid, signal.SIGSTOP)
    while ") T " not in Path(f"/proc/{pid}/stat").read_text(encoding="ascii"):
        time.sleep(0.001)
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    os.kill(pid, signal.SIGKILL)
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in inodes}


def has_replaced(server: OwnServer, victim: int) -> bool:
    """Return whether a killed worker has been replaced, and both workers are ready."""
    workers = workers_of(server)
    return victim not in workers and len(workers) == 2 and is_ready(server)


async def kill_workers(server: OwnServer, seconds: float) -> list[str]:
    """Kill one worker after the other."""
    recoveries: list[float] = []
    foreign, end = 0, time.monotonic() + seconds
    async with load(server.url) as fates:
        while time.monotonic() < end:
            await asyncio.sleep(1)
            victim, lost_before = min(workers_of(server)), len(fates.lost)
            own = kill(victim)
            recoveries.append(await until(partial(has_replaced, server, victim)))
            foreign += len([port for port in fates.lost[lost_before:] if port not in own])
    print(f"kill:   {len(recoveries)} workers killed: {fates}; of the lost, {foreign} on connections of other workers")
    print(f"        both workers ready again after {min(recoveries):.1f} to {max(recoveries):.1f} s")
    return broken_of(
        {
            "a request was lost that a killed worker did not hold": foreign > 0,
            "a response was not 200": bool(fates.statuses),
            f"a worker was not replaced within {RECOVERY_SECONDS:.0f} s": max(recoveries) > RECOVERY_SECONDS,
        }
    )


def has_logged(server: OwnServer, text: str) -> bool:
    """Return whether the log of a server contains a text."""
    return text in server.log


async def reload(server: OwnServer, seconds: float) -> list[str]:
    """Send one SIGHUP after the other."""
    took: list[float] = []
    end = time.monotonic() + seconds
    async with load(server.url) as fates:
        while time.monotonic() < end:
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGHUP)
            took.append(await until(partial(has_logged, server, f"Reload {len(took) + 1} is ")))
    done = server.log.count(" is done: 2 workers")
    print(f"reload: {len(took)} reloads, {done} done, in {min(took):.1f} to {max(took):.1f} s: {fates}")
    return broken_of({"a request was lost": bool(fates.lost or fates.statuses), "a reload failed": done != len(took)})


async def attack(url: str, start: bytes, rest: bytes) -> None:
    """Send the start of a request and then the rest, byte by byte, again and again, until cancelled."""
    address = urlsplit(url)
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(start)
            for index in range(60):
                await asyncio.sleep(TRICKLE_SECONDS)
                writer.write(rest[index : index + 1])
                await writer.drain()
            writer.close()


@asynccontextmanager
async def slow_connections(url: str) -> AsyncIterator[None]:
    """Keep 400 slow connections open as long as the context lasts."""
    photo = photo_requests()[0]
    tasks = [asyncio.create_task(attack(url, photo[:20], photo[20:])) for _ in range(ATTACKERS)]
    tasks += [asyncio.create_task(attack(url, photo[: len(photo) // 2], b"")) for _ in range(ATTACKERS)]
    await asyncio.sleep(CONNECT_SECONDS)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def slow_clients(server: OwnServer, seconds: float) -> list[str]:
    """Compare the clients' times without and with 400 slow connections."""
    turn = (seconds / 2 / TURNS, seconds / 2 / TURNS)
    found = await compare(server.url, partial(slow_connections, server.url), [turn] * TURNS)
    lines = found.lines(f"{ATTACKERS} slow heads and {ATTACKERS} half bodies")
    print("slow:   " + "\n        ".join(lines))
    return broken_of({"a request was lost": found.has_lost, "good requests became slower": found.is_slower})


async def stop(settings: Settings, seconds: float) -> list[str]:
    """Stop one server after the other."""
    all_fates, took = Fates(), []
    end = time.monotonic() + seconds
    while not took or time.monotonic() < end:
        with own_server(settings) as server:
            await until(lambda: is_ready(server))
            async with load(server.url) as fates:
                await asyncio.sleep(1)
                server.process.send_signal(signal.SIGTERM)
                took.append(await until(lambda: server.process.poll() is not None))
        all_fates += fates
    print(
        f"stop:   {len(took)} servers stopped, in {min(took):.1f} to {max(took):.1f} s: {all_fates}; "
        f"{all_fates.refused} came later and were not accepted"
    )
    return broken_of({"an accepted request was lost": bool(all_fates.lost or all_fates.statuses)})


async def run(settings: Settings, seconds: float) -> list[str]:
    """Run all five parts, and return the broken promises."""
    found, plan = [], make_plan(settings)
    with own_server(settings) as server:
        await until(lambda: is_ready(server))
        found += await attack_decoders(server, plan.workers * plan.decoders, BOMBS_SHARE * seconds)
        for act in (kill_workers, reload, slow_clients):
            found += await act(server, (1 - BOMBS_SHARE) / 4 * seconds)
    return found + await stop(settings, (1 - BOMBS_SHARE) / 4 * seconds)


def main() -> int:
    """Run, print the result, and return 0 if every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    settings = Settings.from_environment(os.environ)
    settings = dataclasses.replace(settings, workers=2, result_cache_bytes=0)
    found = asyncio.run(run(settings, options.seconds))
    return verdict(found)


if __name__ == "__main__":
    sys.exit(main())

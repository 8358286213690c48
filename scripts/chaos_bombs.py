"""Costly files, and decoders that are killed, under load: the part of chaos.py that is about decoders."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter, defaultdict
from contextlib import suppress
from functools import partial

from bomb_photos import bombs
from bombs import bombarding, is_fair, is_late, slowest_ms, watched
from chaos_load import Fates, compare, load, until
from promises import broken_of
from service_watch import Seen, decoders, watching

from app.measuring.own_server import OwnServer

# A photo whose decoder was killed is tried once more, and must be done before the next kill.
BETWEEN_KILLS_SECONDS = 1.0
MAX_RECOVERY_SECONDS = 2.0
TURNS = 4


async def kill_decoders(
    server: OwnServer, planned: int, seconds: float, *, all_at_once: bool
) -> tuple[Fates, list[float]]:
    """Kill one decoder, or all, again and again under load; return the outcomes, and the seconds to replace them.

    Decoders that a costly photo has put beside the planned ones are not replaced.
    """
    group, took = server.process.pid, list[float]()
    end = time.monotonic() + seconds
    async with load(server.url) as fates:
        while not took or time.monotonic() < end:
            await asyncio.sleep(BETWEEN_KILLS_SECONDS)
            victims = decoders(group)[: None if all_at_once else 1]
            for pid in victims:
                with suppress(ProcessLookupError):  # it has exited
                    os.kill(pid, signal.SIGKILL)
            took.append(await until(partial(_are_replaced, group, set(victims), planned)))
    return fates, took


def _are_replaced(group: int, victims: set[int], planned: int) -> bool:
    alive = decoders(group)
    return len(alive) >= planned and not victims & set(alive)


async def attack_decoders(server: OwnServer, planned: int, seconds: float) -> list[str]:
    """Send costly files and good photos, then kill decoders one by one, then all at once.

    `planned` is the number of decoders that the server keeps.
    """
    answers: dict[str, Counter[int]] = defaultdict(Counter)
    quiet, seen, files = list[Seen](), list[Seen](), bombs()
    turn = (seconds / 4 / TURNS, seconds / 4 / TURNS)
    with watching(server) as watch:
        costly = partial(bombarding, server.url, files, answers)
        found = await compare(server.url, partial(watched, watch, quiet, seen, costly), [turn] * TURNS)
    one, one_took = await kill_decoders(server, planned, seconds / 4, all_at_once=False)
    every, every_took = await kill_decoders(server, planned, seconds / 4, all_at_once=True)
    statuses = sum(answers.values(), Counter[int]())
    came = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
    print("bombs:  " + "\n        ".join(found.lines(f"{len(files)} kinds ({came})")))
    print(f"        slowest /healthz without {slowest_ms(quiet):.1f} ms, beside {slowest_ms(seen):.1f} ms")
    print(f"        memory at most {max(each.memory_mb for each in seen):.0f} MB")
    print(f"        {len(one_took)} decoders killed: {one}; replaced in at most {max(one_took):.1f} s")
    print(f"        all killed {len(every_took)} times: {every}; replaced in at most {max(every_took):.1f} s")
    slowest_seconds = max(one_took + every_took)
    return broken_of(
        {
            "a good request was lost": found.has_lost or any(fates.lost or fates.statuses for fates in (one, every)),
            "good requests became slower": found.is_slower,
            "a probe was late": is_late(quiet, seen),
            f"decoders were not replaced within {MAX_RECOVERY_SECONDS:.0f} s": slowest_seconds > MAX_RECOVERY_SECONDS,
            "a bomb got an answer that it should not": not all(map(is_fair, statuses)),
        }
    )

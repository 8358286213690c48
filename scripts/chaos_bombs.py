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
from bombs import MAX_PROBE_MS, NOISE_MS, bombarding, is_fair
from chaos_load import Fates, load, until
from promises import broken_of
from service_watch import decoders, watching

from app.measuring.own_server import OwnServer

# A photo whose decoder was killed is tried once more, and must be done before the next kill.
BETWEEN_KILLS_SECONDS = 1.0
MAX_RECOVERY_SECONDS = 2.0


async def kill_decoders(server: OwnServer, seconds: float, *, all_at_once: bool) -> tuple[Fates, list[float]]:
    """Kill one decoder, or all, again and again under load; return the outcomes, and the seconds to replace them."""
    group, took = server.process.pid, list[float]()
    end, count = time.monotonic() + seconds, len(decoders(group))
    async with load(server.url) as fates:
        while not took or time.monotonic() < end:
            await asyncio.sleep(BETWEEN_KILLS_SECONDS)
            victims = decoders(group)[: None if all_at_once else 1]
            for pid in victims:
                with suppress(ProcessLookupError):  # it has exited
                    os.kill(pid, signal.SIGKILL)
            took.append(await until(partial(_are_replaced, group, set(victims), count)))
    return fates, took


def _are_replaced(group: int, victims: set[int], count: int) -> bool:
    alive = decoders(group)
    return len(alive) >= count and not victims & set(alive)


async def attack_decoders(server: OwnServer, seconds: float) -> list[str]:
    """Send costly files and good photos, then kill decoders one by one, then all at once."""
    answers: dict[str, Counter[int]] = defaultdict(Counter)
    files = bombs()
    with watching(server) as watch:
        async with load(server.url) as without:
            await asyncio.sleep(seconds / 6)
        watch.seen()
        async with bombarding(server.url, files, answers), load(server.url) as beside:
            await asyncio.sleep(seconds / 3)
        seen = watch.seen()
    one, one_took = await kill_decoders(server, seconds / 4, all_at_once=False)
    every, every_took = await kill_decoders(server, seconds / 4, all_at_once=True)
    statuses = sum(answers.values(), Counter[int]())
    came = ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))
    print(f"bombs:  without: {without}; p99 {without.p99_ms:.0f} ms")
    print(f"        beside {len(files)} kinds ({came}): {beside}; p99 {beside.p99_ms:.0f} ms")
    print(f"        slowest /healthz {seen.probe_ms:.1f} ms, memory at most {seen.memory_mb:.0f} MB")
    print(f"        {len(one_took)} decoders killed: {one}; replaced in at most {max(one_took):.1f} s")
    print(f"        all killed {len(every_took)} times: {every}; replaced in at most {max(every_took):.1f} s")
    all_fates = (without, beside, one, every)
    slowest_seconds = max(one_took + every_took)
    return broken_of(
        {
            "a good request was lost": any(fates.lost or fates.statuses for fates in all_fates),
            "good requests became slower": beside.p99_ms > 2 * without.p99_ms + NOISE_MS,
            f"a probe took over {MAX_PROBE_MS:.0f} ms": seen.probe_ms > MAX_PROBE_MS,
            f"decoders were not replaced within {MAX_RECOVERY_SECONDS:.0f} s": slowest_seconds > MAX_RECOVERY_SECONDS,
            "a bomb got an answer that it should not": not all(map(is_fair, statuses)),
        }
    )

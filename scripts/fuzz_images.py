#!/usr/bin/env python3
"""Fuzz the decoders: every hostile file must give a photo or a problem, soon and in little memory.

usage: python scripts/fuzz_images.py [--seconds 1800 | --inputs 1000000] [--seed 1] [--replay FILE ...]

fuzz_mutations.py damages good files of every kind by their structure; each is decoded in a decoder process, as a photo
of the service is. A finding is a file that ends its decoder: by a crash, or at its limit of processor time or memory.
It is tried again by itself, in new decoders, before it counts, and kept in a file. Findings are listed. The run fails
if a promise is broken: an exception other than a problem, an answer that does not come, or a decoder with too much
memory.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_mutations import mutate, scramble
from fuzz_seeds import seeds
from promises import broken_of, verdict
from service_watch import resident_bytes

from app.errors import Problem
from app.photos.decoders import Decoders, Wanted
from app.photos.decoding import Geometry

MEBI = 2**20
MAX_PIXELS = 4_000_000
MAX_SECONDS = 2.0
MAX_INPUT_BYTES = 64 * 1024
# 4 megapixels take 16 MB, and decoders hold several copies.
MEMORY_BYTES = 256 * MEBI
# On top of the limit for a photo: the interpreter, the libraries, and the block that is shared with the worker.
MAX_RESIDENT_BYTES = MEMORY_BYTES + 128 * MEBI
# A photo that exceeds its time is answered by then, even if several share a processor.
MAX_ANSWER_SECONDS = 15.0
PROGRESS_SECONDS = 60.0
WANTED = (
    Wanted(Geometry(), MAX_PIXELS, 640),
    Wanted(Geometry(interpolation="bicubic"), MAX_PIXELS),
)
# Sentences of problems whose decoder did not reject the file, but ended with it.
ENDS = {
    "crash": ("crashes its decoder", "confuses its decoder"),
    "time": ("takes more than", "came to a standstill"),
    "memory": ("more memory than its header promised", "for lack of memory"),
}


class Broken(Exception):
    """The service broke a promise."""


@dataclass
class Tally:
    """The outcomes of the inputs, and the files that ended their decoder, by name with the kind of the end."""

    outcomes: Counter[str] = field(default_factory=Counter)
    finds: dict[str, str] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    resident_bytes: int = 0

    def note(self, outcome: str, seconds: float) -> None:
        """Count one input."""
        self.outcomes[outcome] += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)


def open_decoders(count: int, extra_modules: tuple[str, ...] = ()) -> Decoders:
    """Make decoders with the limits of a fuzzing run."""
    return Decoders(
        count,
        max_bytes=MAX_INPUT_BYTES,
        memory_bytes=MEMORY_BYTES,
        max_seconds=MAX_SECONDS,
        extra_modules=extra_modules,
    )


def try_one(decoders: Decoders, data: bytes, wanted: Wanted = WANTED[0]) -> str:
    """Decode a file; return the format of the photo, the kind of problem, or how its decoder ended."""
    try:
        photo = decoders.decode(data, wanted)
    except Problem as problem:
        ends = (kind for kind, said in ENDS.items() if any(phrase in problem.detail for phrase in said))
        return next(ends, problem.slug)
    except Exception as error:  # any other exception is a broken promise
        raise Broken(f"{type(error).__name__}: {error}") from error
    if photo.crop.shape != (224, 224, 3) or str(photo.crop.dtype) != "uint8":
        raise Broken(f"a crop of {photo.crop.shape}, {photo.crop.dtype}")
    return photo.format


def input_of(number: int, seed: int, originals: list[bytes]) -> bytes:
    """Make one input, the same for the same numbers."""
    chance = random.Random(f"{seed} {number}")
    data = chance.choice(originals)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = mutate(data, chance, lambda piece: scramble(piece, chance))
    return data[:MAX_INPUT_BYTES]


def confirm(data: bytes, extra_modules: tuple[str, ...] = ()) -> str:
    """Try a file again in new decoders, without other load, and return its outcome."""
    with closing(open_decoders(1, extra_modules)) as decoders:
        return try_one(decoders, data)


class Fuzzer:
    """A run, with one thread per decoder."""

    def __init__(self, decoders: Decoders, finds: Path, seed: int) -> None:
        self._decoders = decoders
        self._finds = finds
        self._seed = seed
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._originals = [data for _, data in seeds()]
        self.tally = Tally()

    def run(self, seconds: float, inputs: int) -> None:
        """Fuzz for some seconds, or until some inputs were tried; raises Broken."""
        began = time.monotonic()
        self._end, self._inputs = began + seconds, inputs
        count = self._decoders.count
        with _watching(self._decoders, self.tally), ThreadPoolExecutor(count) as threads:
            running = {threads.submit(self._go_on) for _ in range(count)}
            while wait(running, PROGRESS_SECONDS).not_done:
                print(summary(self.tally, time.monotonic() - began), flush=True)
        for future in running:
            future.result()

    def _go_on(self) -> None:
        while time.monotonic() < self._end and (number := next(self._numbers)) < self._inputs:
            data = input_of(number, self._seed, self._originals)
            began = time.monotonic()
            try:
                outcome = try_one(self._decoders, data, WANTED[number % len(WANTED)])
            except Broken:
                self._keep("broken", data)
                self._end = 0.0
                raise
            with self._lock:
                self.tally.note(outcome, time.monotonic() - began)
            if outcome in ENDS and confirm(data) == outcome:
                self._keep(outcome, data)

    def _keep(self, kind: str, data: bytes) -> None:
        path = self._finds / f"{kind}-{hashlib.sha1(data).hexdigest()}"
        self._finds.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        with self._lock:
            self.tally.finds[path.name] = kind
        print(f"Find: {path}", flush=True)


@contextmanager
def _watching(decoders: Decoders, tally: Tally) -> Iterator[None]:
    """Note the maximum memory of any decoder for as long as the context lasts."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            tally.resident_bytes = max(tally.resident_bytes, *map(resident_bytes, decoders.pids), 0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def summary(tally: Tally, seconds: float) -> str:
    """Return the progress of a run."""
    tried = tally.outcomes.total()
    ended = ", ".join(f"{tally.outcomes[kind]} {kind}" for kind in ENDS)
    return f"{tried:,} inputs in {seconds:,.0f} s ({tried / seconds:,.0f} a second); decoders ended: {ended}"


def report(tally: Tally, seconds: float) -> int:
    """Print the findings of a run, and return 0 if every promise was kept."""
    print(summary(tally, seconds))
    print("outcomes: " + ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common()))
    print(
        f"slowest answer {tally.slowest_seconds:.1f} s; most memory of a decoder {tally.resident_bytes / MEBI:.0f} MiB"
    )
    print(f"{len(tally.finds)} finds" + "".join(f"\n  {kind:7} {name}" for name, kind in sorted(tally.finds.items())))
    promises = {
        f"an answer took over {MAX_ANSWER_SECONDS:.0f} s": tally.slowest_seconds > MAX_ANSWER_SECONDS,
        f"a decoder had over {MAX_RESIDENT_BYTES / MEBI:.0f} MiB": tally.resident_bytes > MAX_RESIDENT_BYTES,
    }
    return verdict(broken_of(promises))


def main() -> int:
    """Fuzz, or try single files again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, help="how long (1800, without --inputs)")
    parser.add_argument("--inputs", type=int, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="another number, other inputs (1)")
    parser.add_argument("--finds", type=Path, default=Path("fuzz-finds"), help="folder for files that end a decoder")
    parser.add_argument("--replay", type=Path, nargs="+", help="try these files instead")
    options = parser.parse_args()
    if options.replay:
        for path in options.replay:
            print(f"{path.name}: {confirm(path.read_bytes())}", flush=True)
        return 0
    logging.disable(logging.WARNING)  # each end of a decoder, which the summary counts
    seconds = options.seconds or (float("inf") if options.inputs else 1800.0)
    with closing(open_decoders(len(os.sched_getaffinity(0)) + 1)) as decoders:
        fuzzer, began = Fuzzer(decoders, options.finds, options.seed), time.monotonic()
        try:
            fuzzer.run(seconds, options.inputs or sys.maxsize)
        except Broken as error:
            print(f"broken: {error}")
            return 1
        return report(fuzzer.tally, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())

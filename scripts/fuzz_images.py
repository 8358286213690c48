#!/usr/bin/env python3
"""Fuzz app/images.py: hostile files give a photo or a problem, soon, in little memory, and nothing else.

libFuzzer, through atheris, keeps what reaches new lines of Pillow's and our Python code and changes it further;
fuzz_mutations.py knows how the files are built. It runs in a child process, so that a crash is recorded with its
input. A find is an exception that is no Problem, a crash, more than 2 seconds of processor time for one input, or
more memory than the budget. Each is tried again alone in a fresh process before it counts.
"""

from __future__ import annotations

import argparse
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

MAX_PIXELS = 4_000_000
MOST_SECONDS = 2.0
# Above what the process has after it decoded every seed: 4 megapixels take 16 MB, and decoders hold several copies.
MEMORY_BUDGET_BYTES = 256 * 1024 * 1024
LARGEST_INPUT_BYTES = 64 * 1024
# Two seconds of processor time are noticed when an input returns; one that never does is stopped after these.
NEVER_RETURNS_SECONDS = 30


class Find(Exception):
    """An input took longer or more memory than it may."""


def peak_bytes() -> int:
    """Tell the most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def try_one(data: bytes, base_bytes: int | None = None) -> str:
    """Do with an input all that the service does with a photo; return the kind of photo or problem that it is."""
    from app.errors import Problem
    from app.images import Geometry, decode

    started = time.process_time()
    try:
        photo = decode(data, max_pixels=MAX_PIXELS)
        for geometry in (Geometry(), Geometry(interpolation="bicubic")):
            crop = photo.crop(geometry)
            if crop.shape != (224, 224, 3) or str(crop.dtype) != "uint8":
                raise Find(f"a crop of {crop.shape}, {crop.dtype}")
        if not photo.thumbnail(640).startswith(b"\xff\xd8"):
            raise Find("a thumbnail that is no JPEG")
        outcome = photo.format
    except Problem as problem:
        outcome = problem.slug
    seconds = time.process_time() - started
    if seconds > MOST_SECONDS:
        raise Find(f"{seconds:.1f} s of processor time")
    if base_bytes is not None and peak_bytes() - base_bytes > MEMORY_BUDGET_BYTES:
        raise Find(f"{(peak_bytes() - base_bytes) / 2**20:.0f} MiB above the start")
    return outcome


def fuzz(options: list[str], outcomes_file: Path) -> None:
    """Let libFuzzer call `try_one` until its time is up; runs in the child process."""
    import atexit
    import warnings

    import atheris

    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=["app.images", "PIL"]):
        import app.images  # noqa: F401
    from fuzz_mutations import mutate
    from fuzz_seeds import seeds

    for _, data in seeds():
        try_one(data)
    base = peak_bytes()
    outcomes: Counter[str] = Counter()

    def target(data: bytes) -> None:
        outcomes[try_one(data, base)] += 1
        if sum(outcomes.values()) % 1000 == 0:
            write()

    def write() -> None:
        outcomes_file.write_text("\n".join(f"{count} {name}" for name, count in outcomes.most_common()))

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        changed = mutate(data, random.Random(seed), lambda piece: atheris.Mutate(piece, max(len(piece) + 8, 16)))
        return changed[:max_size]

    atexit.register(write)
    atheris.Setup([sys.argv[0], *options], target, custom_mutator=change)
    atheris.Fuzz()


def replay(paths: list[Path]) -> None:
    """Try files, each as the only one of this process if there is one; prints what each is."""
    from fuzz_seeds import seeds

    for _, data in seeds():
        try_one(data)
    base = peak_bytes()
    for path in paths:
        print(f"{path.name}: {try_one(path.read_bytes(), base)}", flush=True)


def confirm(path: Path) -> str | None:
    """Try a find again in a process of its own, and return what happens; None where nothing does."""
    command = [sys.executable, __file__, "--replay", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10 * NEVER_RETURNS_SECONDS)
    except subprocess.TimeoutExpired:
        return "it never returns"
    if done.returncode == 0:
        return None
    return f"signal {-done.returncode}" if done.returncode < 0 else done.stderr.strip().splitlines()[-1]


def run(seconds: float, finds: Path, seed: int) -> int:
    """Fuzz for so many seconds, print what was tried and found, and return how many finds there are."""
    from fuzz_seeds import seeds

    tried, outcomes, confirmed, restarts = 0, Counter[str](), {}, -1
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        corpus, artifacts, counts = Path(scratch, "corpus"), Path(scratch, "artifacts"), Path(scratch, "outcomes")
        corpus.mkdir()
        artifacts.mkdir()
        for name, data in seeds():
            (corpus / name).write_bytes(data)
        begun_with = len(list(corpus.iterdir()))
        while (left := seconds - (time.monotonic() - started)) > 1:
            restarts += 1
            counts.unlink(missing_ok=True)
            errors = _run_child(corpus, artifacts, counts, left, seed + restarts)
            tried += int(
                (
                    re.findall(r"number_of_executed_units: (\d+)", errors)
                    or re.findall(r"^#(\d+)", errors, re.M)
                    or ["0"]
                )[-1]
            )
            for line in counts.read_text().splitlines() if counts.exists() else ():
                outcomes[line.split(" ", 1)[1]] += int(line.split(" ")[0])
            for path in artifacts.iterdir():
                reason = confirm(path)
                if reason:
                    finds.mkdir(parents=True, exist_ok=True)
                    confirmed[path.name] = reason
                    (finds / path.name).write_bytes(path.read_bytes())
                    print(f"Find: {finds / path.name}: {reason}", flush=True)
                path.unlink()
        grown = len(list(corpus.iterdir())) - begun_with
    took = time.monotonic() - started
    print(
        f"{tried:,} inputs in {took:,.0f} s ({tried / took:,.0f} a second), {begun_with} seeds, {grown} kept since "
        f"they reached new lines, {restarts} restarts of the child"
    )
    print("What became of them: " + ", ".join(f"{name} {count:,}" for name, count in outcomes.most_common()))
    print(
        f"{len(confirmed)} finds (no crash, no exception but a Problem, at most {MOST_SECONDS:g} s of processor "
        f"time and {MEMORY_BUDGET_BYTES // 2**20} MiB above the start are allowed)"
    )
    return len(confirmed)


def _run_child(corpus: Path, artifacts: Path, counts: Path, seconds: float, seed: int) -> str:
    options = [
        str(corpus),
        f"-max_total_time={max(1, int(seconds))}",
        f"-max_len={LARGEST_INPUT_BYTES}",
        f"-timeout={NEVER_RETURNS_SECONDS}",
        f"-artifact_prefix={artifacts}/",
        f"-seed={seed}",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        "-len_control=0",
    ]
    command = [sys.executable, __file__, "--child", str(counts), *options]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode and not list(artifacts.iterdir()):
        raise SystemExit(f"The fuzzer itself failed:\n{done.stderr[-3000:]}")
    return done.stderr


def main() -> None:
    """Fuzz, or try single files again."""
    if sys.argv[1:2] == ["--child"]:
        fuzz(sys.argv[3:], Path(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1800, help="how long (1800)")
    parser.add_argument("--seed", type=int, default=1, help="another number, other inputs (1)")
    parser.add_argument(
        "--finds", type=Path, default=Path("fuzz-finds"), help="folder for inputs that break something"
    )
    parser.add_argument("--replay", type=Path, nargs="+", help="try these files instead")
    arguments = parser.parse_args()
    if arguments.replay:
        replay(arguments.replay)
    elif run(arguments.seconds, arguments.finds, arguments.seed):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

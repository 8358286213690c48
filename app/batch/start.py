"""How a job begins: the run of its output folder is compared or fixed, and its slice is determined."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import BatchError
from .entries import Entry
from .runs import MAX_DEFAULT_SHARDS, PHOTOS_PER_SHARD, Run, check_run, default_shards, read_run, write_run

MAX_SHARDS = 99_999
_SLICE = re.compile(r"(?:([1-9][0-9]{0,4})|auto)(?:/([1-9][0-9]{0,4}))?")


def open_run(
    folder: Path, format_: str, fingerprint: dict[str, str], entries: Iterator[Entry], *, jobs: int, shards: int | None
) -> tuple[Run, Iterator[Entry]]:
    """Return the run of an output folder and the entries; the first job fixes the run, after the first entries.

    Raises BatchError if the folder holds another run, or one with another number of shards than asked for.
    """
    found = read_run(folder)
    if found is None:
        head: list[Entry] = []
        if shards is None:
            head = list(itertools.islice(entries, MAX_DEFAULT_SHARDS * PHOTOS_PER_SHARD))
            entries = itertools.chain(head, entries)
        wanted = shards or default_shards(len(head), jobs)
        found = write_run(folder, Run(wanted, format_, fingerprint))
    check_run(folder, found, format_, fingerprint)
    if shards is not None and shards != found.shards:
        raise BatchError(f"{folder} was begun with {found.shards} shards, which cannot change.")
    return found, entries


def check_early(folder: Path, format_: str, fingerprint: dict[str, str]) -> None:
    """Raise BatchError if the folder holds another run, before anything is listed."""
    found = read_run(folder)
    if found is not None:
        check_run(folder, found, format_, fingerprint)


def parse_slice(text: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the slice of a job, from 0, and the number of jobs, of a text such as 3/16 or auto.

    `auto` takes both from Slurm's variables of an array of jobs, `auto/16` the first from them or from those of an
    indexed job of Kubernetes. Raises BatchError for anything else.
    """
    found = _SLICE.fullmatch(text)
    if not found or (found[1] and not found[2]):
        raise BatchError(f"--shard is {text!r}; it must be such as 3/16, the third of 16 jobs, or auto, or auto/16.")
    number, jobs = (int(found[1]) - 1, 0) if found[1] else _from_environment(environment)
    jobs = int(found[2]) if found[2] else jobs
    if not 0 <= number < jobs:
        raise BatchError(f"--shard {text} is job {number + 1} of {jobs}: the number of jobs is missing or too small.")
    return number, jobs


def _from_environment(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of this job, from 0, and how many there are, 0 if that is not known."""
    try:
        if "SLURM_ARRAY_TASK_ID" in environment:
            first, step, count = (
                int(environment.get(f"SLURM_ARRAY_TASK_{name}", default))
                for name, default in (("MIN", "0"), ("STEP", "1"), ("COUNT", "0"))
            )
            return (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step, count
        return int(environment["JOB_COMPLETION_INDEX"]), 0
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise BatchError(
            "--shard auto reads SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX, and there is none with a number."
        ) from error

"""How a job begins: the run of its output folder is compared or fixed, and its slice is determined."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..classifier import Classifier
from ..errors import BatchError
from ..model import Model
from .answering import Answering, Answers, Options
from .entries import Entry
from .job import Job
from .listing import check_sources, list_entries
from .parts import Parts
from .pictures import prepare_heatmaps
from .runs import (
    MAX_DEFAULT_SHARDS,
    PHOTOS_PER_SHARD,
    Run,
    check_run,
    default_shards,
    fingerprint_of,
    prepare_folder,
    read_run,
    write_run,
)
from .store import Store
from .tables import check_format

_SLICE = re.compile(r"(?:([1-9][0-9]{0,4})|auto)(?:/([1-9][0-9]{0,4}))?")


def check(sources: Sequence[str], output: Path, format_: str, *, embeddings: bool) -> None:
    """Raise BatchError if sources, format or output folder cannot be used; creates the folder."""
    check_format(format_, embeddings=embeddings)
    check_sources(sources)
    prepare_folder(output)


def begin(
    classifier: Classifier,
    models: Sequence[Model],
    sources: Sequence[str],
    output: Path,
    options: Options,
    *,
    format_: str,
    shards: int | None,
    answers: Answers | None = None,
) -> tuple[Job, Iterator[Entry]]:
    """Return a job on an output folder that `check` has passed, and the photos to run it on.

    The photos become rows in `answers`, by default in this process. The first job fixes the folder's run; raises
    BatchError if it holds another one.
    """
    folders = [output]
    if options.heatmaps is not None:
        if models[0].head is None:
            raise BatchError(f"The model {models[0].name} has no heat maps; leave out --heatmaps.")
        prepare_heatmaps(options.heatmaps)
        folders.append(options.heatmaps)
    store = Store()
    entries = list_entries(sources, store, folders)
    fingerprint = fingerprint_of(models, options.columns)
    found = read_run(output)
    if found is None:
        chosen, entries = _choose_shards(shards, entries, options.jobs)
        found = write_run(output, Run(chosen, format_, fingerprint))  # or that of a job which starts at the same time
    check_run(output, found, format_, fingerprint)
    if shards not in (None, found.shards):
        raise BatchError(f"{output} was begun with --shards {found.shards}, which cannot change.")
    answers = answers or Answering(classifier, models, options, store)
    return Job(answers, Parts(output, found), options), entries


def _choose_shards(asked: int | None, entries: Iterator[Entry], jobs: int) -> tuple[int, Iterator[Entry]]:
    """Return the number of shards, which the first entries decide if it is not given, and the entries."""
    if asked is not None:
        return asked, entries
    head = list(itertools.islice(entries, MAX_DEFAULT_SHARDS * PHOTOS_PER_SHARD))
    return default_shards(len(head), jobs), itertools.chain(head, entries)


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

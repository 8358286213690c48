"""The progress of a job over many photos: a bar on a terminal, else a line every half minute."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import Progress, TextColumn, TimeRemainingColumn

from ..errors import BatchStopped
from ..measuring.bars import LOG_SECONDS, progress_bar, write_line
from ..queueing.scheduling import Counts
from . import plural


@contextmanager
def showing(doing: str) -> Iterator[Callable[[Counts], None]]:
    """Yield a function that shows how far a job is whenever it is called; `doing` is such as `Classifying`."""
    if not sys.stderr.isatty():
        yield _Lines(doing)
        return
    with progress_bar(TextColumn("{task.fields[pace]}"), TimeRemainingColumn(), is_kept=True) as bar:
        yield _Bar(bar, doing)


@contextmanager
def stopped_in_order() -> Iterator[None]:
    """Let Ctrl-C, and SIGTERM by which a scheduler stops a job, raise BatchStopped wherever the job is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise BatchStopped("The job was stopped; the same command does the rest.") from None


@contextmanager
def showing_resumable(doing: str, counts: Counts) -> Iterator[Callable[[Counts], None]]:
    """Show the progress as `showing` does; if the job is stopped, raise BatchStopped with what is done by `counts`."""
    try:
        with showing(doing) as note:
            yield note
    except KeyboardInterrupt:
        raise BatchStopped(f"The job was stopped. {_rest(counts)}") from None
    except BatchStopped as error:
        raise BatchStopped(f"{error} {_rest(counts)}") from error


def _rest(counts: Counts) -> str:
    return f"{counts.done:,} of {plural(counts.photos, 'photo')} are done; the same command does the rest."


class _Bar:
    """Show the progress in a bar, a few times a second."""

    def __init__(self, bar: Progress, doing: str) -> None:
        self._bar = bar
        self._doing = doing
        self._task = bar.add_task("Listing", total=None, pace="")
        self._begin = time.monotonic()

    def __call__(self, counts: Counts) -> None:
        failed = f", {counts.failed:,} failed" if counts.failed else ""
        self._bar.update(
            self._task,
            description=f"{self._doing}{failed}",
            total=counts.photos,
            completed=counts.done,
            pace=f"{_pace(counts, self._begin):.0f} photos/s",
        )


class _Lines:
    """Print the progress on standard error, when it begins and then every half minute."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._begin = time.monotonic()
        self._printed = 0.0

    def __call__(self, counts: Counts) -> None:
        now = time.monotonic()
        if now - self._printed < LOG_SECONDS:
            return
        self._printed = now
        failed = f", {counts.failed:,} failed" if counts.failed else ""
        write_line(f"{self._doing}{failed}", counts.done, counts.photos, _pace(counts, self._begin))


def _pace(counts: Counts, begin: float) -> float:
    return counts.computed / max(0.001, time.monotonic() - begin)

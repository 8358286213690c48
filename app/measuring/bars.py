"""The progress of commands that process many photos, on standard error: bars on a terminal, else lines of a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TextColumn

LOG_SECONDS = 30.0


class Bars:
    """Shows how far steps are, the newest in a bar."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Show how much of a step is done; its total is None if it is not known."""
        if step not in self._tasks:
            for task in self._bar.task_ids:
                self._bar.update(task, visible=False)
            self._tasks[step] = self._bar.add_task(step, total=total)
        self._bar.update(self._tasks[step], completed=done, total=total)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


class Lines:
    """Writes how far steps are, a line every half minute, so that short steps have none."""

    def __init__(self) -> None:
        self._step = ""
        self._done_before = 0
        self._began = self._written = 0.0

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Write how much of a step is done, the pace so far, and the time that is left."""
        now = time.monotonic()
        if step != self._step:
            self._step, self._done_before, self._began, self._written = step, done, now, now
        if now - self._written < LOG_SECONDS:
            return
        self._written = now
        pace = (done - self._done_before) / (now - self._began)
        write_line(step, done, total, pace)

    def say(self, line: str) -> None:
        """Write a line."""
        click.echo(line, err=True)


def write_line(step: str, done: int, total: int | None, pace: float) -> None:
    """Write how much of a step is done to standard error, with the time of day; `pace` is that of a second."""
    parts = [f"{done:,}" if total is None else f"{done:,} of {total:,}"]
    if pace:
        parts.append(f"{pace:.1f}/s")
    if pace and total is not None:
        parts.append(f"{duration((total - done) / pace)} left")
    click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {step}: {', '.join(parts)}", err=True)


def duration(seconds: float) -> str:
    """Write a duration in minutes and hours."""
    minutes = round(seconds / 60)
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else "under a minute"
    )


@contextmanager
def showing_steps(*columns: ProgressColumn, is_wanted: bool = True) -> Iterator[Bars | Lines]:
    """Yield what shows how far steps are, in a bar with further columns on a terminal, else in lines."""
    if is_wanted and not sys.stderr.isatty():
        yield Lines()
        return
    with progress_bar(*columns, is_wanted=is_wanted) as bar:
        yield Bars(bar)


def progress_bar(*columns: ProgressColumn, is_wanted: bool = True, is_kept: bool = False) -> Progress:
    """Return a bar with a description, the number that is done, and further columns.

    It is shown only on a terminal, and disappears at its end unless `is_kept`.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        console=Console(stderr=True),
        disable=not (is_wanted and sys.stderr.isatty()),
        transient=not is_kept,
        # Rich would send to the terminal what is printed while the bar is shown, even if standard output is a file.
        redirect_stdout=False,
        redirect_stderr=False,
    )

"""How far a batch is, from its output folder alone: whichever machines work on it, and whether they still do."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BatchError
from ..writing import replacing
from .parts import Parts
from .rows import DETAIL, ERROR
from .runs import read_run
from .tables import read_table

# How many photos the last listing had.
LISTED = ".listed"
# The pace is that of the parts written in this time before the newest.
WINDOW_SECONDS = 600.0


@dataclass
class Status:
    """The rows of a folder, the photos of its last listing, and the photos per second of the newest parts.

    `failed` counts the rows of problems by slug, `examples` has one sentence for each. A value that is not known yet
    is None.
    """

    rows: int = 0
    listed: int | None = None
    photos_per_second: float | None = None
    failed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """Return how long the photos that have no row yet take at this pace."""
        if self.listed is None or not self.photos_per_second:
            return None
        return max(0, self.listed - self.rows) / self.photos_per_second


def note_listed(folder: Path, photos: int) -> None:
    """Note how many photos a listing had; raises OSError."""
    with replacing(folder / LISTED, 0o644) as out:
        out.write(b"%d\n" % photos)


def read_status(folder: Path) -> Status:
    """Count the rows of an output folder; raises BatchError if it is none, or a part cannot be read."""
    run = read_run(folder)
    if run is None:
        raise BatchError(f"{folder} is not the output folder of a batch.")
    status = Status()
    written: list[tuple[float, int]] = []
    for path in Parts(folder, run).all():
        rows = 0
        for row in read_table(path, run.format, (ERROR, DETAIL)):
            rows += 1
            if row[ERROR]:
                status.failed[row[ERROR]] += 1
                status.examples.setdefault(row[ERROR], row[DETAIL] or "")
        status.rows += rows
        written.append((os.path.getmtime(path), rows))
    status.photos_per_second = pace_of(written)
    with suppress(OSError, ValueError):  # the first listing is still being made
        status.listed = int((folder / LISTED).read_text(encoding="ascii"))
    return status


def pace_of(written: list[tuple[float, int]]) -> float | None:
    """Return the photos per second of parts, given as times and rows: those of the last minutes, after their first."""
    newest = max(written, default=(0.0, 0))[0]
    recent = sorted(each for each in written if each[0] >= newest - WINDOW_SECONDS)
    if len(recent) < 2 or recent[0][0] == newest:
        return None
    return sum(rows for _, rows in recent[1:]) / (newest - recent[0][0])

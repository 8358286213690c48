"""Photos from files and folders, decoded in order, for the jobs that look at many."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ..classifier import MAX_BATCH, Answer, Classifier, Outputs
from ..errors import NoPhoto, Problem
from ..photos.folders import STANDARD_INPUT, FileProblem

Row = tuple[str, Answer | Problem | FileProblem]


def classify_files(
    classifier: Classifier, files: Sequence[str], *, top: int, max_pixels: int, show_progress: bool = True
) -> Iterator[Row]:
    """Classify files in batches and yield for each its predictions or its problem, in order.

    Where standard error is a terminal, a progress bar is shown there, unless `show_progress` is false.
    """
    # Rich would send what is printed meanwhile to the bar's terminal, even where standard output is a file.
    with Progress(
        console=Console(stderr=True),
        disable=not (show_progress and sys.stderr.isatty()),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bar:
        task = bar.add_task("Classifying", total=len(files))
        for start in range(0, len(files), MAX_BATCH):
            names = files[start : start + MAX_BATCH]
            photos = [_read(name) for name in names]
            outcomes = classifier.classify_many(photos, Outputs(top=top), max_pixels=max_pixels)
            yield from zip(names, outcomes, strict=True)
            bar.advance(task, len(names))


def printable(name: str) -> str:
    """Write a file name on one line: control characters and undecodable bytes as escapes, all else as it is."""
    hidden = ("Cc", "Cs", "Zl", "Zp")
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in hidden else char for char in name)


def _read(name: str) -> bytes | Problem | FileProblem:
    try:
        data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    except OSError as error:
        return FileProblem(f"The file cannot be read: {error.strerror}.")
    return data or NoPhoto("The file is empty.")

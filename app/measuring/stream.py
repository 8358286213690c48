"""Photos from files and folders, classified side by side and returned in order, for commands that process many."""

from __future__ import annotations

import itertools
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..classifier import Answer, Classifier
from ..errors import NoPhoto, Problem
from ..model.verdicts import Outputs
from ..photos.folders import FileProblem, read_file
from ..queueing.scheduling import in_order, side_by_side

Row = tuple[str, Answer | Problem | FileProblem]
_File = tuple[str, bytes | Problem | FileProblem]


def classify_files(
    classifier: Classifier,
    files: Iterable[str],
    *,
    top: int,
    max_pixels: int,
    raw: bool = False,
    show_progress: bool = True,
) -> Iterator[Row]:
    """Classify files side by side and yield each with its predictions or its problem, in order.

    `raw` asks for the logits and the embedding too. A few files are read ahead. The model is loaded for the first file
    that can be read; raises ModelUnavailable if that fails. If standard error is a terminal, a progress bar is shown
    there, unless `show_progress` is false.
    """
    outputs = Outputs(top=top, logits=raw, embedding=raw)

    def classify(file: _File) -> Row:
        name, photo = file
        if isinstance(photo, bytes):
            return name, classifier.classify_or_explain(photo, outputs, max_pixels=max_pixels)
        return name, photo

    # Standard input is read here, too: a thread that waits for it could not be interrupted.
    photos: Iterator[_File] = ((name, _read(name)) for name in files)
    with _progress_bar(show_progress) as bar:
        task = bar.add_task("Classifying", total=len(files) if isinstance(files, Sequence) else None)
        for name, photo in photos:
            if isinstance(photo, bytes):
                photos = itertools.chain([(name, photo)], photos)
                break
            yield name, photo
            bar.advance(task)
        else:
            return
        for row in in_order(side_by_side(classify, photos, classifier.max_parallel)):
            yield row
            bar.advance(task)


def printable(name: str) -> str:
    """Write a file name on one line, with escapes for control characters and for bytes that are not UTF-8."""
    hidden = ("Cc", "Cs", "Zl", "Zp")
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in hidden else char for char in name)


def _read(name: str) -> bytes | Problem | FileProblem:
    try:
        return read_file(name) or NoPhoto("The file is empty.")
    except FileProblem as problem:
        return problem


def _progress_bar(is_wanted: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not (is_wanted and sys.stderr.isatty()),
        transient=True,
        # Rich would send to the terminal what is printed while the bar is shown, even if standard output is a file.
        redirect_stdout=False,
        redirect_stderr=False,
    )

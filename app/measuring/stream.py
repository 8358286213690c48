"""Photos from files and folders, classified side by side and returned in order, for commands that process many."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from rich.progress import TimeElapsedColumn

from ..classifier import Answer, Classifier
from ..errors import NoPhoto, Problem
from ..model.verdicts import Outputs
from ..photos.folders import FileProblem, read_file
from ..queueing.scheduling import in_order, side_by_side
from .bars import showing_steps

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
    that can be read; raises ModelUnavailable if that fails. Unless `show_progress` is false, standard error shows the
    progress, in a bar if it is a terminal.
    """
    outputs = Outputs(top=top, logits=raw, embedding=raw)

    def classify(file: _File) -> Row:
        name, photo = file
        if isinstance(photo, bytes):
            return name, classifier.classify_or_explain(photo, outputs, max_pixels=max_pixels)
        return name, photo

    # Standard input is read here, too: a thread that waits for it could not be interrupted.
    photos: Iterator[_File] = ((name, _read(name)) for name in files)
    total = len(files) if isinstance(files, Sequence) else None
    with showing_steps(TimeElapsedColumn(), is_wanted=show_progress) as step:
        done = 0
        step("Classifying", done, total)
        for name, photo in photos:
            if isinstance(photo, bytes):
                photos = itertools.chain([(name, photo)], photos)
                break
            yield name, photo
            done += 1
            step("Classifying", done, total)
        else:
            return
        for row in in_order(side_by_side(classify, photos, classifier.max_parallel)):
            yield row
            done += 1
            step("Classifying", done, total)


def printable(name: str) -> str:
    """Write a file name on one line, with escapes for control characters and for bytes that are not UTF-8."""
    hidden = ("Cc", "Cs", "Zl", "Zp")
    return "".join(repr(char)[1:-1] if unicodedata.category(char) in hidden else char for char in name)


def _read(name: str) -> bytes | Problem | FileProblem:
    try:
        return read_file(name) or NoPhoto("The file is empty.")
    except FileProblem as problem:
        return problem

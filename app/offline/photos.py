"""Photos from files and folders, decoded in order, for the jobs that look at many."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import track

from ..classifier import LARGEST_BATCH, Classifier, Prediction
from ..errors import NoPhoto, Problem, TopthreeError
from ..images import Photo, decode

SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"]
)
STANDARD_INPUT = "-"


class FileProblem(TopthreeError):
    """A file or folder cannot be read."""


def list_photos(sources: Sequence[str]) -> list[str]:
    """List the named files, and for each folder the files below it with a photo's ending, sorted."""
    found: list[str] = []
    for source in sources:
        if source != STANDARD_INPUT and Path(source).is_dir():
            below = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in SUFFIXES)
            found.extend(str(path) for path in below if path.is_file())
        else:
            found.append(source)
    if not found:
        raise FileProblem(f"There is no photo in {', '.join(sources)}.")
    return found


def classify_files(
    classifier: Classifier, files: Sequence[str], *, top: int, max_pixels: int
) -> Iterator[tuple[str, Photo | None, list[Prediction] | Problem | FileProblem]]:
    """Classify files in batches and yield for each its predictions or its problem, in order."""
    bar = track(files, "Classifying", console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    remaining = iter(bar)
    while names := list(islice(remaining, LARGEST_BATCH)):
        items = [_open(name, max_pixels) for name in names]
        photos = [item for item in items if isinstance(item, Photo)]
        predictions = iter(classifier.predict(photos, top=top))
        for name, item in zip(names, items, strict=True):
            if isinstance(item, Photo):
                yield name, item, next(predictions)
            else:
                yield name, None, item


def _open(name: str, max_pixels: int) -> Photo | Problem | FileProblem:
    try:
        data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
        if not data:
            return NoPhoto("The file is empty.")
        return decode(data, max_pixels=max_pixels)
    except Problem as problem:
        return problem
    except OSError as error:
        return FileProblem(f"The file cannot be read: {error.strerror}.")

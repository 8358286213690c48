"""Photos in folders: which files are photos, and the class that a folder or a file is named after."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import TopthreeError
from .formats import SUFFIXES

STANDARD_INPUT = "-"
# No photo is larger; memory is taken only for what a photo has.
MAX_FILE_BYTES = 2**30


class FileProblem(TopthreeError):
    """A file or folder cannot be read."""


def list_photos(sources: Sequence[str]) -> list[str]:
    """List the named files, and for each folder the files below it with a photo's ending, sorted."""
    found: list[str] = []
    for source in sources:
        if source != STANDARD_INPUT and os.path.isdir(source):
            below = sorted(path for path in Path(source).rglob("*") if path.suffix.lower() in SUFFIXES)
            found.extend(str(path) for path in below if os.path.isfile(path))
        else:
            found.append(source)
    if not found:
        raise FileProblem(f"There is no photo in {', '.join(sources)}.")
    return found


def true_class(file: Path, folder: Path, classes: dict[str, int]) -> int | None:
    """Take the class from the nearest folder that is named after one, else from the file name's beginning."""
    for parent in file.relative_to(folder).parents:
        if parent.name.casefold() in classes:
            return classes[parent.name.casefold()]
    name = file.stem.casefold()
    wnid = re.match(r"n[0-9]{8}(?![0-9])", name)
    return classes.get(wnid[0] if wnid else name.split("_")[0])

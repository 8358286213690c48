"""Photos in folders: which files are photos, and the class that a folder or a file is named after."""

from __future__ import annotations

import os
import re
import stat
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import TooLarge, TopthreeError
from .clutter import is_clutter, is_clutter_folder
from .formats import SUFFIXES

STANDARD_INPUT = "-"
# No photo is larger; a smaller one takes only the memory for its own bytes.
MAX_FILE_BYTES = 2**30
_PIECE_BYTES = 2**20
# Folders inside each other; Python's stack ends at some depth.
MAX_DEPTH = 200
_WNID = re.compile(r"n[0-9]{8}(?![0-9])")
# Blanks, underscores, and the hyphens and dashes of Unicode.
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")
_APOSTROPHES = re.compile("['\u2019]")


class FileProblem(TopthreeError):
    """A file or folder cannot be read; `slug` names the reason, as the slug of a `Problem` does."""

    def __init__(self, detail: str, slug: str = "unreadable-file") -> None:
        super().__init__(detail)
        self.slug = slug


def find_photos(sources: Iterable[str]) -> Iterator[str]:
    """Yield the named files, and for each folder the files below it with the suffix of a photo, sorted in each folder.

    A folder is listed when it is reached. What cannot be read is yielded in its place, so that `read_file` gives the
    reason: a folder, also one inside too many others, a broken link, a file without permission. Raises FileProblem at
    the end if nothing was found.
    """
    nothing_found = True
    for source in sources:
        is_folder = source != STANDARD_INPUT and os.path.isdir(source)
        for name in _photos_below(source) if is_folder else [source]:
            nothing_found = False
            yield name
    if nothing_found:
        raise FileProblem(f"There is no photo in {', '.join(sources)}.")


def list_photos(sources: Iterable[str]) -> list[str]:
    """List what `find_photos` yields; raises FileProblem if nothing is found."""
    return list(find_photos(sources))


def read_file(name: str) -> bytes:
    """Read a file, or standard input if its name is a dash; raises FileProblem with the reason."""
    if name == STANDARD_INPUT and sys.stdin is None:
        raise FileProblem("Standard input is closed.")
    try:
        if name == STANDARD_INPUT:
            return _read(sys.stdin.buffer)
        with open(name, "rb") as file:
            return _read(file)
    except OSError as error:
        kind = "folder" if os.path.isdir(name) else "file"
        if isinstance(error, FileNotFoundError) and os.path.islink(name):
            raise FileProblem(f"The link leads to {os.readlink(name)}, which does not exist.") from error
        raise FileProblem(f"The {kind} cannot be read: {error.strerror}.") from error


def _read(file: BinaryIO) -> bytes:
    """Read a file in pieces, since a device may have no end; raises FileProblem for more bytes than any photo has."""
    data = bytearray()
    while piece := file.read(_PIECE_BYTES):
        data += piece
        if len(data) > MAX_FILE_BYTES:
            raise FileProblem(f"The file has more than {MAX_FILE_BYTES:,} bytes.", TooLarge.slug)
    return bytes(data)


def is_unreadable(name: str) -> bool:
    """Return whether `find_photos` has yielded this only to be reported."""
    return os.path.isdir(name) or not os.access(name, os.R_OK)


def true_class(file: Path, folder: Path, classes: Mapping[str, int]) -> int | None:
    """Return the class of the nearest folder that is named after one, else that of the file's WordNet id.

    `classes` has the WordNet ids and names of all classes, each as `name_key` writes it. A folder is named by either,
    or begins with the id; a file counts by the id that it begins with alone, since many words of a name are classes
    themselves: `tiger_shark_01.jpg` is no tiger.
    """
    for parent in file.relative_to(folder).parents:
        for key in (name_key(parent.name), _wnid(parent.name)):
            if key in classes:
                return classes[key]
    return classes.get(_wnid(file.name))


def name_key(name: str) -> str:
    """Return a name as names are compared: in one case, without apostrophes, a space for each underscore or hyphen."""
    return _SEPARATORS.sub(" ", _APOSTROPHES.sub("", unicodedata.normalize("NFC", name).casefold())).strip()


def _wnid(name: str) -> str:
    """Return the WordNet id that a name begins with, or an empty text."""
    found = _WNID.match(name.casefold())
    return found[0] if found else ""


def _photos_below(folder: str, depth: int = 0) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield folder
        return
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in ordered:
        if entry.is_dir(follow_symlinks=False):  # a link may lead back
            if not is_clutter_folder(entry.name):
                yield from _photos_below(entry.path, depth + 1)
        elif has_photo_name(entry.name) and may_be_file(entry.path):
            yield str(Path(entry.path))


def has_photo_name(name: str) -> bool:
    """Return whether a file's name ends like a photo's, and is not one that file managers and the like add."""
    return Path(name).suffix.lower() in SUFFIXES and not is_clutter([name])


def may_be_file(path: str) -> bool:
    """Return whether this is a file, or may be one; reading a pipe or a device could wait without end."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True

"""Photos below a folder, one by one: no list of a folder's names is held, however many there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from ..photos.clutter import is_clutter_folder
from ..photos.folders import MAX_DEPTH, has_photo_name, may_be_file
from .entries import PROBLEM, Entry, entry_of, problem_entry

# The device of a file and its number there, which no other file has.
Inode = tuple[int, int]

UNREADABLE_FOLDER = "unreadable-folder"
ARCHIVES = (".tar", ".zip")
# Folders that link to each other have more paths than anybody can list.
MAX_LINKS = 4
_MAGIC = "*?["
_ANY_DEPTH = "**"


@dataclass(frozen=True)
class Walk:
    """A rule for listing the photos below a folder.

    Folders in `skipped` are left out, and those for whose path `enters` is false. Archives are yielded only
    `with_archives`.
    """

    skipped: frozenset[Inode] = frozenset()
    with_archives: bool = False
    enters: Callable[[str], bool] = bool

    def below(self, folder: str, above: tuple[Inode, ...] = (), links: int = 0) -> Iterator[Entry]:
        """Yield the photos below a folder, in the order in which the system lists them.

        Links to folders are followed, unless they lead to one of the folders `above`, which the link itself is in.
        `links` counts those that lead here. A folder that cannot be read, or is behind too many links or folders, is
        an entry with the reason.
        """
        try:
            here = inode_of(folder)
            if here in above or here in self.skipped:
                return
            if links > MAX_LINKS or len(above) >= MAX_DEPTH:
                limit = f"{MAX_LINKS} links to folders" if links > MAX_LINKS else f"{MAX_DEPTH} folders"
                yield problem_entry(folder, UNREADABLE_FOLDER, f"The folder is inside more than {limit}.")
                return
            with os.scandir(folder) as found:
                for entry in found:
                    if _is_folder(entry):
                        if not is_clutter_folder(entry.name) and self.enters(entry.path):
                            yield from self.below(entry.path, (*above, here), links + entry.is_symlink())
                    elif self._is_wanted(entry.name) and may_be_file(entry.path):
                        yield entry_of(entry.path)
        except OSError as error:
            yield problem_entry(folder, UNREADABLE_FOLDER, f"The folder cannot be read: {error.strerror}.")

    def _is_wanted(self, name: str) -> bool:
        return has_photo_name(name) or (self.with_archives and name.lower().endswith(ARCHIVES))


def inode_of(path: str | os.PathLike[str]) -> Inode:
    """Return the device of a file or folder and its number there; raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def is_pattern(source: str) -> bool:
    """Return whether a source is a pattern of paths and not the path of something that exists."""
    return any(sign in source for sign in _MAGIC) and not os.path.lexists(source)


def match(pattern: str, skipped: frozenset[Inode]) -> Iterator[Entry]:
    """Yield the photos and archives whose paths match a pattern, and the photos below folders that match it.

    `*`, `?` and `[…]` stand for characters of one name, `**` for any number of folders.
    """
    fixed, wanted = split_pattern(pattern)
    start = fixed or "./"

    def leads_on(path: str) -> bool:
        return leads(path.removeprefix(start).split("/"), wanted)

    for entry in Walk(skipped, with_archives=True, enters=leads_on).below(start):
        path = entry.name.removeprefix(start)
        if entry.kind == PROBLEM or matches(path.split("/"), wanted):
            yield msgspec.structs.replace(entry, path=os.fsencode(fixed + path))


def split_pattern(pattern: str) -> tuple[str, list[str]]:
    """Split a pattern into the folder that it begins with, empty or ending with a slash, and the parts after it."""
    parts = pattern.split("/")
    count = next(number for number, part in enumerate(parts) if any(sign in part for sign in _MAGIC))
    return "".join(f"{part}/" for part in parts[:count]), parts[count:]


def matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path, or a folder above it, matches a pattern; both are given as their parts."""
    if not pattern:
        return True
    if pattern[0] == _ANY_DEPTH:
        return matches(parts, pattern[1:]) or (len(parts) > 1 and matches(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def leads(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path below this folder can match a pattern; both are given as their parts."""
    if not parts or not pattern or pattern[0] == _ANY_DEPTH:
        return True
    return fnmatchcase(parts[0], pattern[0]) and leads(parts[1:], pattern[1:])

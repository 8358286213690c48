"""What is sent to a project, and what it says of its photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import Problem
from .contents import ClassRow, Facts, NewPhoto

State = Literal["added", "present", "moved"]


@dataclass(frozen=True)
class Upload:
    """A file that was sent: its name, or nothing, and its bytes, or the problem if there are none."""

    file: str
    photo: bytes | Problem


@dataclass(frozen=True)
class Taken:
    """What became of an upload: `state` is added, present or moved, unless there is a problem.

    `near` is the first of its near-duplicates, if that is another photo, `moved_from` the class of a moved one before.
    """

    file: str
    sha256: str = ""
    state: State | None = None
    near: str | None = None
    moved_from: str | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class Listed:
    """A photo of a project as lists show it; `probability` is that of its label when it was left out."""

    sha256: str
    label: str
    file: str
    near: str | None
    probability: float | None


@dataclass(frozen=True)
class Description:
    """A project with its classes; `stale` counts photos whose embedding is of another backbone."""

    facts: Facts
    classes: list[ClassRow]
    bytes: int
    stale: int
    backbone: str

    @property
    def photos(self) -> int:
        """Return the number of all photos."""
        return sum(row.photos for row in self.classes)


def outcome(photo: NewPhoto, before: str | None, near: str | None, label: str) -> Taken:
    """Return what became of a photo that was given the class `label`; `before` is its class before that."""
    if before is None or before == label:
        return Taken(photo.file, photo.sha256.hex(), "added" if before is None else "present", near)
    return Taken(photo.file, photo.sha256.hex(), "moved", near, moved_from=before)

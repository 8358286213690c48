"""What a photo set holds, before anything is learnt from it: counts, copies, contradictions, small classes."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.duplicates import group_duplicates
from ..model.solver import Numbers
from .embeddings import Embedded
from .fitting import Task
from .photosets import LabelledPhoto, PhotoSetError

# A class with fewer photos is reported: its precision and recall say little.
MIN_PHOTOS = 10


@dataclass(frozen=True)
class Findings:
    """The photos to learn from and to test with, and what was noticed about them.

    `counts` has the photos of each class, `copies` the number of files that are byte for byte another one of the same
    class, `contradictions` the files that are the same photo under several labels (they are left out), and
    `near_duplicates` the number of photos that are nearly the same as an earlier one. `unknown` counts the photos for
    testing whose class has no photo to learn from.
    """

    classes: tuple[str, ...]
    photos: tuple[LabelledPhoto, ...]
    task: Task
    held_out: tuple[LabelledPhoto, ...]
    held_out_rows: npt.NDArray[np.float16]
    held_out_classes: Numbers
    counts: Mapping[str, int]
    unreadable: tuple[str, ...]
    copies: int
    contradictions: tuple[str, ...]
    near_duplicates: int
    near_contradictions: tuple[str, ...]
    unknown: int
    data_sha256: str

    @property
    def small(self) -> list[str]:
        """Return the classes with fewer than `MIN_PHOTOS` photos."""
        return [label for label, count in self.counts.items() if count < MIN_PHOTOS]


def examine(embedded: Embedded, wanted: tuple[str, ...], report: Callable[[int, int], None]) -> Findings:
    """Examine embedded photos of the classes `wanted`; raises PhotoSetError if a class has no photo that counts."""
    contradictory = _contradictory(embedded)
    learn, held_out, copies = _divide(embedded, contradictory)
    counts = collections.Counter(embedded.photos[at].label for at in learn)
    _require_photos(wanted, counts)
    numbers = {label: number for number, label in enumerate(wanted)}
    classes = np.array([numbers[embedded.photos[at].label] for at in learn], np.intp)
    rows = embedded.rows_of(learn)
    task = Task(rows, classes, group_duplicates(rows, report), len(wanted))
    tested = [at for at in held_out if embedded.photos[at].label in numbers]
    return Findings(
        classes=wanted,
        photos=tuple(embedded.photos[at] for at in learn),
        task=task,
        held_out=tuple(embedded.photos[at] for at in tested),
        held_out_rows=embedded.rows_of(tested),
        held_out_classes=np.array([numbers[embedded.photos[at].label] for at in tested], np.intp),
        counts={label: counts[label] for label in wanted},
        unreadable=embedded.unreadable,
        copies=copies,
        contradictions=tuple(
            photo.file
            for photo, digest in zip(embedded.photos, embedded.digests, strict=True)
            if digest in contradictory
        ),
        near_duplicates=len(learn) - len(np.unique(task.groups)),
        near_contradictions=_near_contradictions(task, [embedded.photos[at].file for at in learn]),
        unknown=len(held_out) - len(tested),
        data_sha256=_digest(embedded, learn),
    )


def _contradictory(embedded: Embedded) -> set[str]:
    labels = collections.defaultdict(set)
    for photo, digest in zip(embedded.photos, embedded.digests, strict=True):
        labels[digest].add(photo.label)
    return {digest for digest, found in labels.items() if len(found) > 1}


def _divide(embedded: Embedded, contradictory: set[str]) -> tuple[list[int], list[int], int]:
    """Return the places of photos to learn from and to test with, each once, and the number of copies.

    A photo to test with that is among those to learn from is a copy.
    """
    order = sorted(range(len(embedded.photos)), key=lambda at: embedded.photos[at].is_held_out)
    seen: set[str] = set()
    parts: tuple[list[int], list[int]] = [], []
    for at in order:
        digest = embedded.digests[at]
        if digest not in contradictory and digest not in seen:
            parts[embedded.photos[at].is_held_out].append(at)
        seen.add(digest)
    ignored = sum(digest in contradictory for digest in embedded.digests)
    return parts[0], parts[1], len(order) - len(parts[0]) - len(parts[1]) - ignored


def _require_photos(wanted: tuple[str, ...], counts: Mapping[str, int]) -> None:
    empty = [label for label in wanted if not counts[label]]
    if empty:
        raise PhotoSetError(
            f"The class {empty[0]!r} has no photo that can be used: each is unreadable, or has another label too."
        )


def _near_contradictions(task: Task, files: list[str]) -> tuple[str, ...]:
    labels = collections.defaultdict(set)
    for group, number in zip(task.groups.tolist(), task.classes.tolist(), strict=True):
        labels[group].add(number)
    groups = task.groups.tolist()
    return tuple(file for file, group in zip(files, groups, strict=True) if len(labels[group]) > 1)


def _digest(embedded: Embedded, places: list[int]) -> str:
    lines = sorted(f"{embedded.digests[at]} {embedded.photos[at].label}\n" for at in places)
    return hashlib.sha256("".join(lines).encode()).hexdigest()

"""The report on duplicates: one HTML file without scripts or other files, in English or Chinese."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..reports import data_address, read_words, render_report
from .duplicates import Group, Kind
from .library import Library, Row

_WORDS = Path(__file__).with_name("duplicates_words.json")
_TEMPLATE = Path(__file__).with_name("duplicates.html")
# A browser opens a page with the 3,600 thumbnails of one kind, of about 3 KB each.
MAX_GROUPS, MAX_PHOTOS_OF_GROUP = 300, 12
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Photo:
    """A photo of the report, with its thumbnail as a data address."""

    row: Row
    picture: str | None


@dataclass(frozen=True)
class Shown:
    """The photos of a group that are shown, and how many `more` the group has."""

    photos: list[Photo]
    more: int


@dataclass(frozen=True)
class Section:
    """The groups of one kind: their number, their photos, and the bytes of all but the first photo of each group.

    `left_out` groups are not in `shown`.
    """

    name: str
    groups: int
    photos: int
    bytes: int
    shown: list[Shown]
    left_out: int


def write_report(
    library: Library, groups: Sequence[Group], *, title: str, language: str, has_thumbnails: bool = True
) -> str:
    """Return the report as HTML; of each kind it shows the groups whose photos but the first take the most bytes."""
    return render_report(
        _TEMPLATE,
        read_words(_WORDS, language),
        language,
        title=title,
        photos=len(library),
        sections=[_section(library, kind, groups, has_thumbnails) for kind in Kind],
        size=size,
    )


def size(count: int) -> str:
    """Write a number of bytes in decimal units (SI), as file managers do."""
    value, unit = float(count), 0
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}"


def _section(library: Library, kind: Kind, groups: Sequence[Group], has_thumbnails: bool) -> Section:
    ours = [group for group in groups if group.kind is kind]
    extra = [sum(library.rows[row].bytes for row in group.rows[1:]) for group in ours]
    largest = sorted(range(len(ours)), key=lambda place: -extra[place])[:MAX_GROUPS]
    return Section(
        name=kind.name.lower(),
        groups=len(ours),
        photos=sum(len(group.rows) for group in ours),
        bytes=sum(extra),
        shown=[_shown(library, ours[place].rows, has_thumbnails) for place in largest],
        left_out=len(ours) - len(largest),
    )


def _shown(library: Library, rows: Sequence[int], has_thumbnails: bool) -> Shown:
    photos = [
        Photo(library.rows[row], _picture(library, row) if has_thumbnails else None)
        for row in rows[:MAX_PHOTOS_OF_GROUP]
    ]
    return Shown(photos, len(rows) - len(photos))


def _picture(library: Library, row: int) -> str:
    return data_address(library.thumbnail(row))

"""Photo sets: labelled photos in folders, in a ZIP archive or in a table, read one at a time."""

from __future__ import annotations

import csv
import io
import lzma
import threading
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..errors import TopthreeError, UnreadableArchive
from ..model.labels import name_fault, tidy_name
from ..photos.archives import UNREADABLE_DIRECTORY, list_files
from ..photos.clutter import is_clutter_folder
from ..photos.folders import FileProblem, find_photos, has_photo_name, name_key, read_file

TABLE = "labels.csv"
TRAIN = "train"
HELD_OUT = frozenset(["val", "valid", "validation", "test"])
MAX_PHOTOS = 200_000
MAX_CLASSES = 5_000
MAX_PHOTO_BYTES = 256 * 2**20
MAX_TABLE_BYTES = 64 * 2**20
# What zipfile raises for an entry that is damaged, encrypted or compressed in an unusual way.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    RuntimeError,  # NotImplementedError too
    ValueError,
)


class PhotoSetError(TopthreeError):
    """A set of labelled photos cannot be used; the message says why in one sentence."""


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo's name in its set, the name of its class, and whether it is only for testing the result."""

    file: str
    label: str
    is_held_out: bool = False


@dataclass(frozen=True)
class PhotoSet:
    """Labelled photos in a fixed order; `read` returns a photo's bytes or raises a TopthreeError.

    `empty` names the folders beside those of classes in which no photo was found.
    """

    photos: tuple[LabelledPhoto, ...]
    read: Callable[[str], bytes]
    names_zh: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the classes that have a photo to learn from, sorted."""
        return tuple(sorted({photo.label for photo in self.photos if not photo.is_held_out}))


def open_photo_set(path: Path, names: Path | None = None) -> PhotoSet:
    """Find the labelled photos of a folder, a ZIP archive or a CSV file with the columns `file` and `label`.

    In a folder or archive, each folder is a class, unless there is a `labels.csv`; `train` beside `val`, `valid`,
    `validation` or `test` holds the folders of the photos to learn from. `names` is a CSV file with the columns
    `label` and `label_zh`, the Chinese names. Raises PhotoSetError.
    """
    found = _open_folder(path) if path.is_dir() else _open_file(path)
    if names is not None:
        found = replace(found, names_zh=dict(found.names_zh) | _read_names(names, found.classes))
    _check(found, path)
    return found


def _open_file(path: Path) -> PhotoSet:
    if zipfile.is_zipfile(path):
        return _open_archive(path)
    if path.suffix.lower() == ".csv":
        return _open_table(path)
    raise PhotoSetError(f"{path} is neither a folder, nor a ZIP archive, nor a CSV file.")


def _open_folder(path: Path) -> PhotoSet:
    if (path / TABLE).is_file():
        return _open_table(path / TABLE)
    try:
        files = list(find_photos([str(path)]))
    except FileProblem as error:
        raise PhotoSetError(str(error)) from error
    parts = {file: Path(file).relative_to(path).parts for file in files if Path(file) != path}
    photos = _from_folders(parts)
    return PhotoSet(photos, _read_limited, empty=_find_empty(path, photos))


def _open_table(path: Path) -> PhotoSet:
    return _from_table(path, _file_text(path), lambda name: str(path.parent / name), _read_limited)


def _find_empty(path: Path, photos: Iterable[LabelledPhoto]) -> tuple[str, ...]:
    """Return the folders at the place of classes in which no photo was found: empty, unreadable, or links."""
    labels = {photo.label for photo in photos}
    if any(photo.is_held_out for photo in photos):
        path = next(child for child in path.iterdir() if child.name.casefold() == TRAIN)
    folders = [child for child in sorted(path.iterdir()) if child.is_dir() and not is_clutter_folder(child.name)]
    return tuple(
        f"{child.name} (a link, which is not followed)" if child.is_symlink() else child.name
        for child in folders
        if child.name[0] != "." and tidy_name(child.name) not in labels
    )


def _read_limited(name: str) -> bytes:
    data = read_file(name)
    if len(data) > MAX_PHOTO_BYTES:
        raise FileProblem(f"The file has more than {MAX_PHOTO_BYTES:,} bytes.")
    return data


def _open_archive(path: Path) -> PhotoSet:
    try:
        archive = zipfile.ZipFile(path)
        with path.open("rb") as file:
            entries = dict(list_files(file))
    except (UnreadableArchive, *UNREADABLE_DIRECTORY) as error:
        raise PhotoSetError(f"The ZIP archive {path} is damaged or cannot be read.") from error
    reading = threading.Lock()  # entries are read from one file

    def read(name: str) -> bytes:
        entry = entries.get(name)
        if entry is None:
            raise FileProblem("The archive has no such file.")
        if entry.file_size > MAX_PHOTO_BYTES:
            raise FileProblem(f"The file has more than {MAX_PHOTO_BYTES:,} bytes.")
        try:
            with reading:
                return archive.read(entry)
        except _DAMAGE as error:
            raise FileProblem("The entry is damaged, encrypted or compressed in an unusual way.") from error

    # Deeper in the archive, a table belongs to something else.
    tables = [name for name in entries if PurePosixPath(name).name == TABLE and len(PurePosixPath(name).parts) <= 2]
    if tables:
        table = min(tables, key=len)
        if entries[table].file_size > MAX_TABLE_BYTES:
            raise PhotoSetError(f"{path}/{table} has more than {MAX_TABLE_BYTES:,} bytes.")
        folder = PurePosixPath(table).parent
        text = _decode(read(table), f"{path}/{table}")
        return _from_table(path / table, text, lambda name: str(folder / name), read)
    files = [name for name in sorted(entries) if has_photo_name(PurePosixPath(name).name)]
    return PhotoSet(_from_folders(_below_common({name: PurePosixPath(name).parts for name in files})), read)


def _below_common(parts: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leave out folders around the whole set, such as the one that an archive of a folder begins with."""
    while True:
        tops = {names[0] for names in parts.values() if len(names) > 1}
        deeper = {file: names[1:] for file, names in parts.items() if len(names) > 2}
        if len(tops) > 1 or not deeper:
            return parts
        parts = deeper


def _from_folders(parts: Mapping[str, tuple[str, ...]]) -> tuple[LabelledPhoto, ...]:
    tops = {names[0].casefold(): names[0] for names in parts.values() if len(names) > 2}
    has_parts = TRAIN in tops and not HELD_OUT.isdisjoint(tops)
    others = [name for key, name in tops.items() if key not in HELD_OUT | {TRAIN}]
    if has_parts and others:
        raise PhotoSetError(f"The folder {others[0]!r} is neither for training nor for testing: move it elsewhere.")
    photos = []
    for file, names in parts.items():
        if len(names) < (3 if has_parts else 2):  # a photo outside the folders of classes has no label
            continue
        label = names[1] if has_parts else names[0]
        photos.append(LabelledPhoto(file, tidy_name(label), has_parts and names[0].casefold() != TRAIN))
    return tuple(photos)


def _from_table(table: Path, text: str, locate: Callable[[str], str], read: Callable[[str], bytes]) -> PhotoSet:
    rows = _rows(text, str(table), ("file", "label"))
    photos = tuple(LabelledPhoto(locate(row["file"].replace("\\", "/")), tidy_name(row["label"])) for row in rows)
    names = {tidy_name(row["label"]): row["label_zh"].strip() for row in rows if (row.get("label_zh") or "").strip()}
    return PhotoSet(photos, read, names)


def _read_names(path: Path, classes: Iterable[str]) -> dict[str, str]:
    by_key = {name_key(label): label for label in classes}
    found = {}
    for row in _rows(_file_text(path), str(path), ("label", "label_zh")):
        label = by_key.get(name_key(tidy_name(row["label"])))
        if label is None:
            raise PhotoSetError(f"{path} names the class {row['label']!r}, which has no photo.")
        found[label] = row["label_zh"].strip()
    return found


def _rows(text: str, name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        table = csv.DictReader(io.StringIO(text), skipinitialspace=True)
        missing = [column for column in columns if column not in (table.fieldnames or ())]
        rows = list(table) if not missing else []
    except csv.Error as error:
        raise PhotoSetError(f"{name} cannot be read as CSV: {error}.") from error
    if missing:
        raise PhotoSetError(f"{name} has no column {missing[0]!r}; its first line must name its columns.")
    rows = [row for row in rows if any((row[column] or "").strip() for column in columns)]
    for number, row in enumerate(rows, start=1):
        if any(not (row[column] or "").strip() for column in columns):
            raise PhotoSetError(f"Row {number} of {name} is not complete: it needs {' and '.join(columns)}.")
    return rows


def _file_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise PhotoSetError(f"{path} has more than {MAX_TABLE_BYTES:,} bytes.")
        return _decode(path.read_bytes(), str(path))
    except OSError as error:
        raise PhotoSetError(f"{path} cannot be read: {error.strerror}.") from error


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PhotoSetError(f"{name} is not UTF-8; save it as CSV in UTF-8.") from error


def _check(found: PhotoSet, path: Path) -> None:
    if not found.photos:
        raise PhotoSetError(
            f"There is no labelled photo in {path}: put the photos of each class into a folder of its own."
        )
    if len(found.photos) > MAX_PHOTOS:
        raise PhotoSetError(f"{path} has {len(found.photos):,} photos, more than the {MAX_PHOTOS:,} allowed.")
    classes = found.classes
    if len(classes) < 2:
        shown = f"only the class {classes[0]!r}" if classes else "no class to learn"
        raise PhotoSetError(f"{path} has {shown}: a model needs at least two folders with photos.")
    if len(classes) > MAX_CLASSES:
        raise PhotoSetError(f"{path} has {len(classes):,} classes, more than the {MAX_CLASSES:,} allowed.")
    _check_names(classes)


def _check_names(classes: Iterable[str]) -> None:
    same = defaultdict(list)
    for label in classes:
        if (fault := name_fault(label)) is not None:
            raise PhotoSetError(fault)
        same[label.casefold()].append(label)
    twins = next((names for names in same.values() if len(names) > 1), None)
    if twins:
        raise PhotoSetError(f"The classes {twins[0]!r} and {twins[1]!r} differ in case only: rename one of them.")

"""How a writer changes the files of an index: it appends to them, shortens and rewrites them, and locks them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import BatchStopped, IndexProblem
from ..writing import LOCK, lock_of, sync_folder
from .embeddings import Embedding
from .library import Library, slice_of
from .manifest import (
    FAILED,
    FILE,
    HASHES,
    PLACES,
    ROWS,
    THUMBNAILS,
    VECTORS,
    Manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from filelock import FileLock

# The beginnings of names that a job leaves if it is killed before it has written a manifest.
_OURS = (".", "data-", "signs-")
_BLOCK_ROWS = 8192


def lock(folder: Path, *, is_new: bool) -> FileLock:
    """Lock an index for writing, whose folder is created if `is_new`.

    Raises IndexProblem if another job holds the lock, or the folder cannot be used or holds other files.
    """
    try:
        if is_new:
            folder.mkdir(parents=True, exist_ok=True)
        names = os.listdir(folder)
        if FILE not in names and not all(name.startswith(_OURS) for name in names):
            raise IndexProblem(f"{folder} holds other files and no {FILE}. Choose an empty folder for the index.")
        found = lock_of(folder / LOCK)
        found.acquire(timeout=0)
    except TimeoutError as error:
        raise IndexProblem(f"Another job is writing to {folder}; wait until it has ended.") from error
    except OSError as error:
        raise IndexProblem(f"The folder {folder} cannot be used: {error.strerror or error}.") from error
    return found


def create(folder: Path, embedding: Embedding) -> Manifest:
    """Create an empty index and return its manifest."""
    manifest = Manifest(embedding)
    with stopping(folder):
        sweep(folder, None)  # of a job that was killed before it had written a manifest
        make_data(manifest.data_in(folder))
        write_manifest(folder, manifest)
    return manifest


def sizes(manifest: Manifest) -> dict[str, int]:
    """Return how many bytes of each data file count, by the file's name."""
    each = {VECTORS: 2 * manifest.embedding.channels, HASHES: 8, PLACES: 16}
    return {name: size * manifest.rows for name, size in each.items()} | manifest.lengths


def repair(folder: Path, manifest: Manifest) -> None:
    """Remove the bytes and files that a killed job has left; raises IndexProblem if a file is too short."""
    data = manifest.data_in(folder)
    with stopping(folder):
        for name, size in sizes(manifest).items():
            try:
                found = (data / name).stat().st_size
            except FileNotFoundError:
                found = -1
            if found < size:
                raise IndexProblem(f"The index {folder} is damaged: {name} is shorter than {FILE} says.")
            if found > size:
                os.truncate(data / name, size)
        sweep(folder, manifest)


def sweep(folder: Path, manifest: Manifest | None) -> None:
    """Remove the folders of an index, and unfinished files, that its manifest does not name."""
    used = () if manifest is None else (manifest.data_in(folder), manifest.signs_in(folder))
    for left in (*folder.glob("data-*"), *folder.glob("signs-*")):
        if left not in used:
            shutil.rmtree(left)
    for left in folder.glob(f".{FILE}-*"):
        left.unlink()


def make_data(folder: Path) -> None:
    """Create a data folder with empty files."""
    make_folder(folder)
    for name in (VECTORS, HASHES, PLACES, ROWS, THUMBNAILS, FAILED):
        (folder / name).touch()
    sync_folder(folder)


def make_folder(folder: Path) -> None:
    """Create an empty folder, in place of one that a killed job has left under this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    sync_folder(folder.parent)


def write_at(path: Path, place: int, parts: Iterable[bytes]) -> int:
    """Write to a file from a place on, sync it, and return where the file ends now; it is created if missing."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(descriptor, "r+b") as file:
        file.seek(place)
        for part in parts:
            file.write(part)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def write_kept(library: Library, kept: npt.NDArray[np.bool_], folder: Path) -> dict[str, int]:
    """Write the rows of an index that are kept into a new data folder; return the lengths of its files."""
    rows = np.flatnonzero(kept)
    blocks = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
    ends = np.stack([_ends(library.places[:, column], rows) for column in (0, 1)], axis=1)
    write_at(folder / PLACES, 0, [ends.tobytes()])
    write_at(folder / VECTORS, 0, (library.vectors[block].tobytes() for block in blocks))
    write_at(folder / HASHES, 0, [library.hashes[rows].tobytes()])
    texts = (slice_of(library.text, library.places[:, 0], row) for row in rows.tolist())
    pictures = (library.thumbnail(row) for row in rows.tolist())
    return {ROWS: write_at(folder / ROWS, 0, texts), THUMBNAILS: write_at(folder / THUMBNAILS, 0, pictures)}


def _ends(old: npt.NDArray[np.uint64], rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
    lengths = np.diff(old, prepend=np.uint64(0))
    return np.cumsum(lengths[rows], dtype=np.uint64)


@contextmanager
def stopping(folder: Path) -> Iterator[None]:
    """Raise BatchStopped in place of OSError; the index stays as its manifest says."""
    try:
        yield
    except OSError as error:
        raise BatchStopped(f"The index {folder} cannot be written: {error.strerror or error}.") from error

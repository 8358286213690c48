"""`Writer`: adds photos to an index and removes them, so that it is whole at any moment, also when the job is killed.

Files only grow, and `index.json` says how much of them counts; it is replaced when all that it counts is on the disk.
To remove photos, the data is written again, into another folder, and `index.json` names that one from then on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import IndexProblem
from ..model.heads import of_length_one
from ..writing import sync_folder
from .embeddings import Embedding
from .files import create, lock, make_data, make_folder, repair, sizes, stopping, sweep, write_at, write_kept
from .library import Library, Row, read_signs
from .manifest import (
    BITS,
    FAILED,
    FILE,
    HASHES,
    MEAN,
    PLACES,
    ROTATION,
    ROWS,
    THUMBNAILS,
    VECTORS,
    Manifest,
    read_manifest,
    write_manifest,
)
from .signs import Signs, bits_bytes

# The mean of the index is computed again when it has grown by this factor: while photos are added, and at the end.
_GROWTH, _GROWTH_AT_END = 2.0, 1.25


class Failure(msgspec.Struct, frozen=True):
    """A photo that could not be read or decoded: its path, the digest of its bytes if known, slug and sentence."""

    path: str
    sha256: str | None
    error: str
    detail: str


class Writer:
    """The only writer of an index; photos that were added count only after `commit`.

    `paths` are those in the index, each with the bytes of its file, and `failed` those of photos that failed, each
    with the slug of its problem.
    """

    def __init__(self, folder: Path, embedding: Embedding | None = None) -> None:
        """Lock an index, which is created if an embedding is given, and remove the remains of a killed job.

        Raises IndexProblem if another job holds the lock, or the index is missing, damaged or of another embedding.
        """
        self._folder = folder
        self._lock = lock(folder, is_new=embedding is not None)
        with ExitStack() as on_failure:
            on_failure.callback(self._lock.release)
            self.manifest = _find_manifest(folder, embedding)
            repair(folder, self.manifest)
            self.paths = {row.path: row.bytes for row in Library.open(folder).rows}
            failures = read_failures(folder, self.manifest)
            self.failed = {each.path: each.error for each in failures if each.path not in self.paths}
            on_failure.pop_all()
        self._forget()

    def _forget(self) -> None:
        self._added: dict[str, list[bytes]] = {name: [] for name in sizes(self.manifest)}
        self._ends = [self.manifest.lengths[name] for name in (ROWS, THUMBNAILS)]
        self.pending = 0

    def add(self, row: Row, vector: npt.ArrayLike, perceptual_hash: int, thumbnail: bytes) -> None:
        """Add a photo with its embedding (channels), which is stored at length 1."""
        line = msgspec.json.encode(row) + b"\n"
        self._ends = [self._ends[0] + len(line), self._ends[1] + len(thumbnail)]
        for name, data in (
            (VECTORS, of_length_one(np.asarray(vector, np.float32)).astype(np.float16).tobytes()),
            (HASHES, np.uint64(perceptual_hash).tobytes()),
            (PLACES, np.array(self._ends, np.uint64).tobytes()),
            (ROWS, line),
            (THUMBNAILS, thumbnail),
        ):
            self._added[name].append(data)
        self.pending += 1
        self.paths[row.path] = row.bytes
        self.failed.pop(row.path, None)

    def fail(self, failure: Failure) -> None:
        """Add a photo that failed; a later failure of the same path replaces it."""
        self._added[FAILED].append(msgspec.json.encode(failure) + b"\n")
        self.pending += 1
        self.failed[failure.path] = failure.error

    def commit(self, *, at_end: bool = False) -> None:
        """Write the photos that were added to the disk; `at_end` also brings the mean up to date.

        Raises BatchStopped if the disk is full; the index is then as it was after the last commit.
        """
        old, counted = self.manifest, sizes(self.manifest)
        data = old.data_in(self._folder)
        with stopping(self._folder):
            ends = {name: write_at(data / name, counted[name], parts) for name, parts in self._added.items()}
            new = msgspec.structs.replace(
                old,
                rows=ends[HASHES] // 8,
                failed=len(self.failed),
                lengths={name: ends[name] for name in old.lengths},
            )
            self._use(self._with_signs(new, _GROWTH_AT_END if at_end else _GROWTH))
        self._forget()

    def remove(self, paths: Collection[str]) -> int:
        """Remove photos by their paths, or those of folders above them, and return how many; all data is rewritten.

        Raises IndexProblem, and removes nothing, if a path is neither in the index nor failed, and BatchStopped if
        the disk is full.
        """
        gone = find_below(self.paths.keys() | self.failed.keys(), paths)
        self._drop(gone)
        return len(gone)

    def drop_changed(self, sizes_now: Iterable[tuple[str, int]]) -> int:
        """Remove photos whose files have another size now than when they were added, and return how many.

        Raises BatchStopped if the disk is full.
        """
        gone = {path for path, size in sizes_now if self.paths.get(path, size) != size}
        if gone:
            self._drop(gone)
        return len(gone)

    def _drop(self, gone: set[str]) -> None:
        library = Library.open(self._folder)
        kept = np.fromiter((row.path not in gone for row in library.rows), np.bool_, len(library))
        failures = [
            each for each in read_failures(self._folder, self.manifest) if each.path in self.failed.keys() - gone
        ]
        new = msgspec.structs.replace(self.manifest, data=self.manifest.data + 1, fitted=0)
        data = new.data_in(self._folder)
        with stopping(self._folder):
            make_data(data)
            lengths = write_kept(library, kept, data)
            lengths[FAILED] = write_at(data / FAILED, 0, (msgspec.json.encode(each) + b"\n" for each in failures))
            new = msgspec.structs.replace(new, rows=int(kept.sum()), failed=len(failures), lengths=lengths)
            self._use(self._with_signs(new, _GROWTH))
        self.paths = {path: size for path, size in self.paths.items() if path not in gone}
        self.failed = {path: slug for path, slug in self.failed.items() if path not in gone}
        self._forget()

    def close(self) -> None:
        """Release the lock; photos that were not committed are lost."""
        self._lock.release()

    def _with_signs(self, new: Manifest, growth: float) -> Manifest:
        """Write the bits of the rows that have none yet, or of all rows if the mean is out of date."""
        if new.rows == 0:  # a number is never used again, so that no reader takes new bits for old ones
            return msgspec.structs.replace(new, signs=self.manifest.signs + 1)
        channels = new.embedding.channels
        vectors = np.memmap(new.data_in(self._folder) / VECTORS, np.float16, "r", shape=(new.rows, channels))
        if new.rows < growth * new.fitted:
            folder, first = new.signs_in(self._folder), self.manifest.rows
            bits = read_signs(folder, channels).bits(vectors[first:])
            write_at(folder / BITS, first * bits_bytes(channels), [bits.tobytes()])
            return new
        new = msgspec.structs.replace(new, signs=self.manifest.signs + 1, fitted=new.rows)
        folder = new.signs_in(self._folder)
        make_folder(folder)
        signs = Signs.fit(vectors)
        for name, array in ((MEAN, signs.mean), (ROTATION, signs.rotation), (BITS, signs.bits(vectors))):
            write_at(folder / name, 0, [array.tobytes()])
        sync_folder(folder)
        return new

    def _use(self, new: Manifest) -> None:
        write_manifest(self._folder, new)
        self.manifest = new
        sweep(self._folder, new)


def _find_manifest(folder: Path, embedding: Embedding | None) -> Manifest:
    if embedding is not None and not (folder / FILE).exists():
        return create(folder, embedding)
    found = read_manifest(folder)
    if embedding is not None:
        found.embedding.check(embedding, folder)
    return found


def read_failures(folder: Path, manifest: Manifest) -> list[Failure]:
    """Return the photos of an index that failed, each path once; some may have been added since."""
    with (manifest.data_in(folder) / FAILED).open("rb") as file:
        lines = file.read(manifest.lengths[FAILED]).splitlines()
    try:
        found = [msgspec.json.decode(line, type=Failure) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IndexProblem(f"The index {folder} is damaged: {FAILED} cannot be read.") from error
    return list({failure.path: failure for failure in found}.values())


def find_below(paths: Collection[str], wanted: Collection[str]) -> set[str]:
    """Return the paths that are wanted or are below a folder that is; raises IndexProblem if a wanted one has none."""
    found: set[str] = set()
    for each in wanted:
        below = f"{each.rstrip('/')}/"
        matching = {path for path in paths if path == each or path.startswith(below)}
        if not matching:
            raise IndexProblem(f"{each} is not in the index; nothing was removed. Name it as 'topthree similar' does.")
        found |= matching
    return found

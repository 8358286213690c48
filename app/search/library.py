"""`Library`: an index of photos on the disk, read by memory maps: rows, vectors, bits, hashes and thumbnails."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from ..errors import IndexProblem
from ..model.heads import Floats, of_length_one
from .embeddings import Embedding
from .manifest import (
    BITS,
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
)
from .signs import Bits, Signs, bits_bytes, differences

# Candidates whose cosine is computed: for each neighbour that is asked for, and at least.
CANDIDATES_PER_NEIGHBOUR = 10
MIN_CANDIDATES = 500
_BLOCK_ROWS = 8192
# Attempts to open an index whose files a job replaces in between, as it does to remove photos.
_TRIES = 5


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Row(msgspec.Struct, frozen=True):
    """A photo of an index: its path relative to its source, and facts about its file."""

    path: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    width: _Count
    height: _Count
    format: str
    bytes: _Count


class Rows:
    """The rows of an index, each read from the disk when it is asked for."""

    def __init__(self, text: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint64]) -> None:
        self._text, self._ends = text, ends
        self._decoder = msgspec.json.Decoder(Row)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, place: int) -> Row:
        place = range(len(self))[place]
        try:
            return self._decoder.decode(slice_of(self._text, self._ends, place))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise IndexProblem(f"The index is damaged: row {place} of {ROWS} cannot be read.") from error

    def __iter__(self) -> Iterator[Row]:
        return (self[place] for place in range(len(self)))


@dataclass(frozen=True)
class Library:
    """An index as it was when it was opened, also after a job has added or removed photos.

    A photo has the same place in all arrays: `rows`, `vectors` float16 (n, channels) of length 1, `bits` uint8
    (n, bytes), the signs of the vectors by `signs`, and `hashes` uint64 (n), the perceptual hashes. `embedding`
    describes the model that made the vectors. `places` uint64 (n, 2) says where each row ends in `text`, and where
    its thumbnail ends. When photos are removed, the others move to other places, and `generation` changes.
    """

    folder: Path
    embedding: Embedding
    generation: int
    rows: Rows
    vectors: npt.NDArray[np.float16]
    bits: Bits
    hashes: npt.NDArray[np.uint64]
    signs: Signs
    text: npt.NDArray[np.uint8]
    places: npt.NDArray[np.uint64]
    _thumbnails: npt.NDArray[np.uint8]
    _version: tuple[int, ...]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Library:
        """Open an index; raises IndexProblem if it is missing, damaged or of a newer format."""
        path = Path(folder)
        for _ in range(_TRIES):
            version = _version_of(path)
            manifest = read_manifest(path)
            try:
                return cls._map(path, manifest, version)
            except OSError as error:
                if version == _version_of(path):  # else a job has replaced the files in between
                    raise IndexProblem(f"The index {path} is damaged: {_named(error)} cannot be read.") from error
        raise IndexProblem(f"The index {path} changes all the time; try again later.")

    @classmethod
    def _map(cls, folder: Path, manifest: Manifest, version: tuple[int, ...]) -> Library:
        rows, channels = manifest.rows, manifest.embedding.channels
        data, signs = manifest.data_in(folder), manifest.signs_in(folder)
        places = _mapped(data / PLACES, np.uint64, (rows, 2))
        lengths = [manifest.lengths[name] for name in (ROWS, THUMBNAILS)]
        if rows and places[-1].tolist() != lengths:
            raise IndexProblem(f"The index {folder} is damaged: {PLACES} and {FILE} differ.")
        text = _mapped(data / ROWS, np.uint8, (lengths[0],))
        return cls(
            folder=folder,
            embedding=manifest.embedding,
            generation=manifest.data,
            rows=Rows(text, places[:, 0]),
            vectors=_mapped(data / VECTORS, np.float16, (rows, channels)),
            bits=_mapped(signs / BITS, np.uint8, (rows, bits_bytes(channels))),
            hashes=_mapped(data / HASHES, np.uint64, (rows,)),
            signs=read_signs(signs, channels) if rows else Signs.fit(np.zeros((0, channels), np.float16)),
            text=text,
            places=places,
            _thumbnails=_mapped(data / THUMBNAILS, np.uint8, (lengths[1],)),
            _version=version,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def is_current(self) -> bool:
        """Return whether the index on the disk is still the one that was opened; quick enough for each request."""
        return _version_of(self.folder) == self._version

    def check(self, embedding: Embedding) -> None:
        """Raise IndexProblem, saying what differs, if a vector of this kind cannot be searched here."""
        self.embedding.check(embedding, self.folder)

    def thumbnail(self, row: int) -> bytes:
        """Return a photo's thumbnail: a JPEG, no side longer than 96 pixels."""
        return slice_of(self._thumbnails, self.places[:, 1], range(len(self))[row])

    def nearest(
        self, vector: npt.ArrayLike, count: int, *, exact: bool = False, candidates: int = MIN_CANDIDATES
    ) -> list[tuple[int, float]]:
        """Return the rows nearest to an embedding (channels) of any length with their cosines, the nearest first.

        Unless `exact`, which compares all vectors, the cosine is computed of those whose bits differ least: at least
        `candidates`, and more if many rows are asked for. Raises IndexProblem if a vector is damaged.
        """
        wanted = of_length_one(np.asarray(vector, np.float32))
        if exact:
            places, cosines = np.arange(len(self)), self._cosines(wanted)
        else:
            places = self._candidates(wanted, max(candidates, CANDIDATES_PER_NEIGHBOUR * count))
            cosines = self.vectors[places].astype(np.float32) @ wanted
        if not np.isfinite(cosines).all():
            raise self.damage_of_vectors()
        first = np.argsort(-cosines, kind="stable")[:count]
        return [(int(places[each]), min(1.0, float(cosines[each]))) for each in first]  # a rounded 1 may be above it

    def damage_of_vectors(self) -> IndexProblem:
        """Return the problem of vectors that no photo has."""
        return IndexProblem(f"The index {self.folder} is damaged: {VECTORS} holds numbers that are not finite.")

    def _candidates(self, wanted: Floats, count: int) -> npt.NDArray[np.intp]:
        """Return the rows whose bits differ least: at least `count`, or all if there are fewer."""
        found = differences(self.bits, self.signs.bits(wanted[None])[0])
        reached = np.searchsorted(np.cumsum(np.bincount(found)), count)
        return np.flatnonzero(found <= reached)

    def _cosines(self, wanted: Floats) -> Floats:
        cosines = np.empty(len(self), np.float32)
        for start in range(0, len(self), _BLOCK_ROWS):
            cosines[start : start + _BLOCK_ROWS] = (
                self.vectors[start : start + _BLOCK_ROWS].astype(np.float32) @ wanted
            )
        return cosines


def read_signs(folder: Path, channels: int) -> Signs:
    """Read the mean and the rotation of an index; raises OSError, and IndexProblem if they are too short."""
    mean = _mapped(folder / MEAN, np.float32, (channels,))
    return Signs(np.array(mean), np.array(_mapped(folder / ROTATION, np.float32, (channels, channels))))


def slice_of(data: npt.NDArray[np.uint8], ends: npt.NDArray[np.uint64], place: int) -> bytes:
    """Return the bytes of a row in a file whose rows differ in length, by where each ends."""
    start = int(ends[place - 1]) if place else 0
    return data[start : int(ends[place])].tobytes()


def _mapped(path: Path, kind: type[np.generic], shape: tuple[int, ...]) -> Any:
    """Map the beginning of a file; raises OSError, and IndexProblem if it is shorter."""
    needed = math.prod(shape) * np.dtype(kind).itemsize
    if not needed:
        return np.zeros(shape, kind)
    if path.stat().st_size < needed:
        raise IndexProblem(f"The index {path.parent.parent} is damaged: {path.name} is shorter than {FILE} says.")
    return np.memmap(path, kind, "r", shape=shape).view(np.ndarray)


def _named(error: OSError) -> str:
    return Path(error.filename).name if error.filename else "a file"


def _version_of(folder: Path) -> tuple[int, ...]:
    try:
        found = os.stat(folder / FILE)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

"""Embeddings of photos and their mirror images, computed by the engine that serves and kept in the cache.

A file of the cache holds up to `PACK_PHOTOS` records, of one model; it is written whole or not at all, and never
changes. A run that is interrupted keeps the files that it has finished.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ModelUnavailable, NoPhoto, TopthreeError
from ..model import Model
from ..model.heads import of_length_one
from ..model.room import not_writable
from ..photos.decoders import Decoders
from ..photos.protocol import Wanted
from ..processes.plan import SPARE_SLOTS, make_plan
from ..queueing.scheduling import in_order, side_by_side
from ..settings import Settings
from ..writing import replacing
from .photosets import MAX_PHOTO_BYTES, LabelledPhoto, PhotoSet, PhotoSetError

FOLDER = "embeddings"
PACK_PHOTOS = 1000
HALF = np.float16

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Embedded:
    """The embeddings of photos: `rows` (photos, 2, channels), each of length 1, of the photo and its mirror image.

    `digests` has the SHA-256 of each photo's file, `photos` what it is; `unreadable` a line for each photo without an
    embedding, with the reason. The rows lie in a file of `folder`, without a name, that goes when they are no longer
    used.
    """

    photos: tuple[LabelledPhoto, ...]
    digests: tuple[str, ...]
    rows: npt.NDArray[np.float16]
    unreadable: tuple[str, ...]
    folder: Path

    def rows_of(self, places: Sequence[int]) -> npt.NDArray[np.float16]:
        """Return the rows of some photos, in a file of their own; raises PhotoSetError if it cannot be written."""
        if list(places) == list(range(len(self.rows))):
            return self.rows
        with _explained(self.folder):
            return _collect((self.rows[place] for place in places), (len(places), *self.rows.shape[1:]), self.folder)


def embed(photo_set: PhotoSet, model: Model, settings: Settings, report: Report) -> Embedded:
    """Embed all photos of a set, those that the cache does not hold yet by the model.

    `report` is called with the number of photos that are done and of all. Raises PhotoSetError if the cache cannot be
    written.
    """
    cache = _Cache(settings.cache / FOLDER / model.fingerprint, _record_type(model))
    photos, digests, unreadable = [], [], []
    done = 0
    with _explained(settings.cache):
        with ExitStack() as stack:
            stack.callback(cache.flush)  # what is done is kept if the user stops here
            for photo, outcome in _work(photo_set, model, settings, cache, stack):
                done += 1
                report(done, len(photo_set.photos))
                if isinstance(outcome, TopthreeError):
                    unreadable.append(f"{photo.file}: {outcome}")
                    continue
                digest, record = outcome
                if record is not None:
                    cache.add(record)
                photos.append(photo)
                digests.append(digest)
        found = (cache[bytes.fromhex(digest)] for digest in digests)
        rows = _collect(found, (len(digests), *cache.record_type["rows"].shape), settings.cache)
    return Embedded(tuple(photos), tuple(digests), rows, tuple(unreadable), settings.cache)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Raise PhotoSetError with the sentence for a folder of the cache that cannot be written."""
    try:
        yield
    except OSError as error:
        raise PhotoSetError(not_writable(folder, error)) from error


def _record_type(model: Model) -> np.dtype[Any]:
    channels = model.engine.infer(np.zeros((1, *_crop_shape(model)), np.uint8)).features.shape[1]
    if not channels:
        raise PhotoSetError(f"{model.name} gives no embedding, which a model of one's own is learnt on.")
    return np.dtype([("sha256", "V32"), ("rows", HALF, (2, channels))])


def _crop_shape(model: Model) -> tuple[int, int, int]:
    side = model.weights.record.geometry.crop
    return side, side, 3


_Outcome = tuple[str, npt.NDArray[Any] | None] | TopthreeError


def _work(
    photo_set: PhotoSet, model: Model, settings: Settings, cache: _Cache, stack: ExitStack
) -> Iterator[tuple[LabelledPhoto, _Outcome]]:
    """Yield each photo with its digest and, if it is new to the cache, its record; or with its problem; in order."""
    plan = make_plan(settings)
    decoders = Decoders(plan.decoders, max_bytes=MAX_PHOTO_BYTES, memory_bytes=plan.photo_memory_bytes)
    stack.enter_context(closing(decoders))
    decoders.start()  # else each photo would count as one that cannot be read
    wanted = Wanted(model.weights.record.geometry, settings.max_pixels)

    def work(photo: LabelledPhoto) -> tuple[LabelledPhoto, _Outcome]:
        try:
            data = photo_set.read(photo.file)
            if not data:
                raise NoPhoto("The file is empty.")
            digest = hashlib.sha256(data)
            if digest.digest() in cache:
                return photo, (digest.hexdigest(), None)
            record = _record(model, digest.digest(), decoders.decode(data, wanted).crop, cache.record_type)
            return photo, (digest.hexdigest(), record)
        except ModelUnavailable:
            raise
        except TopthreeError as problem:
            return photo, problem

    yield from in_order(side_by_side(work, photo_set.photos, plan.cpus + SPARE_SLOTS))


def _record(model: Model, digest: bytes, crop: npt.NDArray[np.uint8], record_type: np.dtype[Any]) -> npt.NDArray[Any]:
    record = np.zeros((), record_type)
    record["sha256"] = digest
    views = np.stack([crop, crop[:, ::-1]])
    # On a processor a batch of two saves nothing, and its digits differ from those of a photo that is served.
    batches = [views] if model.engine.batches else [views[:1], views[1:]]
    embeddings = np.concatenate([model.engine.infer(batch).embeddings for batch in batches])
    for place, embedding in enumerate(embeddings):
        record["rows"][place] = of_length_one(embedding)
    return record


class _Cache:
    """The records of one model in the cache, by the SHA-256 of the photo's file."""

    def __init__(self, folder: Path, record_type: np.dtype[Any]) -> None:
        self.record_type = record_type
        self._folder = folder
        packs = (_open_pack(path, record_type) for path in sorted(folder.glob("*.npy")))
        self._packs = [pack for pack in packs if pack is not None]
        self._places = {
            digest.tobytes(): (number, row)
            for number, pack in enumerate(self._packs)
            for row, digest in enumerate(pack["sha256"])
        }
        self._new: list[npt.NDArray[Any]] = []

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def __getitem__(self, digest: bytes) -> npt.NDArray[np.float16]:
        number, row = self._places[digest]
        found: npt.NDArray[np.float16] = self._packs[number]["rows"][row]
        return found

    def add(self, record: npt.NDArray[Any]) -> None:
        """Keep a record; a full pack is written."""
        digest = record["sha256"].tobytes()
        if digest not in self._places:
            self._places[digest] = len(self._packs), len(self._new)
            self._new.append(record)
        if len(self._new) >= PACK_PHOTOS:
            self.flush()

    def flush(self) -> None:
        """Write the new records as one file; raises OSError."""
        if not self._new:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        records = np.stack(self._new)
        name = hashlib.sha256(records["sha256"].tobytes()).hexdigest()[:32]
        with replacing(self._folder / f"{name}.npy", 0o600) as out:
            np.save(out, records, allow_pickle=False)
        self._packs.append(np.load(self._folder / f"{name}.npy", mmap_mode="r"))
        self._new = []


def _open_pack(path: Path, record_type: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """Open a file of the cache; None for one that is damaged, whose photos are embedded again."""
    try:
        pack = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return pack if pack.dtype == record_type and pack.ndim == 1 else None


def _collect(
    found: Iterable[npt.NDArray[np.float16]], shape: tuple[int, ...], folder: Path
) -> npt.NDArray[np.float16]:
    """Copy rows into one array in a file that has no name; raises OSError if the disk is full."""
    if not shape[0]:
        return np.zeros(shape, HALF)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        # Take the room on the disk now: a write to mapped memory that finds no room would end the process.
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * np.dtype(HALF).itemsize)
        rows = np.memmap(file, HALF, "r+", shape=shape)
    for place, row in enumerate(found):
        rows[place] = row
    return rows

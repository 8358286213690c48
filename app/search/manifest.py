"""`index.json`: how many bytes of an index's files count; those after them were left by a job that was killed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from ..errors import IndexProblem
from ..writing import replacing
from .embeddings import Embedding

FILE = "index.json"
FORMAT = 1

# The files of a data folder, which only grow.
VECTORS, HASHES, PLACES = "vectors.f16", "hashes.u64", "places.u64"
ROWS, THUMBNAILS, FAILED = "rows.ndjson", "thumbnails.mjpeg", "failed.ndjson"
# The files of a folder of signs.
BITS, MEAN, ROTATION = "bits.u8", "mean.f32", "rotation.f32"

Count = Annotated[int, msgspec.Meta(ge=0, le=2**48)]


class Manifest(msgspec.Struct, frozen=True):
    """The state of an index: `rows` photos in the folder `data-DATA`, and their bits in `signs-SIGNS`.

    The mean in `signs-SIGNS` is that of the first `fitted` photos. `lengths` has the bytes that count of each file
    whose rows differ in length. `failed` is the number of photos that failed.
    """

    embedding: Embedding
    rows: Count = 0
    failed: Count = 0
    data: Count = 1
    signs: Count = 0
    fitted: Count = 0
    lengths: dict[str, Count] = msgspec.field(default_factory=lambda: dict.fromkeys((ROWS, THUMBNAILS, FAILED), 0))
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.lengths.keys() != {ROWS, THUMBNAILS, FAILED}:
            raise ValueError("the lengths are of other files")

    def data_in(self, folder: Path) -> Path:
        """Return the folder of vectors, hashes, rows and thumbnails."""
        return folder / f"data-{self.data}"

    def signs_in(self, folder: Path) -> Path:
        """Return the folder of the bits, their mean and their rotation."""
        return folder / f"signs-{self.signs}"


class _Format(msgspec.Struct):
    format: int


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an index; raises IndexProblem if the folder has none, or it cannot be read."""
    path = folder / FILE
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=_Format).format
        if found > FORMAT:
            raise IndexProblem(f"{folder} is an index of a newer version of topthree (format {found}, not {FORMAT}).")
        return msgspec.json.decode(data, type=Manifest)
    except FileNotFoundError as error:
        raise IndexProblem(f"{folder} is not an index: it has no {FILE}.") from error
    except OSError as error:
        raise IndexProblem(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IndexProblem(f"The index {folder} is damaged: {FILE} cannot be read.") from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of an index; it is on the disk when this returns. Raises OSError."""
    with replacing(folder / FILE, 0o644, is_synced=True) as out:
        out.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")

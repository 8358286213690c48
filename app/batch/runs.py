"""`_run.json`: the facts that all parts of an output folder share, fixed by the job that comes first."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec

from ..errors import BatchError, BatchStopped
from ..model import Model
from ..writing import sync_folder
from .rows import Columns

# Programs that read all Parquet files of a folder take names with an underscore for something else.
FILE = "_run.json"
FORMAT_VERSION = "1"
# A part is written about every minute, and small collections get few parts.
PHOTOS_PER_SHARD = 64
MAX_DEFAULT_SHARDS = 512
MAX_SHARDS = 99_999
# With one shard for each of many jobs, the largest would keep the others waiting.
SHARDS_PER_JOB = 16


class Run(msgspec.Struct, frozen=True):
    """The number of shards, the format of the parts, and the `fingerprint`: the facts on which their rows depend."""

    shards: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARDS)]
    format: str
    fingerprint: dict[str, str]

    @property
    def digest(self) -> str:
        """Return the digest of the fingerprint, which each Parquet file carries."""
        return hashlib.sha256(msgspec.json.encode(self.fingerprint, order="sorted")).hexdigest()


def fingerprint_of(models: Sequence[Model], columns: Columns) -> dict[str, str]:
    """Return the facts on which the rows of these models depend, by names for a sentence."""
    first = models[0]
    geometry = first.weights.record.geometry
    return {
        "format version": FORMAT_VERSION,
        "model": ", ".join(f"{model.name} {_digest_of(model)}" for model in models),
        "engine": first.engine.name,
        "precision": first.engine.precision,
        "preprocessing": f"{geometry.resize} to {geometry.crop}, {geometry.interpolation}",
        "top": str(columns.top),
        "embeddings": "yes" if columns.embeddings else "no",
    }


def _digest_of(model: Model) -> str:
    """Return a digest of all on which answers depend but engine and precision: weights, head, names, calibration."""
    facts = {name: value for name, value in model.identity.items() if name not in ("engine", "precision", "fallback")}
    return hashlib.sha256(repr((facts, model.labels, model.judge.calibration)).encode()).hexdigest()[:16]


def default_shards(photos: int, jobs: int) -> int:
    """Return the number of shards for a number of photos, if `jobs` share them."""
    return max(1, min(MAX_DEFAULT_SHARDS, -(-photos // PHOTOS_PER_SHARD)), SHARDS_PER_JOB * jobs if jobs > 1 else 1)


def read_run(folder: Path) -> Run | None:
    """Return the run of an output folder, None if it has none yet; raises BatchError if it cannot be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Run)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BatchError(f"{folder / FILE} cannot be read: it is damaged, or of a newer version.") from error


def write_run(folder: Path, run: Run) -> Run:
    """Write the run of an output folder, and return it, or the one that another job has written first.

    Raises BatchStopped if the folder cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{FILE}-") as file:
            file.write(msgspec.json.format(msgspec.json.encode(run)) + b"\n")
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            with suppress(FileExistsError):  # of another job, which then came first
                os.link(file.name, folder / FILE)
        sync_folder(folder)
    except OSError as error:
        raise BatchStopped(f"{folder / FILE} cannot be written: {error.strerror}.") from error
    return read_run(folder) or run


def check_run(folder: Path, found: Run, format_: str, fingerprint: dict[str, str]) -> None:
    """Raise BatchError, saying what differs, if the parts of a folder are of another run."""
    wanted = {"format": format_, **fingerprint}
    there = {"format": found.format, **found.fingerprint}
    differing = [name for name in wanted | there if wanted.get(name) != there.get(name)]
    if differing:
        what = "; ".join(f"{name} is {there.get(name)} there and {wanted.get(name)} now" for name in differing)
        raise BatchError(f"{folder} holds another run: {what}. Choose another --output, or the settings of that run.")


def prepare_folder(folder: Path) -> None:
    """Create an output folder; raises BatchError if it cannot be used, or holds files that are not a batch's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_foreign = not (folder / FILE).exists() and any(name[0] != "." for name in os.listdir(folder))
    except OSError as error:
        raise BatchError(f"The output folder {folder} cannot be used: {error.strerror}.") from error
    # Another job may have written the file just now.
    if is_foreign and not (folder / FILE).exists():
        raise BatchError(f"{folder} holds other files and no {FILE}. Choose an empty folder for --output.")

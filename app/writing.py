"""Write files and folders so that they appear complete or not at all, and lock them against other writers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import AcquireReturnProxy, FileLock

# The names of folders that are being filled begin with this; what a killed process has left can be found by it.
UNFINISHED = ".unfinished-"
# The name of the lock of a folder.
LOCK = ".lock"


@contextmanager
def replacing(path: Path, mode: int, *, is_synced: bool = False) -> Iterator[IO[bytes]]:
    """Yield a new file that replaces the one at `path` at the end of the block, with these permissions.

    If the block or the writing fails, nothing is left of it, and the old file stays. With `is_synced` the new file is
    on the disk when this returns, and survives a power cut. Raises OSError.
    """
    with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}-", delete=False) as out:
        try:
            yield out.file
            out.flush()
            os.fchmod(out.fileno(), mode)
            if is_synced:
                os.fsync(out.fileno())
            os.replace(out.name, path)
            if is_synced:
                sync_folder(path.absolute().parent)
        finally:
            Path(out.name).unlink(missing_ok=True)  # it still exists only if writing failed


def sync_folder(folder: Path) -> None:
    """Write the names of a folder to the disk, so that files that were created or renamed survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def filling(target: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `target` at the end of the block; there may only be an empty one by then.

    If the block or the writing fails, nothing is left of it. Raises OSError.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=target.absolute().parent))
    try:
        unfinished.chmod(0o755)
        yield unfinished
        os.rename(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes have left of folders in this one; to be called with its lock held."""
    for left in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def lock_of(path: Path) -> FileLock:
    """Return the lock that is the file at `path`; it is not held yet.

    Its file stays: removing it would let two later processes lock two different files. A process that only reads need
    not spend the 20 ms that importing filelock takes.
    """
    from filelock import FileLock

    return FileLock(path)


def alone_in(folder: Path) -> AcquireReturnProxy[FileLock]:
    """Make a folder if it is missing, and wait for its lock; to be used in a `with` statement. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    return lock_of(folder / LOCK).acquire()

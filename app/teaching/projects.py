"""The folder of projects: made, listed, deleted, measured.

A project is a folder `NAME/` with one SQLite file, whose name is never used again: a process that still has a deleted
project open cannot touch the files of a new one of the same name.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BadRequest, NameTaken, OwnModelError, ProjectFull, ProjectsUnavailable, UnknownProject
from ..model.own_format import NAME
from ..model.own_models import check_name
from ..model.room import NO_ROOM
from ..writing import LOCK, filling, lock_of, sweep
from . import database

log = logging.getLogger(__name__)

SUFFIX = ".sqlite"
# Of the file of a project without photos.
EMPTY_BYTES = 49_152
_REMOVED = ".removed-"
# Folders of copies that are about to be sent; they exist while the lock is held.
LEAVING = ".leaving-"
# Uploads hold the lock for some milliseconds.
_POLL_SECONDS = 0.01


class Projects:
    """The projects below `root`, which may have `max_bytes` together."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes

    def names(self) -> list[str]:
        """Return the names of all projects, sorted."""
        try:
            return sorted(entry.name for entry in os.scandir(self.root) if NAME.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._problem_of(error) from error

    def path(self, name: str) -> Path:
        """Return the file of a project; raises UnknownProject."""
        if NAME.fullmatch(name):
            found = sorted((self.root / name).glob(f"*{SUFFIX}"))
            if found:
                return found[0]
        raise UnknownProject(f"There is no project named '{name[:64]}'.")

    def create(self, name: str, fill: Callable[[Path], None], *, size: int = EMPTY_BYTES) -> None:
        """Create a project, whose file of about `size` bytes `fill` writes; it appears as a whole or not at all.

        Raises NameTaken if there is one of this name, BadRequest for a name that cannot be used, and what `locked` and
        `require_room` raise.
        """
        try:
            check_name(name)
        except OwnModelError as error:
            raise BadRequest(str(error).replace("A model", "A project", 1)) from error
        with self.locked():
            self._refuse_twin(name)
            self.require_room(size)
            with filling(self.root / name) as unfinished:
                unfinished.chmod(0o700)
                fill(unfinished / f"{secrets.token_hex(8)}{SUFFIX}")

    def delete(self, name: str) -> None:
        """Delete a project with all its photos; raises UnknownProject, and what `locked` raises."""
        with self.locked():
            self.path(name)  # raises UnknownProject
            gone = self.root / f"{_REMOVED}{secrets.token_hex(8)}"
            os.rename(self.root / name, gone)  # which a full disk has room for
            shutil.rmtree(gone)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder, without which no project is made, filled or deleted; make the folder if needed.

        A project's own transaction begins after this, never before, so that no two requests wait for each other.
        Raises Overloaded if others hold the lock for longer than `BUSY_SECONDS`. An OSError, also one of the block,
        becomes ProjectFull or ProjectsUnavailable.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with lock_of(self.root / LOCK).acquire(database.BUSY_SECONDS, _POLL_SECONDS):
                self._sweep()
                yield
        except TimeoutError as error:
            raise database.busy() from error
        except OSError as error:
            raise self._problem_of(error) from error

    def bytes(self) -> int:
        """Return the bytes of all projects on disk."""
        return sum(self.bytes_of(name) for name in self.names())

    def bytes_of(self, name: str) -> int:
        """Return the bytes of one project on disk, 0 if it is gone, without what SQLite shares in memory."""
        try:
            files = [entry for entry in os.scandir(self.root / name) if not entry.name.endswith("-shm")]
            return sum(entry.stat().st_size for entry in files)
        except OSError:  # it was deleted, or a journal was
            return 0

    def require_room(self, size: int) -> None:
        """Raise ProjectFull if `size` more bytes are not allowed; the caller holds the lock until they are written."""
        if self.bytes() + size > self.max_bytes:
            raise ProjectFull(
                f"All projects together may have {self.max_bytes:,} bytes. Delete photos or projects, or ask the "
                "administrator for more."
            )

    def _refuse_twin(self, name: str) -> None:
        """Refuse a name that another project has, or that differs from it only in case."""
        twin = next((other for other in self.names() if other.casefold() == name.casefold()), None)
        if twin is not None:
            raise NameTaken(f"There is a project named {twin} already.")

    def _problem_of(self, error: OSError) -> ProjectFull | ProjectsUnavailable:
        """Return the problem of a folder that cannot be written, and log the reason."""
        if error.errno in NO_ROOM:
            return database.disk_full()
        log.error("The folder of projects %s cannot be used: %s.", self.root, error.strerror or error)
        return ProjectsUnavailable("The projects cannot be read or written. The service's log has the reason.")

    def _sweep(self) -> None:
        """Remove what a killed process has left; called with the lock."""
        sweep(self.root)
        for prefix in (_REMOVED, LEAVING):
            for left in self.root.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)

"""The folder of projects: made, listed, deleted, measured.

A project is a folder `NAME/` with one SQLite file, whose name is never used again: a process that still has a deleted
project open cannot touch the files of a new one of the same name.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from ..errors import BadRequest, NameTaken, OwnModelError, ProjectFull, UnknownProject
from ..model.own_format import NAME
from ..model.own_models import check_name
from ..writing import filling, sweep
from . import database

SUFFIX = ".sqlite"
_REMOVED = ".removed-"
# Folders of copies that are about to be sent; they exist while the lock is held.
LEAVING = ".leaving-"


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
            raise database.problem_of_folder(error, self.root) from error

    def path(self, name: str) -> Path:
        """Return the file of a project; raises UnknownProject."""
        if NAME.fullmatch(name):
            found = sorted((self.root / name).glob(f"*{SUFFIX}"))
            if found:
                return found[0]
        raise UnknownProject(f"There is no project named '{name[:64]}'.")

    def create(self, name: str, fill: Callable[[Path], None]) -> Path:
        """Create a project, whose file `fill` writes, and return the file; it appears as a whole or not at all.

        Raises NameTaken if there is one of this name, BadRequest for a name that cannot be used, and ProjectFull and
        ProjectsUnavailable.
        """
        try:
            check_name(name)
        except OwnModelError as error:
            raise BadRequest(str(error).replace("A model", "A project", 1)) from error
        try:
            with self.locked():
                self._refuse_twin(name)
                with filling(self.root / name) as unfinished:
                    unfinished.chmod(0o700)
                    fill(unfinished / f"{secrets.token_hex(8)}{SUFFIX}")
        except OSError as error:
            raise database.problem_of_folder(error, self.root) from error
        return self.path(name)

    def delete(self, name: str) -> None:
        """Delete a project with all its photos; raises UnknownProject."""
        self.path(name)
        try:
            with self.locked():
                self.path(name)  # another request may have deleted it by now
                gone = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=self.root))
                os.rename(self.root / name, gone)
                shutil.rmtree(gone)
        except OSError as error:
            raise database.problem_of_folder(error, self.root) from error

    def locked(self) -> AcquireReturnProxy[FileLock]:
        """Lock the folder, which is made if it is missing; to be used in a `with` statement.

        Raises OSError, and Overloaded if others hold the lock for longer than `BUSY_SECONDS`.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock = FileLock(self.root / ".lock").acquire(timeout=database.BUSY_SECONDS)
        except Timeout as error:
            raise database.busy() from error
        self._sweep()
        return lock

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
        """Raise ProjectFull if `size` more bytes are not allowed."""
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

    def _sweep(self) -> None:
        """Remove what a killed process has left; called with the lock."""
        sweep(self.root)
        for prefix in (_REMOVED, LEAVING):
            for left in self.root.glob(f"{prefix}*"):
                shutil.rmtree(left, ignore_errors=True)

"""Models of one's own on disk: how their versions are written, chosen, read and removed.

A version is a folder `NAME/VERSION/` with the files of `own_format`; versions are numbered 1, 2, 3 and so on. It
appears as a whole, by one rename, and never changes. The newest one is in use, unless a file `pinned` beside it names
another. The weights of a fine-tuned model are not read with it: only their size is checked.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from ..errors import OwnModelError
from ..writing import alone_in, filling, replacing, sweep
from .heads import Floats
from .own_format import (
    DESCRIPTION,
    FILES,
    MAX_BYTES,
    NAME,
    TRUNK,
    OwnModel,
    Trunk,
    files_of,
    parse_version,
    save_trunk,
    verify_trunk,
)
from .records import RECORDS

PINNED = "pinned"
MAX_VERSIONS = 5
_MAX_PIN_BYTES = 20
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
# Their owners are gone if the lock is free: a killed process leaves them.
_REMOVED = ".removed-"


@dataclass(frozen=True)
class Listed:
    """A model of a folder of models: its versions, the one in use, and its content or why that cannot be used."""

    name: str
    versions: tuple[int, ...]
    version: int | None
    found: OwnModel | OwnModelError


def check_name(name: str) -> str:
    """Return a name that a model of one's own may have; raises OwnModelError for any other."""
    if not NAME.fullmatch(name):
        raise OwnModelError(
            f"A model cannot be named {name[:64]!r}: a name has up to 64 of the letters a to z and A to Z, digits, "
            "_ and -, and begins with a letter or digit."
        )
    if name in RECORDS:
        raise OwnModelError(f"A model cannot be named {name}: a published model has that name.")
    return name


def list_names(root: Path) -> list[str]:
    """Return the names of all models that have a version; an absent folder has none.

    Raises OwnModelError if the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(root) if NAME.fullmatch(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OwnModelError(f"The folder of models {root} cannot be read: {error.strerror}.") from error
    return [name for name in names if name not in RECORDS and _has_version(root / name)]


def _has_version(folder: Path) -> bool:
    try:
        return bool(_versions(folder))
    except PermissionError:  # reading it says what is wrong
        return True
    except OSError:  # it was removed
        return False


def list_versions(root: Path, name: str) -> list[int]:
    """Return a model's versions, the oldest first; raises OwnModelError if it cannot be read or has none."""
    try:
        found = _versions(root / check_name(name))
    except FileNotFoundError:
        found = []
    except OSError as error:
        raise OwnModelError(f"The model {name} in {root} cannot be read: {error.strerror}.") from error
    if not found:
        raise OwnModelError(f"There is no model named {name} in {root}.")
    return found


def _versions(folder: Path) -> list[int]:
    return sorted(int(entry.name) for entry in os.scandir(folder) if _VERSION.fullmatch(entry.name) and entry.is_dir())


def version_in_use(root: Path, name: str) -> int:
    """Return the version that serves: the newest, or the one that `use_version` chose."""
    versions = list_versions(root, name)
    try:
        text = _read(root / name, PINNED).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return versions[-1]
    except OSError as error:
        raise OwnModelError(f"{root / name / PINNED} cannot be read: {error.strerror}.") from error
    if not (_VERSION.fullmatch(text) and int(text) in versions):
        raise OwnModelError(
            f"{root / name / PINNED} names a version of {name} that does not exist: "
            f"choose one with 'topthree models use {name} VERSION'."
        )
    return int(text)


def list_models(root: Path) -> Iterator[Listed]:
    """Read every model in the version that is in use, one at a time and in the order of their names."""
    return (_list_one(root, name) for name in list_names(root))


def _list_one(root: Path, name: str) -> Listed:
    versions: tuple[int, ...] = ()
    version = None
    try:
        versions = tuple(list_versions(root, name))
        version = version_in_use(root, name)
        return Listed(name, versions, version, read_version(root, name, version))
    except OwnModelError as error:
        return Listed(name, versions, version, error)


def read_version(root: Path, name: str, version: int | None = None) -> OwnModel:
    """Read a version of a model, by default the one in use.

    The folder's name and number count, not those in `model.json`, so that a folder may be renamed. Raises
    OwnModelError, in one sentence, if it is missing, damaged or of a newer format.
    """
    number = version_in_use(root, name) if version is None else version
    folder = root / check_name(name) / str(number)
    try:
        content = {file: _read(folder, file) for file in FILES}
    except OSError as error:
        if number in list_versions(root, name):
            raise OwnModelError(f"{folder} cannot be read: {error.filename}: {error.strerror}.") from error
        raise OwnModelError(f"The model {name} in {root} has no version {number}.") from error
    found = parse_version(content, str(folder), name=name, version=number)
    return found if found.trunk is None else dataclasses.replace(found, trunk=_find_trunk(folder, found.trunk))


def _find_trunk(folder: Path, trunk: Trunk) -> Trunk:
    """Return the trunk with its path; raises OwnModelError for a file that is missing or has another size."""
    path = folder / TRUNK
    try:
        found = os.stat(path)
    except OSError as error:
        raise OwnModelError(f"{path} cannot be read: {error.strerror}.") from error
    if not S_ISREG(found.st_mode):
        raise OwnModelError(f"{path} is not a file.")
    if found.st_size != trunk.size_bytes:
        raise OwnModelError(
            f"{path} is damaged: it has {found.st_size:,} bytes, and {DESCRIPTION} names {trunk.size_bytes:,}."
        )
    return dataclasses.replace(trunk, path=path)


def _read(folder: Path, name: str) -> bytes:
    """Read a file that is no larger than it may be; raises OSError, and OwnModelError for one that is."""
    # Opening a named pipe would otherwise wait for a writer.
    with open(os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not S_ISREG(found.st_mode):
            raise OwnModelError(f"{folder / name} is not a file.")
        limit = MAX_BYTES.get(name, _MAX_PIN_BYTES)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OwnModelError(f"{folder / name} is larger than {limit:,} bytes.")
    return data


def write_version(root: Path, name: str, model: OwnModel, trunk: Mapping[str, Floats] | None = None) -> int:
    """Write a model as the next version of a name, which is in use from then on, and return its number.

    `trunk` are the float32 tensors of a fine-tuned model's backbone without its published head, by the names of its
    state dict. The version appears as a whole or not at all; the oldest versions beyond `MAX_VERSIONS` are removed.
    Processes that write at the same time take turns. Raises OwnModelError if the name cannot be used, if the model
    could not be read back, or if the folder cannot be written.
    """
    check_name(name)
    with _alone_in(root):
        _refuse_twin(root, name)
        folder = root / name
        _sweep(root, folder)
        version = max(_versions(folder), default=0) + 1 if folder.is_dir() else 1
        try:
            _publish(folder, version, model, trunk)
            (folder / PINNED).unlink(missing_ok=True)
        except OSError as error:
            raise OwnModelError(f"{folder} cannot be written: {error.strerror or error}.") from error
        finally:
            with suppress(OSError):  # it is not empty if it holds a version
                folder.rmdir()
        for old in _versions(folder)[:-MAX_VERSIONS]:
            _discard(folder / str(old))
    return version


def _refuse_twin(root: Path, name: str) -> None:
    """Refuse a name that differs from another only in case: some file systems take both for one."""
    twin = next((other for other in list_names(root) if other != name and other.casefold() == name.casefold()), None)
    if twin is not None:
        raise OwnModelError(f"A model cannot be named {name}: there is one named {twin} in {root}.")


def _publish(folder: Path, version: int, model: OwnModel, trunk: Mapping[str, Floats] | None) -> None:
    """Write a version's folder; raises OwnModelError, and leaves nothing, for a model that could not be read back."""
    folder.mkdir(exist_ok=True)
    with filling(folder / str(version)) as unfinished:
        model = dataclasses.replace(model, trunk=None)
        if trunk is not None:
            model = dataclasses.replace(model, trunk=save_trunk(trunk, unfinished / TRUNK))
            with (unfinished / TRUNK).open("rb") as file:
                os.fsync(file.fileno())
        content = files_of(model, folder.name, version)
        parse_version(content, str(folder / str(version)), name=folder.name, version=version)
        for name, data in content.items():
            with (unfinished / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # a full disk may show only here


def use_version(root: Path, name: str, version: int) -> OwnModel:
    """Let a version serve until another is chosen or written, and return it.

    Raises OwnModelError if it cannot be read, or if the choice cannot be written.
    """
    found = read_version(root, name, version)
    if found.trunk is not None:
        verify_trunk(found.trunk)
    with _alone_in(root):
        try:
            with replacing(root / name / PINNED, 0o644, is_synced=True) as file:
                file.write(f"{version}\n".encode())
        except OSError as error:
            raise OwnModelError(f"{root / name} cannot be written: {error.strerror}.") from error
    return found


def remove(root: Path, name: str, version: int | None = None) -> None:
    """Remove a version of a model, or the whole model; the last version that is removed takes the model with it.

    Raises OwnModelError if there is no such version or if it cannot be removed.
    """
    with _alone_in(root):
        versions = list_versions(root, name)
        if version is not None and version not in versions:
            raise OwnModelError(f"The model {name} in {root} has no version {version}.")
        folder = root / name
        try:
            if version is None or versions == [version]:
                _discard(folder)
                return
            if (folder / PINNED).exists() and version_in_use(root, name) == version:
                (folder / PINNED).unlink()
            _discard(folder / str(version))
        except OSError as error:
            raise OwnModelError(f"{folder} cannot be removed: {error.strerror}.") from error


def _discard(folder: Path) -> None:
    """Remove a folder so that no reader finds a part of it."""
    gone = folder.parent / f"{_REMOVED}{secrets.token_hex(8)}"
    os.rename(folder, gone)  # which a full disk has room for
    shutil.rmtree(gone)


def _sweep(*folders: Path) -> None:
    """Remove what a killed process has left; to be called with the lock held."""
    for folder in folders:
        sweep(folder)
        for left in folder.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)


def _alone_in(root: Path) -> AbstractContextManager[object]:
    """Lock the folder of models as `alone_in` does; raises OwnModelError."""
    try:
        return alone_in(root)
    except OSError as error:
        raise OwnModelError(f"The folder of models {root} cannot be written: {error.strerror or error}.") from error

"""The files of tuning, by which a run that was killed goes on: decisions, snapshots of epochs, a checkpoint.

All of it lies in one folder of the cache and belongs to one set of photos, backbone and options, which its fingerprint
says. Each file appears as a whole; tensors are kept as safetensors, never as a pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ..model.room import not_writable
from ..writing import replacing
from .photosets import PhotoSetError

Tensors = Mapping[str, torch.Tensor]
Value = TypeVar("Value")

_JOURNAL = "journal.json"
_CHECKPOINT = "checkpoint.safetensors"
_SEPARATOR = ":"


class Journal:
    """The folder of one run, which goes on if `is_resumed`. `once` decides only if an earlier, killed run has not."""

    def __init__(self, folder: Path, fingerprint: str, *, resume: bool) -> None:
        self.folder = folder
        self._values: dict[str, Any] = {"fingerprint": fingerprint}
        self.is_resumed = False
        if resume:
            self._read(fingerprint)
        else:
            remove_run(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.glob(".*"):  # files that a killed run was writing
                left.unlink()
        except OSError as error:
            raise PhotoSetError(not_writable(folder, error)) from error
        self._write()

    def _read(self, fingerprint: str) -> None:
        path = self.folder / _JOURNAL
        try:
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            return  # killed before it had begun, or never begun
        except (OSError, ValueError, RecursionError) as error:
            raise self.damage(_JOURNAL) from error
        if not isinstance(values, dict) or values.get("fingerprint") != fingerprint:
            raise PhotoSetError(
                f"The checkpoint in {self.folder} is of other photos, another backbone or other options: "
                "leave out --resume to begin again."
            )
        self._values, self.is_resumed = values, True

    def _write(self) -> None:
        self.write_file(_JOURNAL, (json.dumps(self._values, indent=1) + "\n").encode())

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file of the folder as a whole; raises PhotoSetError if the disk is full."""
        try:
            with replacing(self.folder / name, 0o600) as out:
                out.write(data)
        except OSError as error:
            raise PhotoSetError(not_writable(self.folder, error)) from error

    def once(self, name: str, kind: type[Value], decide: Callable[[], object]) -> Value:
        """Return the decision of this name, or decide now and write it down; raises PhotoSetError as `noted` does."""
        if name not in self._values:
            self.note(name, decide())
        return self._checked(name, kind)

    def note(self, name: str, value: object) -> None:
        """Write a value for JSON down, in place of an earlier one."""
        self._values[name] = value
        self._write()

    def noted(self, name: str, kind: type[Value]) -> Value | None:
        """Return the value that was written down under a name, None if there is none.

        Raises PhotoSetError if it is of another kind: the file was changed.
        """
        return self._checked(name, kind) if name in self._values else None

    def _checked(self, name: str, kind: type[Value]) -> Value:
        try:
            return msgspec.convert(self._values[name], kind)
        except msgspec.ValidationError as error:
            raise self.damage(_JOURNAL) from error

    def save_snapshot(self, phase: str, number: int, tensors: Tensors) -> None:
        """Keep the network as it was after an epoch."""
        self.write_file(_snapshot(phase, number), save(_contiguous(tensors)))

    def snapshot(self, phase: str, number: int) -> dict[str, torch.Tensor]:
        """Read the network after an epoch; raises PhotoSetError if it is damaged."""
        return self._load(_snapshot(phase, number))

    def prune(self, phase: str, keep: Iterable[int]) -> None:
        """Remove the snapshots of a phase, except those of some epochs."""
        kept = {_snapshot(phase, number) for number in keep}
        for path in self.folder.glob(f"{_stem(phase)}-*.safetensors"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def save_checkpoint(self, phase: str, number: int, network: Tensors, optimizer: Mapping[str, Any]) -> None:
        """Keep all that the next epoch of a phase begins with."""
        tensors = {f"network{_SEPARATOR}{name}": value for name, value in network.items()}
        for place, state in optimizer["state"].items():
            tensors |= {f"optimizer{_SEPARATOR}{place}{_SEPARATOR}{name}": value for name, value in state.items()}
        tensors[f"epoch{_SEPARATOR}{phase}"] = torch.tensor(number)
        self.write_file(_CHECKPOINT, save(_contiguous(tensors)))

    def checkpoint(self, phase: str) -> tuple[int, dict[str, torch.Tensor], dict[int, dict[str, torch.Tensor]]] | None:
        """Return the last epoch of a phase that was kept, the network and the optimiser's state; None without one.

        Raises PhotoSetError if it is damaged.
        """
        if not (self.folder / _CHECKPOINT).exists():
            return None
        tensors = self._load(_CHECKPOINT)
        number = tensors.get(f"epoch{_SEPARATOR}{phase}")
        if number is None:
            return None
        network: dict[str, torch.Tensor] = {}
        states: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(_SEPARATOR)
            if kind == "network":
                network[rest] = value
            elif kind == "optimizer":
                place, _, part = rest.partition(_SEPARATOR)
                if not place.isdecimal():
                    raise self.damage(_CHECKPOINT)
                states.setdefault(int(place), {})[part] = value
        return int(number), network, states

    def _load(self, name: str) -> dict[str, torch.Tensor]:
        try:
            return load((self.folder / name).read_bytes())
        except (OSError, SafetensorError) as error:
            raise self.damage(name) from error

    def damage(self, name: str = "") -> PhotoSetError:
        """Return the problem of a file of the folder that cannot be used, or of the folder."""
        return PhotoSetError(f"{self.folder / name} is damaged: leave out --resume to begin again.")


def remove_run(folder: Path) -> None:
    """Remove the folder of a run; the next run overwrites files that cannot be removed."""
    shutil.rmtree(folder, ignore_errors=True)


def _stem(phase: str) -> str:
    return phase.replace(" ", "-")


def _snapshot(phase: str, number: int) -> str:
    return f"{_stem(phase)}-{number}.safetensors"


def _contiguous(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

"""Reading state dicts from weights files, also wrapped or prefixed ones, and ones with a custom head."""

from __future__ import annotations

import argparse
import io
import pickle
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping

import safetensors
import safetensors.torch
import torch

from ...errors import WeightsError
from ..digests import bytes_sha256
from ..weights import Weights

State = dict[str, torch.Tensor]

# Reading damaged or hostile bytes raises any of these: a pickle can fail at any of its instructions.
_UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.PickleError,
    safetensors.SafetensorError,
    struct.error,
)
# Training scripts keep the weights under one of these keys, beside the optimiser's state.
_WRAPPINGS = ("state_dict", "model_state_dict", "model")
# Left by DataParallel, torch.compile, Lightning and classes around a network.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "net.")
# A class around a backbone may have its head beside it.
_MAX_UNPREFIXED = 2
_MAX_NAMED_OBJECTS = 3

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<\?xml)", re.IGNORECASE)
_FIRST_CLASS = re.compile(rb"c([\w.]+)\n(\w+)\n")  # the pickle's instruction GLOBAL
_MODULE = re.compile(rb"ctorch\.nn\.modules\.\w+\n\w+\n")


def read_state(weights: Weights) -> State:
    """Read a weights file once, so that the bytes that were hashed are loaded, and take the state dict out of it.

    Raises WeightsError, in one sentence, for a file that was replaced after it was verified, is damaged, or is no
    state dict.
    """
    path, content = weights.path, _read_verified(weights)
    _refuse_other_files(weights, content)
    try:
        if path.suffix.lower() == ".safetensors":
            loaded: object = safetensors.torch.load(content)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # the options of training scripts
                loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(_why_unreadable(weights, content)) from error
    if isinstance(loaded, Mapping):
        loaded = next((loaded[key] for key in _WRAPPINGS if isinstance(loaded.get(key), Mapping)), loaded)
    state = dict(loaded) if isinstance(loaded, Mapping) else {}
    if not state or not all(isinstance(key, str) and isinstance(state[key], torch.Tensor) for key in state):
        raise WeightsError(f"{path} is not a state dict of tensors.")
    _refuse_integers(weights, state)
    return _without_prefixes(state)


def _without_prefixes(state: State) -> State:
    """Remove all prefixes that wrappers put before every name; a head beside a backbone keeps its name."""
    while True:
        prefix = next((each for each in _PREFIXES if _is_common(each, state)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): value for name, value in state.items()}


def _is_common(prefix: str, names: Iterable[str]) -> bool:
    with_it = [name for name in names if name.startswith(prefix)]
    others = {name for name in names if not name.startswith(prefix)}
    stripped = {name.removeprefix(prefix) for name in with_it}
    return bool(with_it) and len(others) <= min(_MAX_UNPREFIXED, len(with_it) - 1) and not stripped & others


def with_own_head(state: State, classifier: str) -> State:
    """Rename the last layer to `classifier` if it is part of a head of `Dropout, Linear`, or is the whole head.

    `fc.1.weight` becomes `fc.weight`; of a head `classifier.1`, so does `classifier.weight`.
    """
    if f"{classifier}.weight" in state:
        return state
    root = classifier.partition(".")[0]
    inside = re.compile(rf"{re.escape(classifier)}\.\d+")
    found = {name.rpartition(".")[0] for name in state if name.startswith(root) and name.endswith(".weight")}
    own = [name for name in found if inside.fullmatch(name) or name == root]
    if len(own) != 1:
        return state
    return {
        f"{classifier}.{name.rpartition('.')[2]}" if name.rpartition(".")[0] == own[0] else name: value
        for name, value in state.items()
    }


def _read_verified(weights: Weights) -> bytes:
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{weights.path} cannot be read: {error.strerror or error}.") from error
    if bytes_sha256(content) != weights.sha256:
        raise WeightsError(f"{weights.path} was changed after its SHA-256 had been checked; start again.")
    return content


def _refuse_other_files(weights: Weights, content: bytes) -> None:
    path = weights.path
    if content.startswith(_LFS_POINTER):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file itself: run 'git lfs pull' where it came from.")
    if _PAGE.match(content[:200]):
        raise WeightsError(f"{path} is a web page, not a weights file: download it again, from its own address.")
    members = _zip_members(content)
    if any(re.search(r"(^|/)code/", name) for name in members):
        raise WeightsError(
            f"{path} is a TorchScript archive: save its weights, torch.jit.load(FILE).state_dict(), instead."
        )
    if any(name.endswith(("models/model.json", "serialized_exported_program.json")) for name in members):
        raise WeightsError(
            f"{path} is an exported program: save its weights, torch.export.load(FILE).state_dict, instead."
        )


def _zip_members(content: bytes) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.namelist()
    except (ValueError, NotImplementedError, OSError, zipfile.BadZipFile):
        return []


def _why_unreadable(weights: Weights, content: bytes) -> str:
    if _MODULE.search(content):
        found = _FIRST_CLASS.search(content)
        name = ".".join(part.decode("ascii", "replace") for part in found.groups()) if found else "a module"
        return (
            f"{weights.path} is a whole pickled model ({name}), whose code would run when it is read: "
            "save model.state_dict() instead."
        )
    others = _other_objects(content)
    if others:
        return (
            f"{weights.path} holds more than weights ({', '.join(others)}), whose code would run when it is read: "
            "save {'state_dict': model.state_dict()} alone instead."
        )
    return f"{weights.path} is not a weights file: it is damaged, or holds more than weights."


def _other_objects(content: bytes) -> list[str]:
    """Return some of the classes and functions that reading a file would call; none for damaged and older files."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    except _UNREADABLE:
        return []
    return sorted(set(names) - {"argparse.Namespace"})[:_MAX_NAMED_OBJECTS]


def _refuse_integers(weights: Weights, state: Mapping[str, torch.Tensor]) -> None:
    for name, value in state.items():
        if name.endswith("weight") and not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise WeightsError(
                f"{weights.path} holds integer weights ({name} is {kind}): save those of the model before it was "
                "quantised; 'topthree prepare --precision int8' makes 8-bit ones of them."
            )

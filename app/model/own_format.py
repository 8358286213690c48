"""The content of a model of one's own: a head on a backbone, read from and written to the bytes of three files.

`head.safetensors` holds the tensors `weight` and `bias`, `labels.csv` the classes as `labels` reads them, and
`model.json` the rest, with the number of its format. A fine-tuned model has a fourth file, `weights.safetensors`, with
the tensors of its trunk: the backbone without its published head, by the names of its state dict. `model.json` holds
the digest and the size of that file, which is too large to be read wherever a model is. There is never a pickle.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save, save_file

from ..errors import LabelsError, OwnModelError
from .calibration import Calibration
from .digests import bytes_sha256, file_sha256
from .heads import Floats
from .labels import Label, parse_labels, write_labels

# A head with centres has the later format, since earlier versions would ignore the centres; a fine-tuned
# model has the last one, since earlier versions would take its head for one on the published backbone.
FORMAT, FORMAT_WITH_CENTRES, FORMAT_TUNED = 1, 2, 3
HEAD, LABELS, DESCRIPTION = "head.safetensors", "labels.csv", "model.json"
FILES = (HEAD, LABELS, DESCRIPTION)
TRUNK = "weights.safetensors"
# A head of 5,000 classes on 2,048 channels has 82 MB with its centres, and the largest backbone of our table 0.8 GB.
MAX_BYTES = {HEAD: 128 * 2**20, LABELS: 4 * 2**20, DESCRIPTION: 2**20, TRUNK: 2 * 2**30}
MAX_NAME = 64
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}")

Kind = TypeVar("Kind")
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]


@dataclass(frozen=True)
class Accuracy:
    """The share of photos whose class came first, in percent, and its 95% interval."""

    top1: Percent
    low: Percent
    high: Percent


@dataclass(frozen=True)
class Trunk:
    """The weights file of a fine-tuned model: its digest and size, and where it lies.

    `path` is None if there is no such file here: a bundle holds the graph that was made from it.
    """

    sha256: str
    size_bytes: int
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """A head on a backbone, and how it was made.

    logits = `weight` @ (e / ||e||) + `bias`, with e the spatial mean (channels) of the backbone's features;
    `weight` is float32 (classes, channels) and `bias` float32 (classes). `weights_sha256` is the digest of the
    backbone's weights file, `data_sha256` that of the photos and their labels, `photos` their number. `created` is a
    time in UTC, as ISO 8601 writes it. `accuracy` and `calibration` are None if they were not measured. `name`,
    `version` and `sha256`, the digest of the head's file, are set by reading. `centres` is float32 (classes,
    channels), the mean of each class's embeddings of length 1, if the rejection score is measured by them, else None.
    `trunk` is set for a fine-tuned model, whose features are those of its own weights; `backbone` and `weights_sha256`
    are then those that the tuning began from.
    """

    weight: Floats = field(repr=False)
    bias: Floats = field(repr=False)
    labels: tuple[Label, ...] = field(repr=False)
    backbone: str
    weights_sha256: str
    recipe: Mapping[str, Any]
    seed: int
    data_sha256: str
    photos: int
    accuracy: Accuracy | None
    calibration: Calibration | None
    created: str
    name: str = ""
    version: int = 0
    sha256: str = ""
    centres: Floats | None = field(default=None, repr=False)
    trunk: Trunk | None = None

    @property
    def features_sha256(self) -> str:
        """Return the digest of the weights that the head is on: the backbone's, or those of a fine-tuned model."""
        return self.trunk.sha256 if self.trunk else self.weights_sha256


class _Backbone(msgspec.Struct):
    name: str
    weights_sha256: Sha256


class _Weights(msgspec.Struct):
    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(gt=0, le=MAX_BYTES[TRUNK])]


class _Description(msgspec.Struct, omit_defaults=True):
    """The members of `model.json`; others are ignored."""

    format: int
    name: str
    version: int
    backbone: _Backbone
    recipe: dict[str, Any]
    seed: int
    data_sha256: str
    photos: int
    accuracy: Accuracy | None
    calibration: dict[str, Any] | None
    created: str
    weights: _Weights | None = None


class _Format(msgspec.Struct):
    format: int


class _NameAndVersion(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(pattern=rf"\A{NAME.pattern}\Z")]
    version: Annotated[int, msgspec.Meta(ge=1)]


def parse_version(content: Mapping[str, bytes], where: str, *, name: str, version: int) -> OwnModel:
    """Read the bytes of a version's three files, by their names; messages call the place `where`.

    Raises OwnModelError, in one sentence, if one is damaged or of a newer format.
    """
    try:
        described = _describe(content[DESCRIPTION], where)
        calibration = None if described.calibration is None else Calibration.from_json(described.calibration)
        tensors = load(content[HEAD])
        labels = parse_labels(content[LABELS], f"{where}/{LABELS}")
    except LabelsError as error:
        raise OwnModelError(str(error)) from error
    except (SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise OwnModelError(f"{where} is damaged: {str(error).rstrip('.') or type(error).__name__}.") from error
    _check_tensors(tensors, len(labels), where)
    return OwnModel(
        weight=tensors["weight"],
        bias=tensors["bias"],
        labels=labels,
        backbone=described.backbone.name,
        weights_sha256=described.backbone.weights_sha256,
        recipe=described.recipe,
        seed=described.seed,
        data_sha256=described.data_sha256,
        photos=described.photos,
        accuracy=described.accuracy,
        calibration=calibration,
        created=described.created,
        name=name,
        version=version,
        sha256=bytes_sha256(content[HEAD]),
        centres=tensors.get("centres"),
        trunk=Trunk(described.weights.sha256, described.weights.bytes) if described.weights else None,
    )


def name_and_version(content: Mapping[str, bytes]) -> tuple[str, int]:
    """Return the name and the version that the files of a version say they have; raises ValueError if they do not."""
    found = _decode(content.get(DESCRIPTION, b""), _NameAndVersion)
    return found.name, found.version


def _decode(text: bytes, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError as error:
        raise ValueError(f"{DESCRIPTION} is not valid: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{DESCRIPTION} is nested too deeply") from error


def _describe(text: bytes, where: str) -> _Description:
    """Read `model.json`; raises OwnModelError for a newer format, and ValueError for what is not valid."""
    made = _decode(text, _Format).format
    if made > FORMAT_TUNED:
        raise OwnModelError(
            f"{where} has format {made}, and this version of topthree reads up to format {FORMAT_TUNED}: "
            "install a newer one."
        )
    found = _decode(text, _Description)
    if (made == FORMAT_TUNED) != (found.weights is not None):
        raise ValueError(f"{DESCRIPTION} has no valid weights")
    return found


def _check_tensors(tensors: Mapping[str, Any], classes: int, where: str) -> None:
    if tensors.keys() - {"centres"} != {"weight", "bias"} or any(
        tensor.dtype != np.float32 for tensor in tensors.values()
    ):
        raise OwnModelError(f"{where} is damaged: {HEAD} must hold weight and bias as float32.")
    weight, bias = tensors["weight"], tensors["bias"]
    if weight.ndim != 2 or not weight.size or bias.shape != (len(weight),):
        raise OwnModelError(f"{where} is damaged: weight and bias of {HEAD} do not fit.")
    if len(weight) != classes:
        raise OwnModelError(f"{where} is damaged: its head has {len(weight)} classes, and {LABELS} names {classes}.")
    centres = tensors.get("centres", weight)
    if centres.shape != weight.shape:
        raise OwnModelError(f"{where} is damaged: weight and centres of {HEAD} do not fit.")
    if not all(np.isfinite(tensor).all() for tensor in (weight, bias, centres)):
        raise OwnModelError(f"{where} is damaged: {HEAD} holds numbers that are not finite.")


def files_of(model: OwnModel, name: str, version: int) -> dict[str, bytes]:
    """Return the bytes of a version's files by their names; the same model makes the same bytes."""
    described = _Description(
        format=_format_of(model),
        name=name,
        version=version,
        backbone=_Backbone(model.backbone, model.weights_sha256),
        recipe=dict(model.recipe),
        seed=model.seed,
        data_sha256=model.data_sha256,
        photos=model.photos,
        accuracy=model.accuracy,
        calibration=model.calibration.as_json() if model.calibration else None,
        created=model.created,
        weights=_Weights(model.trunk.sha256, model.trunk.size_bytes) if model.trunk else None,
    )
    tensors = {
        "weight": np.ascontiguousarray(model.weight, np.float32),
        "bias": np.ascontiguousarray(model.bias, np.float32),
    }
    if model.centres is not None:
        tensors["centres"] = np.ascontiguousarray(model.centres, np.float32)
    return {
        HEAD: save(tensors),
        LABELS: write_labels(model.labels),
        DESCRIPTION: msgspec.json.format(msgspec.json.encode(described), indent=1) + b"\n",
    }


def _format_of(model: OwnModel) -> int:
    if model.trunk is not None:
        return FORMAT_TUNED
    return FORMAT if model.centres is None else FORMAT_WITH_CENTRES


def save_trunk(tensors: Mapping[str, Floats], path: Path) -> Trunk:
    """Write the tensors of a fine-tuned model's trunk, by their names, as a file of safetensors.

    The same tensors make the same bytes. Raises OwnModelError for tensors that could not be loaded again, and OSError.
    """
    if not tensors:
        raise OwnModelError("The fine-tuned weights hold no tensor.")
    for name, each in tensors.items():
        if each.dtype != np.float32 or not np.isfinite(each).all():
            raise OwnModelError(
                f"The fine-tuned weights cannot be kept: {name} holds other than finite float32 numbers."
            )
    if sum(each.nbytes for each in tensors.values()) > MAX_BYTES[TRUNK] - MAX_BYTES[DESCRIPTION]:
        raise OwnModelError(f"The fine-tuned weights are larger than {MAX_BYTES[TRUNK]:,} bytes.")
    try:
        save_file({name: np.ascontiguousarray(each) for name, each in tensors.items()}, path)
    except SafetensorError as error:  # it reports a full disk so
        raise OSError(errno.EIO, " ".join(str(error).split()) or "it cannot be written") from error
    path.chmod(0o644)  # safetensors makes it private, and the service may run as another user
    return Trunk(file_sha256(path), path.stat().st_size, path)


def verify_trunk(trunk: Trunk) -> Path:
    """Return the path of a fine-tuned model's weights; raises OwnModelError if they are not those of `model.json`.

    The whole file is read, which takes a second for each gigabyte.
    """
    assert trunk.path is not None
    try:
        digest = file_sha256(trunk.path)
    except OSError as error:
        raise OwnModelError(f"{trunk.path} cannot be read: {error.strerror}.") from error
    if digest != trunk.sha256:
        raise OwnModelError(f"{trunk.path} is damaged: its SHA-256 is not the one that {DESCRIPTION} names.")
    return trunk.path

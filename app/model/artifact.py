"""The prepared model: weights turned once into a graph that serving loads without torch.

An artifact is a folder in the cache with the OpenVINO graph (`model.xml`, `model.bin`: uint8 pixels in, logits
and features out, normalisation folded in), the classifier's weight matrix (`classifier.npy`) and
`manifest.json`. Its name holds all that it depends on, so that a change of any makes a new one.
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from ..settings import ROOT, Settings
from .digests import bytes_sha256
from .weights import (
    EFFICIENTNET_LITE0,
    PACKAGED,
    RESNET18,
    ModelRecord,
    Weights,
    cached_candidates,
    fallback_in_use,
    find_weights,
)

if TYPE_CHECKING:
    from .download import Progress

log = logging.getLogger(__name__)

PREPARE_VERSION = 1
MANIFEST = "manifest.json"
FILES = ("model.xml", "model.bin", "classifier.npy")


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself; `files` are the SHA-256 of its parts, `accuracy` what was measured."""

    name: str
    weights_sha256: str
    precision: str
    classes: int
    preprocessing: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]
    accuracy: dict[str, Any] | None = None


@dataclass(frozen=True)
class Prepared:
    """A verified artifact, the weights that it was made from, and the names of its classes (None: ImageNet's).

    `content` holds the bytes of `FILES` that were verified: they are what is to be loaded, since the files may be
    replaced at any time.
    """

    folder: Path
    manifest: Manifest
    weights: Weights
    content: Mapping[str, bytes] = field(repr=False)
    labels: Path | bytes | None = None


def artifact_folder(cache: Path, record: ModelRecord, weights_sha256: str, family: str) -> Path:
    """Name the artifact of these weights; `family` is 'fp32' (which bf16 uses too) or 'int8'."""
    version = importlib.metadata.version("openvino")
    return cache / "prepared" / f"{record.name}-{weights_sha256[:16]}-{family}-openvino{version}-{PREPARE_VERSION}"


def precision_family(precision: str) -> str:
    """Tell which artifact a precision is computed from."""
    return "int8" if precision == "int8" else "fp32"


def identify_weights(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Find which weights serve, as `find_weights` does, but content with their artifact where they are gone."""
    if settings.weights is not None:
        return find_weights(settings, progress=progress)
    artifact = prepared_weights(settings, RESNET18, "prepared model")
    if artifact is not None:
        return artifact
    reason = fallback_in_use(settings)
    if reason is not None and not any(found.weights for found in cached_candidates(settings)):
        artifact = prepared_weights(settings, EFFICIENTNET_LITE0, PACKAGED, reason)
    return artifact or find_weights(settings, progress=progress)


def prepared_weights(settings: Settings, record: ModelRecord, source: str, reason: str = "") -> Weights | None:
    """Take a published model's artifact in the place of its weights, or return None where it is not prepared."""
    folder = artifact_folder(settings.cache, record, record.sha256, precision_family(settings.precision))
    return Weights(folder, record.sha256, record, source, reason) if (folder / MANIFEST).is_file() else None


def open_prepared(settings: Settings, weights: Weights) -> Prepared | None:
    """Open and verify the artifact of these weights; None where there is none or it is damaged."""
    folder = artifact_folder(settings.cache, weights.record, weights.sha256, precision_family(settings.precision))
    if not (folder / MANIFEST).is_file():
        return None
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
        content = read_files(folder)
        damaged = [name for name in FILES if bytes_sha256(content[name]) != manifest.files[name]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("The prepared model %s is damaged: %s.", folder, error)
        return None
    if damaged:
        log.warning("The prepared model %s is damaged: %s.", folder, ", ".join(damaged))
        return None
    return Prepared(folder, manifest, weights, content, settings.labels)


def read_files(folder: Path) -> dict[str, bytes]:
    """Read the files of an artifact, each once."""
    return {name: (folder / name).read_bytes() for name in FILES}


def ensure_prepared(settings: Settings, *, weights: Weights | None = None) -> Prepared:
    """Open the artifact to serve; if there is none, prepare it first in a process of its own.

    `weights` are those that `identify_weights` found, for a caller that has asked already. Raises WeightsError with
    the reason if that cannot be done.
    """
    weights = weights or identify_weights(settings)
    prepared = open_prepared(settings, weights)
    if prepared is None:
        _prepare_in_subprocess(settings, weights)
        prepared = open_prepared(settings, weights)
    if prepared is None:
        raise WeightsError(f"The prepared model of {weights.record.name} is damaged again right after it was made.")
    return prepared


def _prepare_in_subprocess(settings: Settings, weights: Weights) -> None:
    if precision_family(settings.precision) == "int8":
        raise WeightsError(
            f"No int8 model of {weights.record.name} is prepared. Make one from photos like those it will see: "
            "topthree prepare --precision int8 --calibrate FOLDER"
        )
    if importlib.util.find_spec("torch") is None:
        raise WeightsError(
            f"No prepared model of {weights.record.name} is in {settings.cache}, and torch, which makes it, "
            "is not installed."
        )
    log.info("Preparing %s; this is done once.", weights.record.name)
    command = [sys.executable, "-m", "app", "prepare", "--quiet"]
    environment = os.environ | settings.as_environment()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        atexit.register(process.terminate)  # a worker that is told to stop takes its child along
        _, errors = process.communicate()
        atexit.unregister(process.terminate)
    if process.returncode != 0:
        log.debug("Preparing failed: %s", errors)
        last = (errors.strip().splitlines() or ["it was stopped"])[-1].removeprefix("Error: ")
        raise WeightsError(f"{weights.record.name} could not be prepared: {last}")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of an artifact."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

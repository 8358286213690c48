"""The prepared model: weights turned once into a graph that serving loads without torch.

An artifact is a folder in the cache with the OpenVINO graph (`model.xml`, `model.bin`: uint8 pixels in, logits
and features out, normalisation folded in), the classifier's weight matrix (`classifier.npy`) and
`manifest.json`. Its name includes everything that it depends on, so that any change makes a new one.
"""

from __future__ import annotations

import atexit
import dataclasses
import glob
import importlib.metadata
import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import WeightsError
from ..parsers import is_model_file
from ..settings import ROOT, Settings
from .calibration import Calibration
from .digests import bytes_sha256, file_sha256
from .model_files import SOURCE, facts_of, file_digest, labels_of
from .own_format import OwnModel
from .records import FALLBACK_NAME, FILE, TIMM, ModelRecord, find_record, from_json
from .weights import (
    PACKAGED,
    Weights,
    chosen_record,
    explicit_weights,
    fallback_in_use,
    find_cached,
    find_elsewhere,
    find_weights,
)

if TYPE_CHECKING:
    from .download import Progress

log = logging.getLogger(__name__)

Found = TypeVar("Found")

PREPARE_VERSION = 1
_DIGITS = 64  # of a whole SHA-256
MANIFEST = "manifest.json"
FILES = ("model.xml", "model.bin", "classifier.npy")


@dataclass(frozen=True)
class Manifest:
    """The description of an artifact, in its folder.

    `files` maps the names of its files to their SHA-256, and `accuracy` holds measurements. `record` is the record of
    a model that is not in our table, as `records.as_json` writes it.
    """

    name: str
    weights_sha256: str
    precision: str
    classes: int
    preprocessing: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]
    accuracy: dict[str, Any] | None = None
    record: dict[str, Any] | None = None


@dataclass(frozen=True)
class Prepared:
    """A verified artifact, the weights that it was made from, and the names of its classes (None: ImageNet's).

    `own` is the model of one's own that came with it in a bundle.
    `content` holds the verified bytes of `FILES`. Load these: the files themselves may be replaced at any time.
    """

    folder: Path
    manifest: Manifest
    weights: Weights
    content: Mapping[str, bytes] = field(repr=False)
    labels: Path | bytes | None = None
    own: OwnModel | None = None

    @property
    def calibration(self) -> Calibration | None:
        """Return the calibration in the metadata of a model file, None for any other model."""
        facts = facts_of(self.content["model.xml"]) if self.weights.record.name.startswith(FILE) else None
        return facts.calibration if facts else None


def artifact_folder(cache: Path, record: ModelRecord, key: str, family: str) -> Path:
    """Return the folder of an artifact by its weights' key; `family` is 'fp32' (which bf16 uses too) or 'int8'."""
    return cache / "prepared" / _folder_name(record.name, key[:16], family)


def _folder_name(name: str, digest: str, family: str) -> str:
    version = importlib.metadata.version("openvino")
    return f"{name.replace('/', '_')}-{digest}-{family}-openvino{version}-{PREPARE_VERSION}"


def precision_family(precision: str) -> str:
    """Return the family of artifacts that computes in a precision: 'int8' or 'fp32'."""
    return "int8" if precision == "int8" else "fp32"


def identify_weights(settings: Settings, *, progress: Progress | None = None) -> Weights:
    """Find the weights to serve, as `find_weights` does, or their artifact if only that is left.

    A model of timm is found by its artifact alone, since only timm has its record and serving must not need timm; the
    artifact is prepared if there is none.
    """
    if settings.model.startswith(TIMM):
        return find_or_prepare(lambda: prepared_timm(settings), settings, settings.model)
    if is_model_file(settings.model):
        return find_or_prepare(lambda: prepared_file(settings), settings, settings.model)
    if settings.weights is not None:
        return find_weights(settings, progress=progress)
    artifact = prepared_weights(settings, chosen_record(settings), "prepared model")
    if artifact is not None:
        return artifact
    if chosen_record(settings).package:
        return find_weights(settings)
    cached = find_cached(settings)
    if cached is not None:
        return cached
    reason = fallback_in_use(settings)
    if reason is not None:
        artifact = prepared_weights(settings, find_record(FALLBACK_NAME), PACKAGED, reason)
    return artifact or find_elsewhere(settings, progress=progress)


def prepared_timm(settings: Settings) -> Weights | None:
    """Find the artifact of a model of timm, made of the file of TOPTHREE_WEIGHTS if there is one; None without one.

    Without that setting, the newest artifact of weights from the hub is taken, never one of other weights.
    """
    if settings.weights is not None and not settings.weights.is_file():
        return None  # preparing it says what is wrong
    own = file_sha256(settings.weights) if settings.weights else None
    for folder, digest, record in artifacts_with_records(
        settings, glob.escape(settings.model), own[:16] if own else "*"
    ):
        if own is not None:
            return explicit_weights(settings, record)
        if record.source:
            return Weights(folder, digest, record, "prepared model")
    return None


def prepared_file(settings: Settings) -> Weights | None:
    """Find the artifact of the model file that TOPTHREE_MODEL names; None without one. Raises WeightsError."""
    path = Path(settings.model)
    own = file_digest(path)
    for _, digest, record in artifacts_with_records(settings, f"{FILE}*", own[:16]):
        if digest == own:
            return Weights(path, digest, record, SOURCE)
    return None


def artifacts_with_records(settings: Settings, name: str, digest: str) -> Iterator[tuple[Path, str, ModelRecord]]:
    """Yield the artifacts that hold their own record, the newest first: folder, digest of the weights, record."""
    for folder in _artifacts(settings, name, digest):
        manifest = _read_manifest(folder)
        if manifest is None or manifest.record is None:
            continue
        try:
            yield folder, manifest.weights_sha256, from_json(manifest.record)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("The prepared model %s is damaged: %s.", folder, error)


def prepared_weights(settings: Settings, record: ModelRecord, source: str, reason: str = "") -> Weights | None:
    """Return a published model's artifact in place of its weights, or None if it is not prepared."""
    if len(record.sha256) == _DIGITS:
        folder = artifact_folder(settings.cache, record, record.sha256, precision_family(settings.precision))
        return Weights(folder, record.sha256, record, source, reason) if (folder / MANIFEST).is_file() else None
    for folder in _artifacts(settings, glob.escape(record.name), f"{record.sha256}*"):
        manifest = _read_manifest(folder)
        if manifest is not None and record.has_digest(manifest.weights_sha256):
            return Weights(folder, manifest.weights_sha256, record, source, reason)
    return None


def _artifacts(settings: Settings, name: str, digest: str) -> list[Path]:
    """List the folders of artifacts whose name and digest match patterns, the newest first."""
    pattern = _folder_name(name, digest, precision_family(settings.precision))
    found = [path for path in (settings.cache / "prepared").glob(pattern) if (path / MANIFEST).is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def _read_manifest(folder: Path) -> Manifest | None:
    try:
        return Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        log.warning("The prepared model %s is damaged: %s.", folder, error)
        return None


def open_prepared(settings: Settings, weights: Weights) -> Prepared | None:
    """Open and verify the artifact of these weights; None if there is none or it is damaged."""
    folder = artifact_folder(settings.cache, weights.record, weights.key, precision_family(settings.precision))
    if not (folder / MANIFEST).is_file():
        return None
    manifest = _read_manifest(folder)
    if manifest is None:
        return None
    try:
        content = read_files(folder)
        damaged = [name for name in FILES if bytes_sha256(content[name]) != manifest.files[name]]
    except (OSError, KeyError) as error:
        log.warning("The prepared model %s is damaged: %s.", folder, error)
        return None
    if damaged:
        log.warning("The prepared model %s is damaged: %s.", folder, ", ".join(damaged))
        return None
    labels = settings.labels or (labels_of(content["model.xml"]) if weights.source == SOURCE else None)
    return Prepared(folder, manifest, weights, content, labels)


def read_files(folder: Path) -> dict[str, bytes]:
    """Read the files of an artifact, each once."""
    return {name: (folder / name).read_bytes() for name in FILES}


def ensure_prepared(settings: Settings, *, weights: Weights | None = None) -> Prepared:
    """Open the artifact to serve; if there is none, prepare it first in a process of its own.

    `weights` is the result of `identify_weights`, if the caller has it already. Raises WeightsError with the reason
    if there can be no artifact.
    """
    chosen = weights or identify_weights(settings)
    return find_or_prepare(lambda: open_prepared(settings, chosen), settings, chosen.record.name)


def find_or_prepare(find: Callable[[], Found | None], settings: Settings, name: str, *options: str) -> Found:
    """Return what is found of an artifact; if that is None, prepare the model in a process of its own, and find again.

    The process is `topthree prepare` with these settings and options; messages call the model `name`. Raises
    WeightsError if the model cannot be prepared.
    """
    found = find()
    if found is None:
        _prepare_in_subprocess(settings, name, *options)
        found = find()
    if found is None:
        raise WeightsError(f"The prepared model of {name} is damaged, although it was just made.")
    return found


def _prepare_in_subprocess(settings: Settings, name: str, *options: str) -> None:
    if precision_family(settings.precision) == "int8":
        raise WeightsError(
            f"No int8 model of {name} is prepared. Make one from photos like those that it will classify: "
            "topthree prepare --precision int8 --calibrate FOLDER"
        )
    if not is_model_file(settings.model) and importlib.util.find_spec("torch") is None:
        raise WeightsError(
            f"No prepared model of {name} is in {settings.cache}, and torch, which makes it, is not installed."
        )
    log.info("Preparing %s; this is done once.", name)
    command = [sys.executable, "-m", "app", "prepare", "--quiet", *options]
    with subprocess.Popen(command, cwd=ROOT, env=settings.for_child(), stderr=subprocess.PIPE, text=True) as process:
        atexit.register(process.terminate)  # a worker that is stopped stops its child too
        _, errors = process.communicate()
        atexit.unregister(process.terminate)
    if process.returncode != 0:
        log.debug("Preparing failed: %s", errors)
        last = (errors.strip().splitlines() or ["it was stopped"])[-1].removeprefix("Error: ")
        raise WeightsError(f"{name} could not be prepared: {last}")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, the last file of an artifact."""
    text = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

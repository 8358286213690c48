"""Writing artifacts: whole or not at all, with a manifest that says what made them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..settings import Settings
from ..writing import alone_in, filling, sweep
from .artifact import FILES, Manifest, Prepared, artifact_folder, open_prepared, precision_family, write_manifest
from .digests import file_sha256
from .records import RECORDS, as_json
from .room import is_full, no_room, not_writable
from .weights import Weights

TOOLS = ("openvino", "torch", "torchvision", "nncf")


def publish(
    settings: Settings, weights: Weights, fill: Callable[[Path], Manifest], *, rebuild: bool = False
) -> Prepared:
    """Make the artifact of these weights, unless an undamaged one exists, and move it into place as a whole.

    `fill` writes the files into a folder and returns their manifest. Of two processes that start at once, one
    makes the artifact and the other waits for it. Raises WeightsError if the cache cannot be written.
    """
    family = precision_family(settings.precision)
    target = artifact_folder(settings.cache, weights.record, weights.key, family)
    with _alone_in(target.parent):
        prepared = None if rebuild else open_prepared(settings, weights)
        if prepared is not None and prepared.manifest.record == _record_of(weights):
            return prepared
        sweep(target.parent)
        with ExitStack() as stack:
            try:
                unfinished = stack.enter_context(filling(target))
            except OSError as error:
                raise WeightsError(not_writable(target.parent, error)) from error
            try:
                write_manifest(unfinished, fill(unfinished))
            except (OSError, RuntimeError) as error:
                if is_full(unfinished, error, weights.record.size_bytes):
                    raise WeightsError(no_room(target.parent)) from error
                raise
            if target.exists():
                shutil.rmtree(target)
        prepared = open_prepared(settings, weights)
    if prepared is None:
        raise WeightsError(f"The prepared model in {target} cannot be read back; is the disk full?")
    return prepared


def _alone_in(folder: Path) -> AbstractContextManager[object]:
    """Lock a folder as `alone_in` does; raises WeightsError."""
    try:
        return alone_in(folder)
    except OSError as error:
        raise WeightsError(not_writable(folder, error)) from error


def describe(weights: Weights, folder: Path, *, precision: str, classes: int, **more: Any) -> Manifest:
    """Build the manifest of the files in an artifact's folder; `more` are further fields of it."""
    record = weights.record
    return Manifest(
        name=record.name,
        weights_sha256=weights.sha256,
        precision=precision,
        classes=classes,
        preprocessing=dataclasses.asdict(record.geometry) | {"mean": record.mean, "std": record.std},
        versions=_versions(),
        files={name: file_sha256(folder / name) for name in FILES},
        record=_record_of(weights),
        **more,
    )


def _record_of(weights: Weights) -> dict[str, Any] | None:
    """Return the record that a manifest holds: that of a model outside our table."""
    return None if weights.record.name in RECORDS else as_json(weights.record)


def _versions() -> dict[str, str]:
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    return {tool: importlib.metadata.version(tool) for tool in TOOLS if tool in installed}

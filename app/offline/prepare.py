"""`topthree prepare`: weights in, an artifact out that serves without torch."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from filelock import FileLock

from ..download import file_sha256
from ..engines import import_openvino
from ..labels import imagenet_labels, read_labels
from ..prepared import (
    FILES,
    Manifest,
    Prepared,
    artifact_folder,
    ensure_prepared,
    open_prepared,
    precision_family,
    write_manifest,
)
from ..settings import Settings
from ..weights import Weights, find_weights
from .weights import find_with_progress

TOOLS = ("openvino", "torch", "torchvision", "nncf")


def run(
    settings: Settings, *, precision: str, calibrate: Path | None, max_drop: float, rebuild: bool, quiet: bool
) -> None:
    """Prepare the model that would serve, and say where it is."""
    settings = dataclasses.replace(settings, precision=precision)
    weights = find_weights(settings) if quiet else find_with_progress(settings)

    if calibrate is None:
        fill = functools.partial(_convert, settings, weights)
    else:
        from .quantise import quantise

        base = ensure_prepared(dataclasses.replace(settings, precision="fp32"))
        fill = functools.partial(quantise, base, calibrate, max_drop=max_drop, max_pixels=settings.max_pixels)
    prepared = publish(settings, weights, fill, rebuild=rebuild)
    if not quiet:
        click.echo(f"Prepared: {prepared.folder}")


def publish(
    settings: Settings, weights: Weights, fill: Callable[[Path], Manifest], *, rebuild: bool = False
) -> Prepared:
    """Make the artifact of these weights unless it is there and whole; nobody ever sees half of one.

    `fill` writes the files into a folder and returns their manifest. Of two processes that start at once, one
    makes the artifact and the other waits and takes it.
    """
    family = precision_family(settings.precision)
    target = artifact_folder(settings.cache, weights.record, weights.sha256, family)
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / ".lock"):
        prepared = None if rebuild else open_prepared(settings, weights)
        if prepared is not None:
            return prepared
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
        try:
            unfinished.chmod(0o755)
            write_manifest(unfinished, fill(unfinished))
            if target.exists():
                shutil.rmtree(target)
            os.rename(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        prepared = open_prepared(settings, weights)
    if prepared is None:
        raise click.ClickException(f"What was written to {target} cannot be read back; is the disk full?")
    return prepared


def describe(weights: Weights, folder: Path, *, precision: str, classes: int, **more: Any) -> Manifest:
    """Write down what lies in an artifact's folder and what made it."""
    record = weights.record
    return Manifest(
        name=record.name,
        weights_sha256=weights.sha256,
        precision=precision,
        classes=classes,
        preprocessing=dataclasses.asdict(record.geometry) | {"mean": record.mean, "std": record.std},
        versions=_versions(),
        files={name: file_sha256(folder / name) for name in FILES},
        **more,
    )


def _convert(settings: Settings, weights: Weights, folder: Path) -> Manifest:
    """Trace the torch model and save it as a float32 OpenVINO graph."""
    openvino = import_openvino()
    import torch

    from ..backbones import load_backbone

    classes = len(read_labels(settings.labels) if settings.labels else imagenet_labels())
    backbone = load_backbone(weights, classes)
    side = weights.record.geometry.crop
    example = torch.zeros((2, side, side, 3), dtype=torch.uint8)  # a batch of 1 would be taken for a constant
    with torch.no_grad():
        program = torch.export.export(backbone, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    model = openvino.convert_model(program)
    model.reshape([-1, side, side, 3])
    model.inputs[0].get_tensor().set_names({"pixels"})
    for output, name in zip(model.outputs, ("logits", "features"), strict=True):
        output.get_tensor().set_names({name})
    # Left alone, save_model halves the weights to 16 bits and the answers move.
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    np.save(folder / "classifier.npy", backbone.head.weight.detach().numpy())
    return describe(weights, folder, precision="fp32", classes=classes)


def _versions() -> dict[str, str]:
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    return {tool: importlib.metadata.version(tool) for tool in TOOLS if tool in installed}

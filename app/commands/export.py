"""Write the model for other programs: ONNX, OpenVINO, torch's .pt2 or TorchScript.

The file takes uint8 RGB crops in batches of any size and returns logits and embedding; the normalisation is inside.
A model of your own is exported with its head, the names of its classes and its calibration; a fine-tuned one has its
own weights. Beside the file are a README that says how to cut the crop, and an example that runs without topthree.
Nothing is written unless the file and torch agree on 32 crops: the same first class for all, and probabilities within
0.002.

\b
Examples:
  topthree export --to onnx --output resnet18-onnx
  topthree export --model mobilenet_v3_large --to openvino --output exported --photos photos/
  topthree export --model birds --to torchscript --output birds
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np

from ..errors import BundleError, OwnModelError
from ..model.calibration import Calibration, find_calibration
from ..model.exporting.crops import CROPS, sample_crops
from ..model.exporting.formats import FORMATS
from ..model.facts import Facts
from ..model.labels import load_labels
from ..model.own_format import OwnModel
from ..model.served import on_backbone, read_own_default
from ..model.tuned import record_of, tuned_weights
from ..model.weights import Weights, key_of
from ..photos.crops import read_crops
from ..photos.decoding import Geometry
from ..photos.folders import list_photos
from ..settings import Settings
from . import model_option, plural, read_settings
from .weights import find_with_progress


@click.command(help=__doc__)
@model_option
@click.option("--to", type=click.Choice(list(FORMATS)), required=True, help="Format of the file.")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="The folder to write, a new or an empty one."
)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photos to compare with (default: the samples).",
)
def command(*, model: str, to: str, output: Path, photos: Path | None) -> None:
    """Export the model that would serve, and print how far it is from torch."""
    from ..model.backbones import load_backbone
    from ..model.backbones.tuned import load_tuned
    from ..model.exporting.files import WithEmbedding, WithOwnHead
    from ..model.exporting.folder import export_network

    settings = read_settings(model)
    if settings.bundle:
        raise BundleError("TOPTHREE_BUNDLE names a model that is prepared already; unset it to export from weights.")
    own = read_own_default(settings)
    if own is not None and own.trunk is not None:
        weights = tuned_weights(own, record_of(own))
        network: WithEmbedding | WithOwnHead = WithEmbedding(load_tuned(weights, own))
    else:
        weights = find_with_progress(on_backbone(settings))
        backbone = load_backbone(weights, len(load_labels(settings.labels)))
        network = WithOwnHead(backbone, own.weight, own.bias) if own else WithEmbedding(backbone)
    facts = _facts(settings, weights, own)
    crops = _crops(photos, settings, facts.geometry)
    found = export_network(network.eval(), facts, crops, to, output)
    click.echo(f"Compared with torch on {plural(len(crops), 'crop')}: probabilities differ by at most {found:.1g}.")
    click.echo(f"Exported: {output / FORMATS[to].file}")


def _facts(settings: Settings, weights: Weights, own: OwnModel | None) -> Facts:
    """Return what the file will say of itself; raises OwnModelError for a head on other weights."""
    record = weights.record
    licence = record.licence if weights.is_published else ""
    if own is None:
        calibration = find_calibration(settings.cache, weights)
        return Facts(record.name, weights.sha256, load_labels(settings.labels), record.geometry, calibration, licence)
    if own.features_sha256 != weights.sha256:
        raise OwnModelError(
            f"{own.name} is a head on weights of {own.backbone} with SHA-256 {own.weights_sha256[:12]}…, and those of "
            f"{weights.path} have {weights.sha256[:12]}…: set TOPTHREE_WEIGHTS to the file that it was trained on."
        )
    # Its digest is that of the head, since many heads have the same backbone; of a fine-tuned model, that of both.
    digest = key_of(weights.sha256, own.sha256) if own.trunk else own.sha256
    return Facts(own.name, digest, own.labels, record.geometry, _calibration_in_file(own), licence)


def _calibration_in_file(own: OwnModel) -> Calibration | None:
    """Return the calibration without the threshold of a score by centres, which a model file does not hold."""
    if own.calibration is None or own.centres is None:
        return own.calibration
    intervals = {name: interval for name, interval in own.calibration.intervals.items() if name != "unlike_below"}
    return dataclasses.replace(own.calibration, unlike_below=None, intervals=intervals)


def _crops(photos: Path | None, settings: Settings, geometry: Geometry) -> np.ndarray:
    """Cut the crops of 32 photos, spread over the folder, or of the samples."""
    if photos is None:
        return sample_crops(geometry)
    files = list_photos([str(photos)])
    chosen = sorted({round(place) for place in np.linspace(0, len(files) - 1, CROPS)})
    return np.stack(read_crops([files[index] for index in chosen], geometry, max_pixels=settings.max_pixels))

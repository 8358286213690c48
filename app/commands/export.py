"""Write the model for other programs: ONNX, OpenVINO, torch's .pt2 or TorchScript.

The file takes uint8 RGB crops in batches of any size and returns logits and embedding; the normalisation is inside.
Beside it are a README that says how to cut the crop, and an example that runs without topthree. Nothing is written
unless the file and torch agree on 32 crops: the same first class for all, and probabilities within 0.002.

\b
Examples:
  topthree export --to onnx --output resnet18-onnx
  topthree export --model mobilenet_v3_large --to openvino --output exported --photos photos/
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np

from ..errors import BundleError
from ..model.calibration import find_calibration
from ..model.exporting.crops import CROPS, photo_crops, sample_crops
from ..model.facts import Facts
from ..model.labels import load_labels
from ..photos.decoding import Geometry
from ..photos.folders import list_photos
from ..settings import Settings
from . import plural, read_settings
from .weights import find_with_progress


@click.command(help=__doc__)
@click.option("--model", metavar="NAME", help="The model to export (default: TOPTHREE_MODEL).")
@click.option(
    "--to", type=click.Choice(["onnx", "openvino", "pt2", "torchscript"]), required=True, help="Format of the file."
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="The folder to write, a new or an empty one."
)
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photos to compare with (default: the samples).",
)
def command(*, model: str | None, to: str, output: Path, photos: Path | None) -> None:
    """Export the model that would serve, and print how far it is from torch."""
    from ..model.backbones import load_backbone
    from ..model.exporting.folder import export_network
    from ..model.exporting.formats import FORMATS, WithEmbedding

    settings = read_settings()
    if settings.bundle:
        raise BundleError("TOPTHREE_BUNDLE names a model that is prepared already; unset it to export from weights.")
    if model:
        settings = dataclasses.replace(settings, model=model)
    weights = find_with_progress(settings)
    labels, record = load_labels(settings.labels), weights.record
    crops = _crops(photos, settings, record.geometry)
    network = WithEmbedding(load_backbone(weights, len(labels))).eval()
    licence = record.licence if weights.is_published else ""
    calibration = find_calibration(settings.cache, weights)
    temperature = calibration.temperature if calibration else None
    facts = Facts(record.name, weights.sha256, labels, record.geometry, temperature, licence)
    found = export_network(network, facts, crops, to, output)
    click.echo(f"Compared with torch on {plural(len(crops), 'crop')}: probabilities differ by at most {found:.1g}.")
    click.echo(f"Exported: {output / FORMATS[to].file}")


def _crops(photos: Path | None, settings: Settings, geometry: Geometry) -> np.ndarray:
    """Cut the crops of 32 photos, spread over the folder, or of the samples."""
    if photos is None:
        return sample_crops(geometry)
    files = list_photos([str(photos)])
    chosen = sorted({round(place) for place in np.linspace(0, len(files) - 1, CROPS)})
    return photo_crops([files[index] for index in chosen], geometry, settings.max_pixels)

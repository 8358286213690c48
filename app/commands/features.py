"""Write the feature maps of inner layers for photos, as NumPy's .npz file.

The file holds one array of shape (photos, channels, height, width) for each layer, and the array `photos` of the
files' names. 'topthree inspect' lists the layers. A photo may be given to the network at another size than the one
that the model was trained for.

\b
Example:
  topthree features cat.jpg --layers layer2,layer4 --side 640 --output maps.npz
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ..model.labels import load_labels
from ..model.served import on_backbone
from ..photos.crops import read_crops
from ..photos.decoding import Geometry
from ..photos.folders import FileProblem, list_photos
from ..photos.protocol import MAX_CROP_SIDE
from ..processes.plan import make_plan
from ..writing import replacing
from . import plural, read_settings
from .weights import find_with_progress


@click.command(help=__doc__)
@click.argument("sources", nargs=-1, required=True, metavar="FILE… | FOLDER | -")
@click.option("--layers", required=True, help="Names of layers, separated by commas.")
@click.option(
    "--side", type=click.IntRange(32, MAX_CROP_SIDE), help="Side of the crop, in pixels (default: the model's own)."
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write, .npz."
)
def command(sources: tuple[str, ...], *, layers: str, side: int | None, output: Path) -> None:
    """Compute the maps with torch in float32; nothing is written if a photo cannot be read."""
    from ..model.backbones import load_backbone
    from ..model.backbones.layers import feature_maps

    names = list(dict.fromkeys(name.strip() for name in layers.split(",") if name.strip()))
    if not names:
        raise click.BadParameter("names no layer.", param_hint="--layers")
    if output.suffix.lower() != ".npz":
        raise click.BadParameter("the file's name must end in .npz.", param_hint="--output")
    settings = on_backbone(read_settings())
    weights = find_with_progress(settings)
    backbone = load_backbone(weights, len(load_labels(settings.labels)))
    files = list_photos(sources)
    geometry = _scaled(weights.record.geometry, side)
    maps: dict[str, list[np.ndarray]] = {name: [] for name in names}
    memory = make_plan(settings).photo_memory_bytes
    for crop in read_crops(files, geometry, max_pixels=settings.max_pixels, memory_bytes=memory):
        for name, found in feature_maps(backbone, crop[None], names).items():
            maps[name].append(found[0])
    _write(output, {name: np.stack(kept) for name, kept in maps.items()} | {"photos": np.array(files)})
    for name, kept in maps.items():
        click.echo(f"{name}: {plural(len(files), 'photo')}, {'x'.join(map(str, kept[0].shape))}")


def _scaled(geometry: Geometry, side: int | None) -> Geometry:
    """Return the geometry of crops of another side that show the same part of a photo."""
    if side is None:
        return geometry
    return Geometry(round(geometry.resize * side / geometry.crop), side, geometry.interpolation)


def _write(output: Path, arrays: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    try:
        with replacing(output, 0o600) as out:
            np.savez(out, **arrays)
    except OSError as error:
        raise FileProblem(f"{output} cannot be written: {error.strerror or error}.") from error

"""List the layers of a model: their shapes and how many parameters they have.

MODEL is a name of 'topthree backbones'; without one it is the model of TOPTHREE_MODEL. No weights are needed.

\b
Examples:
  topthree inspect
  topthree inspect resnet50 --side 640 --depth 2
"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from ..model.records import DEFAULT_NAME
from ..photos.protocol import MAX_CROP_SIDE
from . import read_settings


@click.command(help=__doc__)
@click.argument("model", required=False)
@click.option(
    "--side", type=click.IntRange(32, MAX_CROP_SIDE), help="Side of the photo, in pixels (default: the model's own)."
)
@click.option(
    "--depth", type=click.IntRange(1), default=1, show_default=True, help="How many levels of nested layers to list."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
def command(model: str | None, *, side: int | None, depth: int, as_json: bool) -> None:
    """Print the layers in the order in which they compute."""
    from ..model.backbones import any_record
    from ..model.backbones.layers import layers_of

    record = any_record(model or read_settings().model or DEFAULT_NAME)
    layers = [layer for layer in layers_of(record, side or record.geometry.crop) if layer.depth < depth]
    if as_json:
        click.echo(json.dumps([asdict(layer) for layer in layers]))
        return
    width = max(len(layer.name) for layer in layers)
    for layer in layers:
        shape = "x".join(map(str, layer.shape))
        click.echo(f"{layer.name:{width}}  {layer.kind:24}  {shape:>14}  {layer.parameters:>12,}")
    click.echo(f"{record.name} has {sum(layer.parameters for layer in layers if not layer.depth):,} parameters.")

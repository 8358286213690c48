"""Turn the weights into the graph that serves; `serve` does it at its first start.

An int8 model is rejected if it loses more than --max-drop points of top-1 accuracy on labelled photos, or if less than
93% of its answers are those of float32.

\b
Examples:
  topthree prepare
  topthree prepare --precision int8 --calibrate photos/
  topthree prepare --precision int8 --calibrate photos/ --keep-last auto
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import click

from ..errors import BundleError
from ..model.artifact import Manifest, ensure_prepared
from ..model.artifact_writer import describe, publish
from ..model.labels import load_labels
from ..model.model_files import read_model_file, save_model_file
from ..model.opening import open_bundle
from ..model.served import on_backbone
from ..model.weights import Weights
from ..parsers import is_model_file
from ..settings import Settings
from . import model_option, read_settings
from .weights import find_with_progress


class KeepLast(click.ParamType["int | None"]):
    """A number of layers, or `auto`, which becomes None."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Turn the text of the option into a number."""
        text = str(value)
        if text == "auto":
            return None
        if not text.isdecimal():
            self.fail(f"{text!r} is neither a number of layers nor auto.", param, ctx)
        return int(text)


@click.command(help=__doc__)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="Number format of the prepared model.",
)
@click.option(
    "--calibrate",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photos for int8: half calibrate the model, the others test it.",
)
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="Largest allowed loss of top-1 accuracy, in points.",
)
@click.option(
    "--keep-last",
    type=KeepLast(),
    default="0",
    show_default=True,
    help="Layers before the classifier that int8 leaves in float32; auto finds the fewest that pass.",
)
@model_option
@click.option("--rebuild", is_flag=True, help="Prepare the model again if it is prepared already.")
@click.option("--quiet", is_flag=True, help="Print only errors.")
def command(
    *,
    precision: str,
    calibrate: Path | None,
    max_drop: float,
    keep_last: int | None,
    model: str,
    rebuild: bool,
    quiet: bool,
) -> None:
    """Prepare the model that would serve, and print where it is."""
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError("--precision int8 and --calibrate FOLDER go together.")
    settings = on_backbone(read_settings(model))
    if settings.bundle:
        _unpack(settings, settings.bundle, calibrate, quiet=quiet)
        return
    settings = dataclasses.replace(settings, precision=precision)
    is_file = is_model_file(settings.model)
    weights = read_model_file(Path(settings.model))[1] if is_file else find_with_progress(settings, quiet=quiet)
    if calibrate is None:
        fill = functools.partial(_convert, settings, weights)
    else:
        from ..model.quantise import quantise

        base = ensure_prepared(dataclasses.replace(settings, precision="fp32"))
        fill = functools.partial(
            quantise,
            base,
            calibrate,
            max_drop=max_drop,
            max_pixels=settings.max_pixels,
            report=click.echo,
            keep_last=keep_last,
        )
    prepared = publish(settings, weights, fill, rebuild=rebuild)
    if not quiet:
        click.echo(f"Prepared: {prepared.folder}")


def _unpack(settings: Settings, bundle: Path, calibrate: Path | None, *, quiet: bool) -> None:
    if calibrate:
        raise BundleError("TOPTHREE_BUNDLE names a model that is prepared already; unset it to prepare another.")
    prepared = open_bundle(bundle, settings)
    if not quiet:
        click.echo(f"Unpacked: {prepared.folder}")


def _convert(settings: Settings, weights: Weights, folder: Path) -> Manifest:
    """Load the weights into their network and save it as the graph that serves; a model file is one already."""
    if is_model_file(settings.model):
        classes = save_model_file(weights.path, folder)
        return describe(weights, folder, precision="fp32", classes=classes)
    from ..model.backbones import load_backbone
    from ..model.backbones.converting import save_graph

    classes = len(load_labels(settings.labels))
    save_graph(load_backbone(weights, classes), weights.record.geometry.crop, folder)
    return describe(weights, folder, precision="fp32", classes=classes)

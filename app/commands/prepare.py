"""Turn the weights into the graph that serves; `serve` does it at its first start.

An int8 model is rejected if it loses more than --max-drop points of top-1 accuracy on labelled photos, or if less than
93% of its answers are those of float32.

\b
Examples:
  topthree prepare
  topthree prepare --precision int8 --calibrate photos/
  topthree prepare --precision int8 --calibrate photos/ --keep-last auto
  topthree prepare --model clothes
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable
from pathlib import Path

import click

from ..errors import BundleError
from ..model.artifact import Manifest, Prepared, ensure_prepared
from ..model.artifact_writer import describe, publish
from ..model.labels import load_labels
from ..model.model_files import read_model_file, save_model_file
from ..model.opening import open_bundle
from ..model.own_format import OwnModel
from ..model.served import on_backbone, read_own_default
from ..model.tuned import ensure_tuned, record_of, tuned_settings, tuned_weights
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
@click.option(
    "--version",
    type=click.IntRange(1, 10**9 - 1),
    help="Version of a fine-tuned model of your own (default: the one in use).",
)
@click.option("--rebuild", is_flag=True, help="Prepare the model again if it is prepared already.")
@click.option("--quiet", is_flag=True, help="Print only errors.")
def command(
    *,
    precision: str,
    calibrate: Path | None,
    max_drop: float,
    keep_last: int | None,
    model: str,
    version: int | None,
    rebuild: bool,
    quiet: bool,
) -> None:
    """Prepare the model that would serve, and print where it is."""
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError("--precision int8 and --calibrate FOLDER go together.")
    settings = read_settings(model)
    if settings.bundle:
        _unpack(settings, settings.bundle, calibrate, quiet=quiet)
        return
    own, settings = _fine_tuned(settings, version), dataclasses.replace(settings, precision=precision)
    work = _of_fine_tuned(settings, own) if own else _of_backbone(on_backbone(settings), quiet=quiet)
    fill = work.convert
    if calibrate is not None:
        from ..model.quantise import quantise

        fill = functools.partial(
            quantise,
            work.open_fp32(),
            calibrate,
            max_drop=max_drop,
            max_pixels=settings.max_pixels,
            report=click.echo,
            keep_last=keep_last,
        )
    made: list[Path] = []

    def fill_and_note(folder: Path) -> Manifest:
        made.append(folder)
        return fill(folder)

    # nncf shows its progress on standard output, where the lines about the test of an int8 model go as well.
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        prepared = publish(work.settings, work.weights, fill_and_note, rebuild=rebuild)
    if not quiet:
        kept = "" if made else " already, and left as it is; --rebuild makes it again"
        click.echo(f"Prepared{kept}: {prepared.folder}")


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is prepared, with which settings, and how: `convert` fills the folder of its float32 artifact."""

    settings: Settings
    weights: Weights
    convert: Callable[[Path], Manifest]
    open_fp32: Callable[[], Prepared]


def _fine_tuned(settings: Settings, version: int | None) -> OwnModel | None:
    """Return the fine-tuned model to prepare, None for any other model."""
    own = read_own_default(settings, version)
    if own is not None and own.trunk is not None:
        return own
    if version is not None:
        raise click.UsageError("--version goes with a fine-tuned model of your own, and this is another model.")
    return None


def _of_fine_tuned(settings: Settings, own: OwnModel) -> _Work:
    settings = tuned_settings(settings, own)
    weights = tuned_weights(own, record_of(own))
    as_fp32 = dataclasses.replace(settings, precision="fp32")
    return _Work(
        settings, weights, functools.partial(_convert_tuned, weights, own), lambda: ensure_tuned(as_fp32, own)
    )


def _of_backbone(settings: Settings, *, quiet: bool) -> _Work:
    is_file = is_model_file(settings.model)
    weights = read_model_file(Path(settings.model))[1] if is_file else find_with_progress(settings, quiet=quiet)
    as_fp32 = dataclasses.replace(settings, precision="fp32")
    return _Work(settings, weights, functools.partial(_convert, settings, weights), lambda: ensure_prepared(as_fp32))


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


def _convert_tuned(weights: Weights, own: OwnModel, folder: Path) -> Manifest:
    """Load a fine-tuned model's weights into their network and save it, with its head, as the graph that serves."""
    from ..model.backbones.converting import save_graph
    from ..model.backbones.tuned import load_tuned

    save_graph(load_tuned(weights, own), weights.record.geometry.crop, folder)
    return describe(weights, folder, precision="fp32", classes=len(own.labels))

"""Write one archive that serves without a network.

It holds the prepared model, its labels, a description and checksums; TOPTHREE_BUNDLE=FILE serves from it. Of a model
of your own it holds the backbone and the head, and of a fine-tuned one its own graph. With --check nothing is written,
and the exit status is 1 if the bundle is damaged or does not serve with this installation.

\b
Examples:
  topthree bundle --output model.tar
  topthree bundle --check model.tar
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ..errors import BundleError
from ..model.artifact import ensure_prepared, precision_family
from ..model.bundle import Bundle, openvino_version, read_bundle
from ..model.bundle_writer import write_bundle
from ..model.labels import load_labels
from ..model.served import on_backbone, read_own_default
from ..model.tuned import ensure_tuned
from ..settings import Settings
from . import model_option, read_settings
from .weights import make_ready


@click.command(help=__doc__)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Output file (default: named after the model).",
)
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), help="Model to bundle (default: TOPTHREE_PRECISION)."
)
@model_option
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Verify and describe this bundle instead of writing one.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: print JSON.")
def command(
    *, output: Path | None, precision: str | None, model: str, force: bool, check: Path | None, as_json: bool
) -> None:
    """Write a bundle, or check one."""
    if (check and (output or precision or model or force)) or (as_json and not check):
        raise click.UsageError("--check takes an existing bundle, and only --json beside it.")
    settings = read_settings(model)
    if check:
        _check(check, sha256=settings.bundle_sha256, as_json=as_json)
    else:
        _write(settings, output=output, precision=precision, force=force)


def _write(settings: Settings, *, output: Path | None, precision: str | None, force: bool) -> None:
    """Write the bundle of the model that would serve, which is prepared first if necessary."""
    if settings.bundle:
        raise BundleError("TOPTHREE_BUNDLE names a bundle already; unset it to make another from the weights.")
    if settings.engine == "torch":
        raise BundleError("A bundle holds a model of OpenVINO; unset TOPTHREE_ENGINE.")
    family = precision_family(precision or settings.precision)
    own = read_own_default(settings)
    settings = dataclasses.replace(settings, engine="openvino", precision=family)
    weights = make_ready(settings)
    if own is not None and own.trunk is not None:
        prepared = ensure_tuned(settings, own)
    else:
        prepared = ensure_prepared(on_backbone(settings), weights=weights)
    name = (own.name if own else prepared.manifest.name).replace("/", "-")  # of timm, or of a model file
    target = output or Path(f"topthree-{name}-{family}-openvino{openvino_version()}.tar")
    if target.exists() and not force:
        raise BundleError(f"{target} already exists; use --force to replace it.")
    bundle = write_bundle(prepared, load_labels(prepared.labels), target, own)
    click.echo(describe(bundle))
    click.echo(f"To serve it, anywhere: TOPTHREE_BUNDLE={target} topthree serve")


def _check(path: Path, *, sha256: str | None, as_json: bool) -> None:
    """Verify a bundle to the last byte and describe it; raises BundleError if it cannot be served here."""
    bundle = read_bundle(path, sha256)
    if as_json:
        whole = {"sha256": bundle.sha256, "bytes": path.stat().st_size} | dataclasses.asdict(bundle.description)
        click.echo(json.dumps(whole | {"obstacle": bundle.obstacle}, ensure_ascii=False))
    else:
        click.echo(describe(bundle))
    if bundle.obstacle:
        raise BundleError(bundle.obstacle)


def describe(bundle: Bundle) -> str:
    """Describe a bundle in a few lines."""
    made = bundle.description
    rows = {
        "Bundle": f"{bundle.path}, {bundle.path.stat().st_size:,} bytes, whole",
        "SHA-256": bundle.sha256,
        "Model": f"{made.model.get('name')}, {made.precision}, {made.classes} classes"
        + (", the built-in model" if made.fallback else ""),
        "Weights": f"SHA-256 {made.weights_sha256}",
        "Made by": f"topthree {made.topthree}, to serve with OpenVINO {made.openvino}",
    }
    if bundle.own:
        rows["Own model"] = f"{bundle.own.name}, version {bundle.own.version}, {len(bundle.own.labels)} classes"
    if made.accuracy:
        rows["Accuracy"] = ", ".join(f"{key} {value}" for key, value in made.accuracy.items() if value is not None)
    return "\n".join(f"{name:9} {value}" for name, value in rows.items())

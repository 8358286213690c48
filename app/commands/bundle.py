"""Write one archive that serves without a network.

It holds the prepared model, its labels, a description and checksums; TOPTHREE_BUNDLE=FILE serves from it. Of a model
of your own it holds the backbone and the head. With --check nothing is written, and the exit status is 1 if the bundle
is damaged or does not serve with this installation.

\b
Examples:
  topthree bundle --output model.tar
  topthree bundle --check model.tar
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import click

from ..errors import BundleError
from ..model.artifact import FILES, MANIFEST, PREPARE_VERSION, Prepared, ensure_prepared, precision_family
from ..model.bundle import (
    COPY_BYTES,
    DESCRIPTION,
    END,
    FORMAT,
    FORMAT_WITH_OWN,
    LABELS,
    MEMBERS,
    MODEL,
    OWN,
    OWN_MEMBERS,
    SUMS,
    Bundle,
    Description,
    openvino_version,
    padding,
    read_bundle,
    tar_header,
    write_sums,
)
from ..model.digests import bytes_sha256, file_sha256
from ..model.engines import check_classes
from ..model.labels import Label, load_labels, write_labels
from ..model.own_format import OwnModel, files_of
from ..model.records import as_json
from ..model.served import on_backbone, read_own_default
from ..settings import Settings
from ..version import __version__
from ..writing import replacing
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
    settings = on_backbone(settings)
    settings = dataclasses.replace(settings, engine="openvino", precision=family)
    prepared = ensure_prepared(settings, weights=make_ready(settings))
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


def write_bundle(prepared: Prepared, labels: tuple[Label, ...], target: Path, own: OwnModel | None = None) -> Bundle:
    """Write a bundle, whole or not at all, and read it back; the same model and labels make the same bytes.

    `own` is a model of one's own to put in, whose head must be on these weights.
    """
    check_classes(prepared, len(labels))
    description = dataclasses.replace(_describe(prepared), format=FORMAT_WITH_OWN if own else FORMAT)
    described = (json.dumps(dataclasses.asdict(description), indent=1, ensure_ascii=False) + "\n").encode()
    texts = {DESCRIPTION: described, LABELS: write_labels(labels)}
    if own is not None:
        texts |= {f"{OWN}/{name}": data for name, data in files_of(own, own.name, own.version).items()}
    files = {f"{MODEL}/{name}": prepared.folder / name for name in (MANIFEST, *FILES)}
    digests = {name: bytes_sha256(text) for name, text in texts.items()}
    digests |= {name: file_sha256(path) for name, path in files.items()}
    members = (*MEMBERS, *OWN_MEMBERS) if own else MEMBERS
    texts[SUMS] = write_sums({name: digests[name] for name in members if name != SUMS})
    try:
        with replacing(target, 0o644) as out:
            _write_members(out, members, texts, files)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}.") from error
    return read_bundle(target)


def _describe(prepared: Prepared) -> Description:
    manifest, weights = prepared.manifest, prepared.weights
    return Description(
        format=FORMAT,
        model=as_json(weights.record),
        weights_sha256=weights.sha256,
        fallback=weights.is_fallback,
        precision=manifest.precision,
        classes=manifest.classes,
        accuracy=manifest.accuracy,
        topthree=__version__,
        openvino=openvino_version(),
        prepare_version=PREPARE_VERSION,
    )


def _write_members(out: Any, members: tuple[str, ...], texts: dict[str, bytes], files: dict[str, Path]) -> None:
    for name in members:
        if name in texts:
            _write_member(out, name, io.BytesIO(texts[name]), len(texts[name]))
        else:
            with files[name].open("rb") as file:
                _write_member(out, name, file, files[name].stat().st_size)
    out.write(END)
    out.flush()
    os.fsync(out.fileno())


def _write_member(out: Any, name: str, content: BinaryIO, size: int) -> None:
    out.write(tar_header(name, size))
    shutil.copyfileobj(content, out, COPY_BYTES)
    out.write(bytes(padding(size)))

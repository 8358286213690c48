"""Measure the accuracy of the model on labelled photos.

FOLDER holds one folder for each class, named by its WordNet id or English name (n02123045/ or tabby/), or files whose
names begin with the WordNet id (n02123045_1.jpg). A photo that cannot be read is listed and left out, and the exit
status is 1.

\b
Example:
  topthree evaluate photos/ --json
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from ..classifier import Classifier
from ..measuring.accuracy import Evaluation, evaluate
from ..measuring.stream import printable
from ..model import Model
from ..photos.folders import MAX_FILE_BYTES
from . import model_option, plural, read_settings


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@model_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a report.")
def command(folder: Path, *, model: str, as_json: bool) -> None:
    """Evaluate the model that would serve; the exit status is 1 if any photo could not be read."""
    settings = read_settings(model)
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        result = evaluate(classifier, folder, max_pixels=settings.max_pixels)
        used = classifier.load_model()
    if as_json:
        print(json.dumps(asdict(result), ensure_ascii=False, indent=1))
    else:
        _print_report(result, used)
    if result.unreadable:
        raise SystemExit(1)


def _print_report(result: Evaluation, model: Model) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    identity = result.model
    console.print(
        f"{identity['name']} ({identity['engine']}, {identity['precision']}) on {plural(result.photos, 'photo')}"
    )
    for rank, share in result.top.items():
        console.print(f"  top-{rank}  {share.percent:6.2f} %   95% interval {share.low:.2f} to {share.high:.2f} %")
    console.print(f"  {result.images_per_second} images per second, decoding included")
    if model.weights.is_published and model.own is None:
        record = model.weights.record
        published = [f"top-{k} {value} %" for k, value in ((1, record.top1), (5, record.top5)) if value]
        console.print(f"  published for ImageNet's validation set: {', '.join(published)}")
    if result.confusions:
        console.print("Most confused:")
    for confusion in result.confusions:
        console.print(f"  {confusion.photos:3}  {confusion.label} classified as {confusion.taken_for}")
    for line in result.unreadable:
        console.print(f"Not read: {printable(line)}")
    if result.unlabelled:
        console.print(f"Not labelled, left out: {plural(len(result.unlabelled), 'file')}")

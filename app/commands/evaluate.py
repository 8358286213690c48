"""Measure the accuracy of the model on labelled photos.

FOLDER holds one folder for each class, named by its WordNet id or English name (n02123045/ or tabby/), or files whose
names begin with the WordNet id (n02123045_1.jpg). A photo that cannot be read is listed and left out, and the exit
status is 1.

Calibration error is the mean distance between the first probability and the share of right answers, in 15 bins, with
its 95% interval: for the confidences, and for the probabilities if the model is calibrated. Coverage is the largest
share of photos, the surest first, of which 95% are right.

\b
Examples:
  topthree evaluate photos/ --per-class
  topthree evaluate photos/ --plot reliability.svg
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from ..classifier import Classifier
from ..errors import TopthreeError
from ..measuring.accuracy import Evaluation, evaluate
from ..measuring.diagram import draw_reliability
from ..measuring.reliability import Reliability
from ..measuring.stream import printable
from ..model import Model
from ..model.shares import Share
from ..photos.folders import MAX_FILE_BYTES
from ..writing import replacing
from . import model_option, plural, settings_of_one_process


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@model_option
@click.option("--per-class", is_flag=True, help="Print recall and precision of each class; --json has them always.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw a reliability diagram, .svg."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a report.")
def command(folder: Path, *, model: str, per_class: bool, plot: Path | None, as_json: bool) -> None:
    """Evaluate the model that would serve; the exit status is 1 if any photo could not be read."""
    if plot is not None and plot.suffix.lower() != ".svg":
        raise click.BadParameter("the file's name must end in .svg.", param_hint="--plot")
    settings = settings_of_one_process(model)
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        result = evaluate(classifier, folder, max_pixels=settings.max_pixels)
        used = classifier.load_model()
    if as_json:
        print(json.dumps(asdict(result), ensure_ascii=False, indent=1))
    else:
        _print_report(result, used, per_class=per_class)
    if plot is not None:
        _draw(result, plot)
    if result.unreadable:
        raise SystemExit(1)


def _print_report(result: Evaluation, model: Model, *, per_class: bool) -> None:
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
    _print_reliability(console, result)
    if per_class:
        _print_classes(console, result)
    if result.confusions:
        console.print("Most confused:")
    for confusion in result.confusions:
        console.print(f"  {confusion.photos:3}  {confusion.label} classified as {confusion.taken_for}")
    for line in result.unreadable:
        console.print(f"Not read: {printable(line)}")
    if result.unlabelled:
        console.print(f"Not labelled, left out: {plural(len(result.unlabelled), 'file')}")


def _print_reliability(console: Console, result: Evaluation) -> None:
    for name, found in _measured(result):
        interval = f"95% interval {found.low:.2f} to {found.high:.2f} %"
        console.print(f"  calibration error of the {name}  {found.error:.2f} %   {interval}")
        console.print(f"  coverage at 95 % accuracy by {name}  {found.coverage:.2f} %")
    if result.sure is not None:
        wrong = f", of which {_share(result.sure.wrong)} wrong" if result.sure.photos else ""
        console.print(f"  sure of {plural(result.sure.photos, 'photo')}{wrong}")
    if result.uncalibrated is not None and result.calibrated is None:
        console.print("  not calibrated: 'topthree calibrate' measures probabilities for your photos")


def _print_classes(console: Console, result: Evaluation) -> None:
    console.print("Classes (photos, recall, precision):")
    for each in result.classes:
        recall, precision = (_share(share) if share else "-" for share in (each.recall, each.precision))
        console.print(f"  {each.photos:5}  {recall:28}  {precision:28}  {each.label}")


def _share(share: Share) -> str:
    return f"{share.percent:.1f} % ({share.low:.1f} to {share.high:.1f} %)"


def _measured(result: Evaluation) -> list[tuple[str, Reliability]]:
    pairs = (("confidences", result.uncalibrated), ("probabilities", result.calibrated))
    return [(name, found) for name, found in pairs if found is not None]


def _draw(result: Evaluation, plot: Path) -> None:
    """Write the diagram; raises TopthreeError if there is nothing to draw or the file cannot be written."""
    if result.uncalibrated is None:
        raise TopthreeError("There is no diagram of no photos.")
    title = f"{result.model['name']} on {plural(result.photos, 'photo')}"
    try:
        with replacing(plot, 0o644) as out:
            out.write(draw_reliability(title, _measured(result)))
    except OSError as error:
        raise TopthreeError(f"{plot} cannot be written: {error.strerror}.") from error

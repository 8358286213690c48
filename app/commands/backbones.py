"""List the models that TOPTHREE_MODEL can name: size, accuracy, licence, and speed on this machine.

NAME… limits the list. --measure measures the speed of each model with random weights, which takes some seconds a model
the first time; --again repeats it, for example if other programs used the processor then. --try classifies the photos
of a folder with each model and lists those on which the models disagree; missing weights are downloaded.

\b
Examples:
  topthree backbones
  topthree backbones resnet18 efficientnet_lite1 --measure
  topthree backbones resnet18 resnet50.v2 --try photos/
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click

from ..classifier import Answer, Classifier
from ..measuring.speed import photos_per_second
from ..measuring.stream import classify_files, printable
from ..model.records import RECORDS, ModelRecord, find_record
from ..photos.folders import MAX_FILE_BYTES, list_photos
from ..processes.plan import make_plan
from ..settings import Settings
from . import plural, settings_of_one_process
from .weights import make_ready

_HEAD = f"{'name':22} {'MB':>6} {'million':>8} {'side':>5} {'top-1':>6} {'top-5':>6}  {'licence':12}"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--measure", is_flag=True, help="Measure the photos per second of each model on this machine.")
@click.option("--again", is_flag=True, help="With --measure: replace the speeds that were measured earlier.")
@click.option(
    "--try",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Show where the named models disagree on the photos of this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(names: tuple[str, ...], *, measure: bool, again: bool, folder: Path | None, as_json: bool) -> None:
    """Print the table, or the photos that models disagree on."""
    if again and not measure:
        raise click.UsageError("--again goes with --measure.")
    records = [find_record(name) for name in names] or list(RECORDS.values())
    settings = settings_of_one_process()
    if folder is not None:
        if len(set(names)) < 2 or measure:
            raise click.UsageError("--try compares at least two models: name them, and leave out --measure.")
        if settings.weights or settings.bundle:
            raise click.UsageError("--try compares published weights: unset TOPTHREE_WEIGHTS and TOPTHREE_BUNDLE.")
        _compare(settings, records, folder, as_json=as_json)
        return
    speeds = {record.name: _speed(record, settings, again=again) for record in records} if measure else {}
    if as_json:
        rows = [dataclasses.asdict(record) | _measured(record, speeds) for record in records]
        click.echo(json.dumps(rows))
        return
    click.echo(_HEAD + ("  photos/s" if measure else ""))
    for record in records:
        click.echo(_row(record) + (f"  {speeds[record.name]:8.1f}" if measure else ""))


def _measured(record: ModelRecord, speeds: dict[str, float]) -> dict[str, object]:
    return {"photos_per_second": speeds[record.name]} if speeds else {}


def _speed(record: ModelRecord, settings: Settings, *, again: bool) -> float:
    cpus = make_plan(settings).cpus
    return photos_per_second(
        record, settings.cache, cpus, again=again, note=lambda name: click.echo(f"Measuring {name}.", err=True)
    )


def _row(record: ModelRecord) -> str:
    top1, top5 = (f"{value:6.2f}" if value else " " * 6 for value in (record.top1, record.top5))
    return (
        f"{record.name:22} {record.size_bytes / 1e6:6.1f} {record.parameters / 1e6:8.1f} {record.geometry.crop:5} "
        f"{top1} {top5}  {record.licence:12}"
    )


def _compare(settings: Settings, records: Sequence[ModelRecord], folder: Path, *, as_json: bool) -> None:
    files = list_photos([str(folder)])
    answers = {record.name: _answers(dataclasses.replace(settings, model=record.name), files) for record in records}
    differing = [file for file in files if len({answers[name].get(file, ("", 0.0))[0] for name in answers}) > 1]
    if as_json:
        click.echo(json.dumps({file: {name: answers[name].get(file) for name in answers} for file in differing}))
        return
    for file in differing:
        said = {name: found[file] for name, found in answers.items() if file in found}
        listed = (f"{name}: {label} {confidence:.0%}" for name, (label, confidence) in said.items())
        click.echo(f"{printable(file)}  {', '.join(listed)}")
    click.echo(f"The models disagree on {len(differing)} of {plural(len(files), 'photo')}.")


def _answers(settings: Settings, files: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Return the likeliest class and its confidence for each file that can be read."""
    make_ready(settings)
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        rows = classify_files(classifier, files, top=1, max_pixels=settings.max_pixels)
        return {
            file: (answer.predictions[0].label, answer.predictions[0].confidence)
            for file, answer in rows
            if isinstance(answer, Answer)
        }

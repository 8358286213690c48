"""Teach a model your own classes from a folder of photos, one folder for each class.

PHOTOS is a folder, a ZIP archive, or a CSV file with the columns 'file' and 'label'. A folder 'train' beside 'val',
'valid', 'validation' or 'test' holds the photos to learn from; the others only test the result. First the command
reports what it found. Then it writes the next version of the model into the folder of TOPTHREE_MODELS, and a report
that a browser opens from disk. The report shows small copies of some photos, unless --no-thumbnails is given.

--tune also trains layers of the backbone, which takes minutes and needs torch: its last stage, all of them, or, with
auto, what pays.

\b
Examples:
  topthree train photos/ --dry-run
  topthree train photos/ --name clothes --serve
  topthree train photos/ --tune auto --minutes 20
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import TimeElapsedColumn, TimeRemainingColumn

from ..errors import OwnModelError
from ..measuring.bars import Bars, Lines, showing_steps
from ..measuring.stream import printable
from ..model.own_models import check_name, write_version
from ..parsers import is_model_file
from ..reports import LANGUAGES
from ..settings import ROOT, Settings
from ..training import backbones
from ..training.findings import MIN_PHOTOS, Findings
from ..training.learning import Lesson, learn, with_tuning
from ..training.photosets import PhotoSet, PhotoSetError, open_photo_set
from ..training.report import sentence, write_report
from ..training.tuning_result import FOLDER as TUNING
from ..training.tuning_result import HEAD, METHODS, Options
from ..writing import lock_of, replacing
from . import models_folder, plural, settings_of_one_process

MAX_LISTED = 10


@click.command(help=__doc__)
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name of the model (default: that of the folder).")
@click.option(
    "--names",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV of class names: label, label_zh.",
)
@click.option("--backbone", help="Backbone to learn on, or auto to compare those installed (default: TOPTHREE_MODEL).")
@click.option(
    "--no-flip", is_flag=True, help="Do not learn from mirror images, for classes in which left and right differ."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of the random division into tests, and of the random steps of tuning.",
)
@click.option("--tune", type=click.Choice(METHODS), default=HEAD, show_default=True, help="What to train.")
@click.option(
    "--minutes", type=click.FloatRange(0.1, 10_000), default=20, show_default=True, help="Maximum duration of tuning."
)
@click.option(
    "--epochs", type=click.IntRange(1, 1000), help="Epochs of tuning (default: as many as the minutes allow)."
)
@click.option("--resume", is_flag=True, help="Continue tuning that was stopped or killed.")
@click.option("--dry-run", is_flag=True, help="Report what was found, and stop.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Report (default: NAME-report.html).")
@click.option(
    "--language", type=click.Choice(LANGUAGES), default="en", show_default=True, help="Language of the report."
)
@click.option("--no-thumbnails", is_flag=True, help="Leave copies of photos out of the report.")
@click.option("--serve", is_flag=True, help="Serve the model afterwards.")
def command(
    photos: Path,
    *,
    name: str | None,
    names: Path | None,
    backbone: str | None,
    no_flip: bool,
    seed: int,
    tune: str,
    minutes: float,
    epochs: int | None,
    resume: bool,
    dry_run: bool,
    report: Path | None,
    language: str,
    no_thumbnails: bool,
    serve: bool,
) -> None:
    """Train, report, and serve if that was asked for."""
    settings = settings_of_one_process()
    root = models_folder(settings)
    name = check_name(name or _name_of(photos))
    path = report or Path(f"{name}-report.html")
    if not path.parent.is_dir():
        raise OwnModelError(f"The report cannot be written: there is no folder {path.parent}.")
    photo_set = open_photo_set(photos, names)
    with ExitStack() as stack:
        if not dry_run:
            stack.enter_context(_alone(root, name))
        if not dry_run and tune != HEAD:  # its files lie in the cache, which several folders of models may share
            stack.enter_context(_alone(settings.cache / TUNING, name))
        with _progress() as step:
            chosen = backbones.choose(photo_set, settings, backbone, step)
        _print_findings(chosen.findings, photo_set.empty)
        if dry_run:
            return
        options = Options(tune, minutes, epochs, seed, not no_flip, resume)
        with _progress() as step:
            lesson = learn(chosen, photo_set, has_flip=options.has_flip, seed=seed, step=step)
        if tune == HEAD:
            version = write_version(root, name, lesson.model)
        else:
            lesson, version = _tune(chosen, photo_set, lesson, options, place=(root, name))
    click.echo(f"Wrote version {version} of {name} to {root / name / str(version)}.")
    _print_result(lesson)
    _write_report(path, lesson, photo_set if not no_thumbnails else None, f"{name} {version}", language)
    click.echo(f"Report: {path}{'' if no_thumbnails else '; it holds small copies of some photos'}")
    if serve:
        _serve(chosen.settings, name)


def _name_of(photos: Path) -> str:
    """Make a model's name of a folder's or an archive's; a table has that of its folder."""
    path = photos.resolve()
    stem = path.parent.name if path.suffix.lower() == ".csv" else path.stem if path.is_file() else path.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:64]
    if not name:
        raise OwnModelError(f"{photos} gives the model no name in letters and digits: choose one with --name.")
    return name


@contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    lock = lock_of(root / f".train-{name}.lock")
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except TimeoutError as error:
        raise OwnModelError(f"Another process is training {name} in {root}: wait for it to end.") from error
    except OSError as error:
        raise OwnModelError(f"The folder {root} cannot be written: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


def _progress() -> AbstractContextManager[Bars | Lines]:
    """Show how far steps are, and the time that is left."""
    return showing_steps(TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True))


def _print_findings(found: Findings, empty: tuple[str, ...]) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"{plural(len(found.photos), 'photo')} of {plural(len(found.classes), 'class')} to learn from:")
    for label, count in found.counts.items():
        console.print(f"  {count:6,}  {printable(label)}")
    _print_list(console, "No photo was found in", empty)
    if found.held_out:
        console.print(f"Only for testing: {plural(len(found.held_out), 'photo')}")
    if found.unknown:
        console.print(
            f"Not used: {plural(found.unknown, 'photo')} for testing, of classes that have none to learn from"
        )
    if found.copies:
        console.print(f"Left out as exact copies: {plural(found.copies, 'file')}")
    if found.near_duplicates:
        console.print(f"Nearly the same as another, and counted with it: {plural(found.near_duplicates, 'photo')}")
    _print_files(console, "Left out, the same photo under several labels", found.contradictions)
    _print_files(console, "Nearly the same photo under several labels", found.near_contradictions)
    _print_files(console, "Not read", found.unreadable)
    _print_list(console, f"Fewer than {MIN_PHOTOS} photos", found.small)


def _print_list(console: Console, title: str, names: Sequence[str]) -> None:
    if names:
        shown = ", ".join(printable(name) for name in names[:MAX_LISTED])
        console.print(f"{title}: {shown}{', …' if len(names) > MAX_LISTED else ''}")


def _print_files(console: Console, title: str, files: tuple[str, ...]) -> None:
    if files:
        console.print(f"{title}: {plural(len(files), 'photo')}")
    for file in files[:MAX_LISTED]:
        console.print(f"  {printable(file)}")
    if len(files) > MAX_LISTED:
        console.print(f"  and {len(files) - MAX_LISTED:,} more")


def _tune(
    chosen: backbones.Chosen,
    photo_set: PhotoSet,
    lesson: Lesson,
    options: Options,
    *,
    place: tuple[Path, str],
) -> tuple[Lesson, int]:
    """Tune, write the version, and remove what was kept for --resume; return the lesson and the version's number."""
    try:
        from ..training.tuning import remove_files, tune  # which import torch, as heads do not
        from ..training.tuning_steps import Shown
    except ImportError as error:
        raise PhotoSetError("--tune needs torch and torchvision: pip install torch torchvision.") from error

    root, name = place
    with _progress() as step:
        shown = Shown(step, step.say, lambda choice: step.say(sentence(choice, "en")))
        found = tune(chosen, photo_set, lesson, options, name=name, shown=shown)
    lesson = with_tuning(lesson, found)
    version = write_version(root, name, lesson.model, found.tuned.trunk if found.tuned else None)
    if not found.was_stopped:
        remove_files(chosen, name)
    return lesson, version


def _write_report(path: Path, lesson: Lesson, photo_set: PhotoSet | None, title: str, language: str) -> None:
    try:
        with replacing(path, 0o600) as out:
            out.write(write_report(lesson, photo_set, title=title, language=language).encode())
    except OSError as error:
        raise PhotoSetError(f"The report {path} cannot be written: {error.strerror}; the model is kept.") from error


def _print_result(lesson: Lesson) -> None:
    model, share = lesson.model, lesson.accuracy
    if lesson.compared:
        shares = ", ".join(f"{name} {100 * share:.1f}%" for name, share in lesson.compared.items())
        click.echo(f"Backbones compared, each by a head on the photos that were left out: {shares}.")
    is_tuned = lesson.tuning is not None and lesson.tuning.tuned is not None
    of = f"the {len(lesson.places):,} left-out photos" if is_tuned else "the photos when each was left out"
    click.echo(
        f"Right for {share.percent:.1f}% of {of} (95% interval {share.low:.1f} to {share.high:.1f}%), "
        f"on {model.backbone}."
    )
    if lesson.tested:
        tested = lesson.tested
        click.echo(f"Right for {tested.percent:.1f}% of the test photos ({tested.low:.1f} to {tested.high:.1f}%).")


def _serve(settings: Settings, name: str) -> None:
    if is_model_file(settings.model):
        click.echo(f"The file answers if no model is named; choose {name} on the page, or with ?model={name}.")
        environment = settings.for_child()
    else:
        environment = settings.for_child(model=name)
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-m", "app", "serve"], environment)

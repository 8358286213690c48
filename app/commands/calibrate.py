"""Measure, on your own labelled photos, how far the model's answers can be relied on.

FOLDER is labelled as for 'topthree evaluate', and holds at least 300 photos that the model was not trained on. They
give the temperature that turns logits into probabilities, the probability from which an answer is sure (95% of such
answers are right), and, where the model allows it, the score below which a photo is unlike all that the model knows.
The numbers are kept in the cache, and used for these weights from the next start on. A photo that cannot be read is
listed and left out, and the exit status is 1. Ctrl-C stores nothing.

\b
Examples:
  topthree calibrate photos/
  topthree calibrate --forget
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from ..classifier import Answer, Classifier
from ..errors import TopthreeError
from ..measuring.accuracy import find_labelled
from ..measuring.stream import printable
from ..model import Model, head_bias
from ..model.calibration import Calibration, calibration_file, write_calibration
from ..model.calibration_fit import fit_calibration
from ..model.certainty import rejection_score
from ..model.shares import wilson_interval
from ..photos.folders import MAX_FILE_BYTES
from ..settings import Settings
from . import INTERRUPTED, plural, settings_of_one_process

# With fewer, the interval of the temperature is wider than what calibration gains.
MIN_PHOTOS = 300


class CalibrationProblem(TopthreeError):
    """The photos or the model cannot be used for a calibration."""


@click.command(help=__doc__)
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--trust", is_flag=True, help="Go on although the model may have been trained on these photos.")
@click.option("--forget", is_flag=True, help="Remove your own calibration of the model's weights.")
def command(folder: Path | None, *, trust: bool, forget: bool) -> None:
    """Calibrate the model that would serve; nothing is stored unless everything was measured."""
    if forget == (folder is not None):
        raise click.UsageError("Give either a folder of photos or --forget.")
    settings = settings_of_one_process()
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        model = classifier.load_model()
        if model.own is not None:
            raise CalibrationProblem(f"{model.name} is a model of your own, which holds its calibration itself.")
        if folder is None:
            _forget(settings, model)
            return
        unreadable: list[str] = []
        try:
            found = _measure(classifier, model, folder, settings, unreadable=unreadable, trust=trust)
        except KeyboardInterrupt:
            click.echo("Stopped before everything was measured; nothing was stored.", err=True)
            raise SystemExit(INTERRUPTED) from None
    file = write_calibration(settings.cache, model.weights.sha256, found)
    _print_report(found, file)
    for line in unreadable:
        click.echo(f"Not read: {printable(line)}")
    if unreadable:
        raise SystemExit(1)


def _forget(settings: Settings, model: Model) -> None:
    file = calibration_file(settings.cache, model.weights.sha256)
    try:
        file.unlink()
    except FileNotFoundError:
        click.echo(f"There is no calibration of your own for {model.name}.")
    except OSError as error:
        raise CalibrationProblem(f"{file} cannot be removed: {error.strerror}.") from error
    else:
        click.echo(f"Removed {file}")


def _measure(
    classifier: Classifier, model: Model, folder: Path, settings: Settings, *, unreadable: list[str], trust: bool
) -> Calibration:
    """Classify the photos and fit; raises CalibrationProblem if they are too few, or of one class, or too easy."""
    photos = find_labelled(folder, model.labels)
    _check_photos(len(photos.truths), len(set(photos.truths.values())))
    rows = list(photos.classify(classifier, unreadable, top=1, max_pixels=settings.max_pixels, raw=True))
    truths = np.array([truth for truth, _ in rows])
    _check_photos(len(rows), len(set(truths)))
    right = sum(truth == answer.predictions[0].class_id for truth, answer in rows)
    if not trust:
        _check_accuracy(model, right, len(rows))
    logits = np.stack([answer.logits for _, answer in rows if answer.logits is not None])
    source = f"Measured by 'topthree calibrate' on {len(rows)} labelled photos of this installation."
    return fit_calibration(logits, truths, source=source, scores=_scores(model, [answer for _, answer in rows]))


def _check_photos(photos: int, classes: int) -> None:
    if photos < MIN_PHOTOS:
        raise CalibrationProblem(
            f"{plural(photos, 'labelled photo')} can be used, but a calibration needs at least {MIN_PHOTOS}."
        )
    if classes == 1:
        raise CalibrationProblem("All photos are of one class, but a calibration needs photos of several.")


def _check_accuracy(model: Model, right: int, photos: int) -> None:
    """Raise CalibrationProblem if even the lower end of the accuracy's interval exceeds the published accuracy."""
    published = model.weights.record.top1 if model.weights.is_published else None
    measured = wilson_interval(right, photos)
    if published and measured.low > published:
        raise CalibrationProblem(
            f"{model.name} is right on {measured.percent:.1f} % of these photos, much more than the published "
            f"{published:.1f} %: it may have been trained on them, and would seem surer than it is on new photos. "
            "If they are new to it, add --trust."
        )


def _scores(model: Model, answers: list[Answer]) -> npt.NDArray[np.float64] | None:
    """Return the rejection scores; None for a model without one linear layer, or with negative values before it."""
    bias = head_bias(model)
    pairs = [(a.logits, a.embedding) for a in answers if a.logits is not None and a.embedding is not None]
    logits, embeddings = (np.stack(rows) for rows in zip(*pairs, strict=True))
    return None if bias is None or embeddings.min() < 0 else rejection_score(logits, embeddings, bias)


def _print_report(found: Calibration, file: Path) -> None:
    rows = (
        ("temperature", found.temperature, "divides the logits"),
        ("sure_at", found.sure_at, "least probability of a sure answer"),
        ("unlike_below", found.unlike_below, "greatest score of a photo that is unlike the known ones"),
    )
    click.echo(f"Measured on {plural(found.photos or 0, 'photo')}:")
    for name, value, meaning in rows:
        if value is None:
            click.echo(f"  {name:13} not measured for this model")
        else:
            low, high = found.intervals[name]
            click.echo(f"  {name:13} {value:8.4f}   95% interval {low:.4f} to {high:.4f}   {meaning}")
    if found.sure_at == 1:
        click.echo("No probability is reached by photos of which 95% are right, so no answer will be sure.")
    click.echo(f"Stored in {file}")
    click.echo("A service uses it from its next start on; 'topthree calibrate --forget' removes it.")

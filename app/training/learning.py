"""A lesson: from a chosen backbone and its findings to a model of one's own, and the numbers that its report shows."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..model.labels import Label
from ..model.own_format import Accuracy, OwnModel
from ..model.probabilities import Doubles, softmax
from ..model.shares import Share, share_right
from ..model.solver import Numbers
from .backbones import Chosen
from .findings import Findings
from .fitting import (
    Fitted,
    calibrate,
    calibrate_left_out,
    choose_strength,
    fit,
    predict,
    rejection_scores,
    softmax_strength,
)
from .photosets import PhotoSet
from .tuning_result import Tuning


@dataclass(frozen=True)
class Lesson:
    """A model, the findings that it was learnt from, and its predictions for photos that were left out.

    `shares` (photos, classes) are the calibrated probabilities for the photos at `places`, each when it was left out,
    `accuracy` how often the first of them was right, and `tested` the same for the photos that were only for testing,
    if there are. `fitted` is the head, and `tuning` what tuning found, None if it was not asked for.
    """

    model: OwnModel
    findings: Findings
    shares: Doubles
    accuracy: Share
    tested: Share | None
    compared: dict[str, float]
    fitted: Fitted
    places: Numbers
    tuning: Tuning | None = None

    @property
    def truth(self) -> Numbers:
        """Return the class of each photo of `shares`."""
        return self.findings.task.classes[self.places]


def learn(
    chosen: Chosen, photo_set: PhotoSet, *, has_flip: bool, seed: int, step: Callable[[str, int, int], None]
) -> Lesson:
    """Fit the head, measure it on left-out photos, and put the model together; nothing is written."""
    findings, task = chosen.findings, chosen.findings.task
    if not has_flip:
        task = dataclasses.replace(task, rows=task.rows[:, :1])
    ridge, _, like = choose_strength(task)
    fitted = fit(task, softmax_strength(ridge), like, seed, lambda done, total: step("Fitting", done, total))
    calibration, centres = calibrate(fitted, task)
    accuracy = share_right(fitted.left_out.argmax(axis=1) == task.classes)
    recipe = {"head": "softmax", "flip": has_flip, "ridge_strength": ridge, "strength": fitted.strength}
    model = OwnModel(
        weight=fitted.weight[:, :-1].astype(np.float32),
        bias=fitted.weight[:, -1].astype(np.float32),
        labels=_labels(findings.classes, photo_set),
        backbone=chosen.model.weights.record.name,
        weights_sha256=chosen.model.weights.sha256,
        recipe=recipe,
        seed=seed,
        data_sha256=findings.data_sha256,
        photos=len(findings.photos),
        accuracy=Accuracy(accuracy.percent, accuracy.low, accuracy.high),
        calibration=calibration,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        centres=centres.astype(np.float32),
    )
    shares = softmax(fitted.left_out / (calibration.temperature or 1.0))
    places = np.arange(len(task.rows))
    return Lesson(model, findings, shares, accuracy, _test(fitted, findings), chosen.compared, fitted, places)


def with_tuning(lesson: Lesson, tuning: Tuning) -> Lesson:
    """Return the lesson of a tuned network in place of that of its head; the head's stays if tuning kept that."""
    if tuning.tuned is None:
        return dataclasses.replace(lesson, tuning=tuning)
    tuned, classes = tuning.tuned, lesson.findings.task.classes[tuning.places]
    left_out = tuning.left_out.astype(np.float64)
    scores = rejection_scores(left_out, tuning.embeddings, tuned.bias.astype(np.float64))
    calibration = calibrate_left_out(left_out, classes, scores)
    accuracy = share_right(left_out.argmax(axis=1) == classes)
    model = dataclasses.replace(
        lesson.model,
        weight=tuned.weight,
        bias=tuned.bias,
        recipe=dict(lesson.model.recipe) | {"head": "tuned"} | dict(tuning.recipe),
        accuracy=Accuracy(accuracy.percent, accuracy.low, accuracy.high),
        calibration=calibration,
        centres=None,  # which would be those of the backbone before it was tuned
    )
    return dataclasses.replace(
        lesson,
        model=model,
        shares=softmax(left_out / (calibration.temperature or 1.0)),
        accuracy=accuracy,
        tested=next((row.tested for row in tuning.rows if row.method == tuning.kept), None),
        places=tuning.places,
        tuning=tuning,
    )


def _labels(classes: tuple[str, ...], photo_set: PhotoSet) -> tuple[Label, ...]:
    return tuple(Label(number, None, label, photo_set.names_zh.get(label)) for number, label in enumerate(classes))


def _test(fitted: Fitted, findings: Findings) -> Share | None:
    if not findings.held_out:
        return None
    return share_right(predict(fitted.weight, findings.held_out_rows[:, 0]) == findings.held_out_classes)

"""Accuracy and reliability on labelled photos, with their confidence intervals."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..classifier import Answer, Classifier
from ..model.labels import Label, class_names
from ..model.shares import Share, wilson_interval
from ..photos.folders import FileProblem, is_unreadable, list_photos, true_class
from .reliability import Reliability, measure_reliability
from .stream import classify_files

RANKS = (1, 3, 5)
MAX_CONFUSIONS = 10


@dataclass(frozen=True)
class Confusion:
    """How many photos of one class were classified as another."""

    label: str
    taken_for: str
    photos: int


@dataclass(frozen=True)
class ClassAccuracy:
    """The photos of one class: how many, which share was recognised, and which share of its answers is right.

    `precision` is None for a class that was never the answer, `recall` for one without a photo.
    """

    label: str
    photos: int
    recall: Share | None
    precision: Share | None


@dataclass(frozen=True)
class Sure:
    """How many answers were sure, and the share of them that was wrong."""

    photos: int
    wrong: Share


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`; `unreadable` holds a line for each file that could not be read, with the reason.

    `uncalibrated` is measured on the confidences, `calibrated` on the probabilities, if the model has a temperature;
    both are None without a photo. `sure` is None if no certainty was measured for the model.
    """

    photos: int
    unreadable: list[str]
    unlabelled: list[str]
    top: dict[int, Share]
    images_per_second: float
    uncalibrated: Reliability | None
    calibrated: Reliability | None
    sure: Sure | None
    confusions: list[Confusion]
    classes: list[ClassAccuracy]
    model: dict[str, object]


@dataclass(frozen=True)
class LabelledPhotos:
    """The files of a folder: those with a class, those that cannot be read, and those without a class."""

    truths: dict[str, int]
    broken: list[str]
    unlabelled: list[str]

    def classify(
        self, classifier: Classifier, unreadable: list[str], *, top: int, max_pixels: int, raw: bool = False
    ) -> Iterator[tuple[int, Answer]]:
        """Yield the class and the answer of each photo; what cannot be read adds a line to `unreadable`.

        `top` and `raw` are those of `classify_files`.
        """
        files = [*self.truths, *self.broken]
        for file, outcome in classify_files(classifier, files, top=top, max_pixels=max_pixels, raw=raw):
            if isinstance(outcome, Answer):
                yield self.truths[file], outcome
            else:
                unreadable.append(f"{file}: {outcome}")


def find_labelled(folder: Path, labels: tuple[Label, ...]) -> LabelledPhotos:
    """List the labelled photos below `folder`; raises FileProblem if there is none."""
    classes = class_names(labels)
    truths = {file: true_class(Path(file), folder, classes) for file in list_photos([str(folder)])}
    labelled = {file: truth for file, truth in truths.items() if truth is not None}
    others = [file for file in truths if file not in labelled]
    if not labelled:
        raise FileProblem(f"No folder or file in {folder} is named after a class; begin names with the WordNet id.")
    broken = [file for file in others if is_unreadable(file)]
    return LabelledPhotos(labelled, broken, [file for file in others if file not in broken])


@dataclass
class _Tally:
    hits: collections.Counter[int] = field(default_factory=collections.Counter)
    # Photos by true class and answer.
    pairs: collections.Counter[tuple[int, int]] = field(default_factory=collections.Counter)
    right: list[bool] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    sure: list[bool] = field(default_factory=list)

    def add(self, truth: int, answer: Answer) -> None:
        found = [prediction.class_id for prediction in answer.predictions]
        first = answer.predictions[0]
        self.hits.update(rank for rank in RANKS if truth in found[:rank])
        self.pairs[truth, found[0]] += 1
        self.right.append(truth == found[0])
        self.confidences.append(first.confidence)
        if first.probability is not None:
            self.probabilities.append(first.probability)
        if answer.certainty is not None:
            self.sure.append(answer.certainty == "sure")

    def reliability(self, probabilities: list[float]) -> Reliability | None:
        return measure_reliability(np.array(probabilities), np.array(self.right)) if probabilities else None

    def sure_share(self) -> Sure | None:
        if not self.sure:
            return None
        wrong = sum(sure and not right for sure, right in zip(self.sure, self.right, strict=True))
        return Sure(sum(self.sure), wilson_interval(wrong, sum(self.sure)))


def evaluate(classifier: Classifier, folder: Path, *, max_pixels: int) -> Evaluation:
    """Classify all labelled photos below `folder`; raises FileProblem if there is no labelled photo."""
    model = classifier.load_model()
    found = find_labelled(folder, model.labels)
    classifier.warm_up()
    started = time.monotonic()
    tally, unreadable = _Tally(), list[str]()
    for truth, answer in found.classify(classifier, unreadable, top=max(RANKS), max_pixels=max_pixels):
        tally.add(truth, answer)
    seconds = time.monotonic() - started
    count = len(tally.right)
    return Evaluation(
        photos=count,
        unreadable=unreadable,
        unlabelled=found.unlabelled,
        top={rank: wilson_interval(tally.hits[rank], count) for rank in RANKS},
        images_per_second=round(count / seconds, 1),
        uncalibrated=tally.reliability(tally.confidences),
        calibrated=tally.reliability(tally.probabilities),
        sure=tally.sure_share(),
        confusions=_worst(tally.pairs, model.labels),
        classes=by_class(tally.pairs, model.labels),
        model=model.identity,
    )


def _worst(pairs: collections.Counter[tuple[int, int]], labels: Sequence[Label]) -> list[Confusion]:
    confused = collections.Counter({pair: photos for pair, photos in pairs.items() if pair[0] != pair[1]})
    return [
        Confusion(labels[truth].label, labels[answer].label, photos)
        for (truth, answer), photos in confused.most_common(MAX_CONFUSIONS)
    ]


def by_class(pairs: collections.Counter[tuple[int, int]], labels: Sequence[Label]) -> list[ClassAccuracy]:
    """Return every class that has a photo or was an answer, in the labels' order.

    `pairs` counts photos by true class and answer.
    """
    photos, answers = collections.Counter[int](), collections.Counter[int]()
    for (truth, answer), count in pairs.items():
        photos[truth] += count
        answers[answer] += count

    def share(class_id: int, of: collections.Counter[int]) -> Share | None:
        return wilson_interval(pairs[class_id, class_id], of[class_id]) if of[class_id] else None

    return [
        ClassAccuracy(labels[each].label, photos[each], share(each, photos), share(each, answers))
        for each in sorted({*photos, *answers})
    ]

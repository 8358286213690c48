"""Accuracy on labelled photos, with its confidence interval."""

from __future__ import annotations

import collections
import math
import time
from dataclasses import dataclass
from pathlib import Path

from ..classifier import Answer, Classifier
from ..model.labels import Label, class_names
from ..model.quantise import Z_95
from ..photos.folders import FileProblem, is_unreadable, list_photos, true_class
from .stream import classify_files

RANKS = (1, 3, 5)
MAX_CONFUSIONS = 10


@dataclass(frozen=True)
class Share:
    """A share of photos in percent, with its 95% interval."""

    percent: float
    low: float
    high: float


@dataclass(frozen=True)
class Confusion:
    """How many photos of one class were classified as another."""

    label: str
    taken_for: str
    photos: int


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`; `unreadable` holds a line for each file that could not be read, with the reason."""

    photos: int
    unreadable: list[str]
    unlabelled: list[str]
    top: dict[int, Share]
    images_per_second: float
    confusions: list[Confusion]
    model: dict[str, object]


@dataclass
class _Tally:
    hits: collections.Counter[int]
    confused: collections.Counter[tuple[int, int]]

    def add(self, truth: int, answer: Answer) -> None:
        found = [prediction.class_id for prediction in answer.predictions]
        self.hits.update(rank for rank in RANKS if truth in found[:rank])
        if truth != found[0]:
            self.confused[truth, found[0]] += 1


def evaluate(classifier: Classifier, folder: Path, *, max_pixels: int) -> Evaluation:
    """Classify all labelled photos below `folder`; raises FileProblem if there is no labelled photo."""
    classes = class_names(classifier.load_model().labels)
    truths = {file: true_class(Path(file), folder, classes) for file in list_photos([str(folder)])}
    labelled = {file: truth for file, truth in truths.items() if truth is not None}
    others = [file for file in truths if file not in labelled]
    if not labelled:
        raise FileProblem(f"No folder or file in {folder} is named after a class; begin names with the WordNet id.")
    classifier.warm_up()
    started = time.monotonic()
    tally = _Tally(collections.Counter(), collections.Counter())
    unreadable = []
    files = [*labelled, *filter(is_unreadable, others)]
    for file, outcome in classify_files(classifier, files, top=max(RANKS), max_pixels=max_pixels):
        if isinstance(outcome, Answer):
            tally.add(labelled[file], outcome)
        else:
            unreadable.append(f"{file}: {outcome}")
    seconds = time.monotonic() - started
    count = len(files) - len(unreadable)
    return Evaluation(
        photos=count,
        unreadable=unreadable,
        unlabelled=[file for file in others if not is_unreadable(file)],
        top={rank: wilson_interval(tally.hits[rank], count) for rank in RANKS},
        images_per_second=round(count / seconds, 1),
        confusions=_worst(tally.confused, classifier.load_model().labels),
        model=classifier.load_model().identity,
    )


def wilson_interval(hits: int, count: int) -> Share:
    """Return hits / count in percent with its 95% interval (Wilson, JASA 22, 1927)."""
    if count == 0:
        return Share(0.0, 0.0, 100.0)
    z = Z_95
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Share(*(round(100 * value, 2) for value in (share, max(0.0, centre - half), min(1.0, centre + half))))


def _worst(confused: collections.Counter[tuple[int, int]], labels: tuple[Label, ...]) -> list[Confusion]:
    return [
        Confusion(labels[truth].label, labels[answer].label, photos)
        for (truth, answer), photos in confused.most_common(MAX_CONFUSIONS)
    ]

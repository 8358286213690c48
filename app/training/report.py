"""The report on a model: one HTML file without scripts or other files, in English or Chinese."""

from __future__ import annotations

import collections
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import TopthreeError
from ..measuring.accuracy import ClassAccuracy, by_class
from ..measuring.reliability import reliability_bins
from ..photos.decoders import Decoders
from ..photos.decoding import Geometry
from ..photos.protocol import Wanted
from ..reports import data_address, read_words, render_report
from .findings import MIN_PHOTOS
from .learning import Lesson
from .photosets import MAX_PHOTO_BYTES, PhotoSet
from .tuning_result import Choice, Tuning

_WORDS = Path(__file__).with_name("report_words.json")
_TEMPLATE = Path(__file__).with_name("report.html")
MAX_DOUBTFUL = 24
MAX_CLASSES_OF_MATRIX = 40
THUMBNAIL_SIDE = 160
_THUMBNAIL_MEMORY = 512 * 2**20
_BINS = 10
_CURVE_WIDTH, _CURVE_HEIGHT = 300, 120
# A class needs more photos if fewer of its photos than this are found.
_MIN_RECALL_PERCENT = 70.0


@dataclass(frozen=True)
class Doubtful:
    """A photo whose prediction contradicts its label, with the probability of what it was taken for."""

    file: str
    label: str
    taken_for: str
    probability: float
    picture: str | None


def write_report(lesson: Lesson, photo_set: PhotoSet | None, *, title: str, language: str) -> str:
    """Return the report as HTML; with a `photo_set` it shows small copies of the photos most against their label."""
    words = read_words(_WORDS, language)
    predicted, truth = lesson.shares.argmax(axis=1), lesson.truth
    bins = reliability_bins(lesson.shares.max(axis=1), predicted == truth, _BINS)
    pairs = collections.Counter(zip(truth.tolist(), predicted.tolist(), strict=True))
    classes = range(len(lesson.findings.classes))
    labels = [_shown(label.label, label.label_zh, language) for label in lesson.model.labels]
    has_matrix = len(classes) <= MAX_CLASSES_OF_MATRIX
    return render_report(
        _TEMPLATE,
        words,
        language,
        title=title,
        lesson=lesson,
        labels=labels,
        matrix=[[pairs[row, column] for column in classes] for row in classes] if has_matrix else None,
        classes=by_class(pairs, lesson.model.labels),
        needs_more=_needs_more,
        bins=[found for found in bins if found.photos],
        doubtful=_doubtful(lesson, labels, photo_set),
        has_pictures=photo_set is not None,
        max_classes=MAX_CLASSES_OF_MATRIX,
        choices=[sentence(choice, language) for choice in lesson.tuning.choices] if lesson.tuning else (),
        curves=_curves(lesson.tuning, words) if lesson.tuning else (),
    )


def sentence(choice: Choice, language: str) -> str:
    """Return one decision of tuning with its reason."""
    words = read_words(_WORDS, language)
    values = {name: words[f"tune.{value}"] if name == "method" else value for name, value in choice.values.items()}
    return words[f"choice.{choice.key}"].format(**values)


@dataclass(frozen=True)
class Curve:
    """The accuracy on left-out photos after each epoch of a phase: points of a line in SVG, and the numbers."""

    name: str
    points: str
    percents: tuple[float, ...]


def _curves(tuning: Tuning, words: dict[str, str]) -> list[Curve]:
    by_phase: dict[str, list[float]] = {}
    count = max(1, len(tuning.places))
    for epoch in tuning.epochs:
        by_phase.setdefault(epoch.phase, []).append(100 * epoch.hits / count)
    low = min((percent for found in by_phase.values() for percent in found), default=0.0)
    high = max((percent for found in by_phase.values() for percent in found), default=100.0)
    curves = []
    for phase, percents in by_phase.items():
        step = _CURVE_WIDTH / max(1, len(percents) - 1)
        points = " ".join(
            f"{step * at:.1f},{_CURVE_HEIGHT * (high - percent) / max(0.1, high - low):.1f}"
            for at, percent in enumerate(percents)
        )
        curves.append(Curve(words[f"tune.{phase.split()[-1]}"], points, tuple(percents)))
    return curves


def _shown(label: str, label_zh: str | None, language: str) -> str:
    return label_zh if language == "zh" and label_zh else label


def _needs_more(found: ClassAccuracy) -> bool:
    """Return whether more photos would help most here."""
    return found.photos < MIN_PHOTOS or found.recall is None or found.recall.percent < _MIN_RECALL_PERCENT


def _doubtful(lesson: Lesson, labels: list[str], photo_set: PhotoSet | None) -> list[Doubtful]:
    """Return the photos most against their label: by how much the prediction is more probable than the label."""
    shares, truth = lesson.shares, lesson.truth
    against = shares.max(axis=1) - shares[np.arange(len(truth)), truth]
    order = [int(at) for at in np.argsort(-against, kind="stable")[:MAX_DOUBTFUL] if against[at] > 0]
    files = [lesson.findings.photos[lesson.places[at]].file for at in order]
    pictures: list[str | None] = [None] * len(order) if photo_set is None else _pictures(photo_set, files)
    return [
        Doubtful(file, labels[truth[at]], labels[int(shares[at].argmax())], float(shares[at].max()), picture)
        for at, file, picture in zip(order, files, pictures, strict=True)
    ]


def _pictures(photo_set: PhotoSet, files: list[str]) -> list[str | None]:
    decoders = Decoders(1, max_bytes=MAX_PHOTO_BYTES, memory_bytes=_THUMBNAIL_MEMORY)
    try:
        return [_picture(photo_set, file, decoders) for file in files]
    finally:
        decoders.close()


def _picture(photo_set: PhotoSet, file: str, decoders: Decoders) -> str | None:
    """Return a small copy of a photo as a data address; None if it can no longer be read."""
    try:
        found = decoders.decode(photo_set.read(file), Wanted(Geometry(), Image.MAX_IMAGE_PIXELS or 0, THUMBNAIL_SIDE))
    except TopthreeError:
        return None
    out = io.BytesIO()
    thumbnail: Any = found.thumbnail
    Image.fromarray(thumbnail).save(out, "JPEG", quality=80)
    return data_address(out.getvalue())

"""The report on a model: one HTML file without scripts or other files, in English or Chinese."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from ..errors import TopthreeError
from ..model.probabilities import Doubles
from ..model.solver import Numbers
from ..photos.decoders import Decoders
from ..photos.decoding import Geometry
from ..photos.protocol import Wanted
from .findings import MIN_PHOTOS
from .learning import Lesson
from .photosets import MAX_PHOTO_BYTES, PhotoSet

LANGUAGES = ("en", "zh")
_WORDS = Path(__file__).with_name("report_words.json")
_TEMPLATE = Path(__file__).with_name("report.html")
MAX_DOUBTFUL = 24
MAX_CLASSES_OF_MATRIX = 40
THUMBNAIL_SIDE = 160
_THUMBNAIL_MEMORY = 512 * 2**20
_BINS = 10
# A class needs more photos if fewer of its photos than this are found.
_MIN_RECALL = 0.7


@dataclass(frozen=True)
class ClassResult:
    """One class: its photos, and the precision and recall of its left-out predictions; None without any."""

    label: str
    photos: int
    precision: float | None
    recall: float

    @property
    def needs_more(self) -> bool:
        """Return whether more photos would help most here."""
        return self.photos < MIN_PHOTOS or self.recall < _MIN_RECALL


@dataclass(frozen=True)
class Bin:
    """Photos whose first probability is about as high: the mean probability, the share that is right, their number."""

    probability: float
    right: float
    photos: int


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
    words = json.loads(_WORDS.read_text(encoding="utf-8"))[language]
    # All values are escaped: names of classes and files are anybody's.
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    predicted = lesson.shares.argmax(axis=1)
    truth, names = lesson.findings.task.classes, lesson.findings.classes
    matrix = confusion_matrix(truth, predicted, len(names))
    return template.render(
        words=words,
        language="zh-Hans" if language == "zh" else "en",
        title=title,
        lesson=lesson,
        labels=[_shown(label.label, label.label_zh, language) for label in lesson.model.labels],
        matrix=matrix.tolist() if len(names) <= MAX_CLASSES_OF_MATRIX else None,
        classes=class_results(matrix, names),
        bins=reliability(lesson.shares, truth),
        doubtful=_doubtful(lesson, photo_set),
        has_pictures=photo_set is not None,
        max_classes=MAX_CLASSES_OF_MATRIX,
    )


def _shown(label: str, label_zh: str | None, language: str) -> str:
    return label_zh if language == "zh" and label_zh else label


def confusion_matrix(truth: Numbers, predicted: Numbers, count: int) -> Numbers:
    """Return how many photos of each class (rows) were taken for each class (columns)."""
    matrix = np.zeros((count, count), np.intp)
    np.add.at(matrix, (truth, predicted), 1)
    return matrix


def class_results(matrix: Numbers, names: tuple[str, ...]) -> list[ClassResult]:
    """Return precision and recall of each class from a confusion matrix."""
    right, photos, taken = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        ClassResult(
            name,
            int(photos[at]),
            float(right[at] / taken[at]) if taken[at] else None,
            float(right[at] / max(1, photos[at])),
        )
        for at, name in enumerate(names)
    ]


def reliability(shares: Doubles, truth: Numbers) -> list[Bin]:
    """Return the bins of a reliability diagram, each of an equal range of the first probability; no empty ones."""
    first, is_right = shares.max(axis=1), shares.argmax(axis=1) == truth
    numbers = np.minimum((first * _BINS).astype(int), _BINS - 1)
    return [
        Bin(float(first[chosen].mean()), float(is_right[chosen].mean()), int(chosen.sum()))
        for number in range(_BINS)
        if (chosen := numbers == number).any()
    ]


def _doubtful(lesson: Lesson, photo_set: PhotoSet | None) -> list[Doubtful]:
    """Return the photos most against their label: by how much the prediction is more probable than the label."""
    shares, truth = lesson.shares, lesson.findings.task.classes
    against = shares.max(axis=1) - shares[np.arange(len(truth)), truth]
    order = [int(at) for at in np.argsort(-against, kind="stable")[:MAX_DOUBTFUL] if against[at] > 0]
    names, files = lesson.findings.classes, [lesson.findings.photos[at].file for at in order]
    pictures: list[str | None] = [None] * len(order) if photo_set is None else _pictures(photo_set, files)
    return [
        Doubtful(file, names[truth[at]], names[int(shares[at].argmax())], float(shares[at].max()), picture)
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
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"

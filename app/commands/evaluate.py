"""`topthree evaluate`: accuracy on labelled photos, with how sure it can be."""

from __future__ import annotations

import collections
import json
import math
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from ..classifier import Classifier
from ..errors import TopthreeError
from ..measuring.stream import classify_files, printable
from ..model import Model
from ..model.labels import Label, class_names
from ..photos.folders import MAX_FILE_BYTES, FileProblem, list_photos, true_class
from ..settings import Settings

RANKS = (1, 3, 5)
WORST_CLASSES = 10


@dataclass(frozen=True)
class Share:
    """A share of photos in percent, with its 95% interval."""

    percent: float
    low: float
    high: float


@dataclass(frozen=True)
class Confusion:
    """How often photos of one class were taken for another."""

    label: str
    taken_for: str
    photos: int


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found."""

    photos: int
    unreadable: list[str]
    unlabelled: list[str]
    top: dict[int, Share]
    images_per_second: float
    confusions: list[Confusion]
    model: dict[str, object]


def run(settings: Settings, folder: Path, *, as_json: bool) -> bool:
    """Evaluate the model that would serve and print the result; return whether every photo could be read."""
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        result = evaluate(classifier, folder, max_pixels=settings.max_pixels)
        model = classifier.load_model()
    if as_json:
        print(json.dumps(asdict(result), ensure_ascii=False, indent=1))
    else:
        _print_report(result, model)
    return not result.unreadable


def evaluate(classifier: Classifier, folder: Path, *, max_pixels: int) -> Evaluation:
    """Classify all labelled photos below `folder`; raises FileProblem if none is labelled."""
    classes = class_names(classifier.load_model().labels)
    truths = {file: true_class(Path(file), folder, classes) for file in list_photos([str(folder)])}
    labelled = [file for file, truth in truths.items() if truth is not None]
    if not labelled:
        raise FileProblem(f"No file or folder in {folder} is named after a class; begin names with the WordNet id.")
    classifier.warm_up()
    started = time.monotonic()
    hits: collections.Counter[int] = collections.Counter()
    confused: collections.Counter[tuple[int, int]] = collections.Counter()
    unreadable = []
    for file, outcome in classify_files(classifier, labelled, top=max(RANKS), max_pixels=max_pixels):
        if isinstance(outcome, TopthreeError):
            unreadable.append(f"{file}: {outcome}")
            continue
        truth, answers = truths[file], [prediction.class_id for prediction in outcome.predictions]
        hits.update(rank for rank in RANKS if truth in answers[:rank])
        if truth is not None and truth != answers[0]:
            confused[truth, answers[0]] += 1
    seconds = time.monotonic() - started
    count = len(labelled) - len(unreadable)
    return Evaluation(
        photos=count,
        unreadable=unreadable,
        unlabelled=[file for file, truth in truths.items() if truth is None],
        top={rank: wilson_interval(hits[rank], count) for rank in RANKS},
        images_per_second=round(count / seconds, 1),
        confusions=_worst(confused, classifier.load_model().labels),
        model=classifier.load_model().identity,
    )


def wilson_interval(hits: int, count: int) -> Share:
    """Return hits of count in percent with its 95% interval (Wilson, JASA 22, 1927)."""
    if count == 0:
        return Share(0.0, 0.0, 100.0)
    z = 1.959964
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return Share(*(round(100 * value, 2) for value in (share, max(0.0, centre - half), min(1.0, centre + half))))


def _worst(confused: collections.Counter[tuple[int, int]], labels: tuple[Label, ...]) -> list[Confusion]:
    return [
        Confusion(labels[truth].label, labels[answer].label, photos)
        for (truth, answer), photos in confused.most_common(WORST_CLASSES)
    ]


def _print_report(result: Evaluation, model: Model) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    identity = result.model
    console.print(f"{identity['name']} ({identity['engine']}, {identity['precision']}) on {result.photos} photos")
    for rank, share in result.top.items():
        console.print(f"  top-{rank}  {share.percent:6.2f} %   95% interval {share.low:.2f} to {share.high:.2f} %")
    console.print(f"  {result.images_per_second} images per second, decoding included")
    if model.weights.is_published:
        record = model.weights.record
        published = [f"top-{k} {value} %" for k, value in ((1, record.top1), (5, record.top5)) if value]
        console.print(f"  published for ImageNet's validation set: {', '.join(published)}")
    if result.confusions:
        console.print("Most confused:")
    for confusion in result.confusions:
        console.print(f"  {confusion.photos:3}  {confusion.label} taken for {confusion.taken_for}")
    for line in result.unreadable:
        console.print(f"Not read: {printable(line)}")
    if result.unlabelled:
        console.print(f"Not labelled, left out: {len(result.unlabelled)} files")

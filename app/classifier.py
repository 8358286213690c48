"""`Classifier`: photos in, predictions out; loads its model once per process, on first use."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import (
    BrokenImage,
    ModelUnavailable,
    Overloaded,
    Problem,
    TooCostly,
    TooManyPixels,
    TopthreeError,
    UnsupportedImage,
)
from .model import KNOWN_PHOTO, KNOWN_PIXELS, Model, check_model, load_model
from .model.certainty import NO_JUDGEMENT, Certainty, Judgement
from .model.engines import Engine, Floats, Inference, Pixels
from .model.heads import Head
from .model.labels import Label
from .photos.decoders import Decoded, Decoders
from .photos.decoding import Geometry
from .photos.heatmaps import MAX_HEATMAPS, Grid, activation_maps
from .photos.protocol import Wanted
from .processes.plan import SPARE_SLOTS, make_plan
from .queueing.lanes import Lanes
from .queueing.scheduling import NO_DEADLINE, Batcher, Deadline, Slots, Turn
from .settings import Settings
from .telemetry import metrics, traces

MAX_BATCH = 32
# The known photo may take this long, including the wait for a slot, before the check fails.
CHECK_SECONDS = 20.0
DOUBT_SECONDS = 10.0


@dataclass(frozen=True)
class Prediction:
    """One class with its rank, from 1, and its probabilities, rounded to 6 digits.

    `confidence` is the softmax of the logits, `probability` the calibrated one; None if the model's temperature is not
    known.
    """

    rank: int
    class_id: int
    wnid: str | None
    label: str
    label_zh: str | None
    label_gloss: str | None
    confidence: float
    probability: float | None


@dataclass(frozen=True)
class GroupPrediction:
    """A group of classes, and the calibrated probability that the photo shows one of them, rounded to 6 digits."""

    wnid: str
    label: str
    label_zh: str
    probability: float


@dataclass(frozen=True)
class Outputs:
    """The results to compute for a photo: its `top` most likely classes, and more.

    `heatmap` asks for a heat map of each of the first `MAX_HEATMAPS` of them, or only of `heatmap_class` if that is
    given. `thumbnail_side` is the longest side of a small copy in pixels, 0 for none.
    """

    top: int = 3
    heatmap: bool = False
    heatmap_class: int | None = None
    thumbnail_side: int = 0
    embedding: bool = False


DEFAULT_OUTPUTS = Outputs()


@dataclass(frozen=True)
class Answer:
    """The most likely classes of a photo, facts about the image, and the duration of each stage in seconds.

    `certainty` says how far to rely on the first class; None if that was not measured for the model. `group` is the
    smallest group of classes that is sure, if no class is. `image` holds width, height, format and SHA-256 as answers
    show them. If heat maps were asked for, `heatmaps` holds
    rows of numbers from 0 to 1 for each of the first `MAX_HEATMAPS` predictions, and `image` the crop that they cover;
    a model without heat maps has None. `thumbnail` is uint8 RGB of shape (height, width, 3), and `embedding` float32
    (C), the spatial mean of the features, if they were asked for. `batch_size` is the number of photos that were
    computed together.
    """

    predictions: list[Prediction]
    certainty: Certainty | None
    group: GroupPrediction | None
    image: dict[str, Any]
    heatmaps: list[Grid] | None
    thumbnail: Pixels | None
    embedding: Floats | None
    decode_seconds: float
    queue_seconds: float
    infer_seconds: float
    batch_size: int


class Classifier:
    """The one model of a process. `load` creates it on first use; the next use tries again if that fails."""

    def __init__(self, load: Callable[[], Model], decoders: Decoders, *, cpus: int = 1) -> None:
        self._load = load
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._failed_loads = 0
        self._cpus = cpus
        self._decoders = decoders
        self.slots = Slots(cpus + SPARE_SLOTS)
        self._lanes = Lanes(self.slots, decoders)
        self._batcher = Batcher(self._infer_batch, max_batch=MAX_BATCH)
        self._last_success = 0.0
        self._asked_since = False
        self.failure: ModelUnavailable | None = None

    @classmethod
    def from_settings(cls, settings: Settings, *, max_bytes: int | None = None) -> Classifier:
        """Create the classifier of the settings; its model is loaded and its decoders start on first use.

        Photos may have up to `max_bytes`, by default as many as an upload.
        """
        plan = make_plan(settings)
        decoders = Decoders(
            plan.decoders, max_bytes=max_bytes or settings.max_upload_bytes, memory_bytes=plan.photo_memory_bytes
        )
        return cls(lambda: load_model(settings), decoders, cpus=plan.cpus_per_worker)

    def load_model(self) -> Model:
        """Return the model, loading it first if none is loaded; raises ModelUnavailable with the reason."""
        if self._model is None:
            failed_before = self._failed_loads
            with self._loading:  # threads that wait for another one's load share its result, a failure too
                if self._failed_loads > failed_before and self.failure:
                    raise ModelUnavailable(self.failure.detail, self.failure.reason)
                if self._model is None:
                    self._load_first()
        assert self._model is not None
        return self._model

    @property
    def loaded_model(self) -> Model | None:
        """Return the model if it is loaded; never loads it."""
        return self._model

    @property
    def max_parallel(self) -> int:
        """Return how many photos of one request are computed in parallel; loads the model if necessary."""
        return MAX_BATCH if self.load_model().engine.batches else self._cpus

    def _load_first(self) -> None:
        try:
            self._put(self._try_load())
        except ModelUnavailable as error:
            self._note_failure(error)
            self._failed_loads += 1
            raise
        self.failure = None

    def _try_load(self) -> Model:
        try:
            return self._load()
        except TopthreeError as error:
            raise ModelUnavailable(error.public, str(error)) from error
        except (RuntimeError, OSError, ValueError, ImportError) as error:  # of engines
            raise ModelUnavailable(TopthreeError.public, str(error)) from error

    def _note_failure(self, error: ModelUnavailable) -> None:
        """Store the text of a failure, without the frames that its traceback would keep in memory."""
        self.failure = ModelUnavailable(error.detail, error.reason)

    def _put(self, model: Model) -> None:
        self._model = model
        metrics.set_model(model.identity)

    def build(self) -> Model:
        """Load and check another model from the files that the settings name; the model in use stays in use.

        Raises ModelUnavailable with the reason.
        """
        model = self._try_load()
        self._check(model)
        return model

    def use(self, model: Model) -> None:
        """Answer with this model from the next request on; requests in progress keep the one they began with."""
        with self._loading:
            self._put(model)

    def warm_up(self) -> None:
        """Load the model and have it classify the known photo; raises ModelUnavailable with the reason.

        The photo takes the same path as any other, decoder included, so that a failure here is a failure of all.
        Decoders and model start at the same time.
        """
        with suppress(Overloaded):  # it is tried again with the known photo, whose failure is reported
            self._decoders.begin()
        model = self.load_model()
        try:
            self._check(model)
        except ModelUnavailable as error:
            self._note_failure(error)
            raise
        self.failure = None
        self._note_success()

    def log_sandbox(self) -> None:
        """Log which restrictions the decoders' sandbox enforces; call it when they have started."""
        self._decoders.log_measures()

    def _check(self, model: Model) -> None:
        wanted = Wanted(model.weights.record.geometry, KNOWN_PIXELS)
        deadline = Deadline(time.monotonic() + CHECK_SECONDS)
        try:
            with self._decoded(KNOWN_PHOTO.read_bytes(), wanted, deadline) as (photo, _):
                check_model(model, photo.crop)
        except ModelUnavailable:
            raise
        except Problem as problem:
            raise ModelUnavailable(f"The known photo was not answered: {problem}") from problem
        except (OSError, RuntimeError, ValueError) as error:  # of engines and files; their texts may name paths
            raise ModelUnavailable(TopthreeError.public, f"The known photo was not answered: {error}") from error

    def _note_success(self) -> None:
        self._last_success, self._asked_since = time.monotonic(), False

    @property
    def is_in_doubt(self) -> bool:
        """Return whether there were requests for photos, but none has succeeded for `DOUBT_SECONDS`."""
        return self._asked_since and time.monotonic() - self._last_success >= DOUBT_SECONDS

    def classify(
        self,
        data: bytes,
        outputs: Outputs = DEFAULT_OUTPUTS,
        *,
        max_pixels: int,
        sha256: str | None = None,
        model: Model | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Answer:
        """Decode a photo and compute its outputs.

        `sha256` is the photo's digest if the caller knows it already. `model` is for callers that have used a model
        before and need the same one, even if it has been replaced since.
        Raises what `Lanes.decoded` raises, and ModelUnavailable.
        """
        model = model or self.load_model()
        geometry = model.weights.record.geometry
        wanted = Wanted(geometry, max_pixels, outputs.thumbnail_side)
        arrived = time.monotonic()
        self._asked_since = True
        with self._decoded(data, wanted, deadline) as (photo, turn):
            decoded = time.monotonic()
            deadline.check()
            if not model.engine.batches:
                inference, batch_size = model.engine.infer(photo.crop[None], alone=turn.is_exclusive), 1
        if model.engine.batches:
            inference, batch_size = self._batcher.submit((model.engine, photo.crop), deadline).result()
        finished = time.monotonic()
        embedding = None
        if outputs.embedding or model.judge.needs_embedding:
            embedding = inference.features[0].mean(axis=(1, 2))
        judgement = model.judge.judge(inference.logits[0], embedding)
        predictions = _predictions(inference.logits[0], model.labels, outputs.top, judgement)
        answer = Answer(
            predictions,
            judgement.certainty,
            _group(judgement),
            _image_facts(photo, sha256 or hashlib.sha256(data).hexdigest(), geometry if outputs.heatmap else None),
            heatmaps=_heatmaps(inference, model.engine.head, predictions, outputs),
            thumbnail=photo.thumbnail,
            embedding=embedding if outputs.embedding else None,
            decode_seconds=decoded - arrived - turn.waited_seconds,
            queue_seconds=turn.waited_seconds,
            infer_seconds=finished - decoded,
            batch_size=batch_size,
        )
        self._note_success()
        metrics.photo_computed(answer)
        traces.photo_computed(answer)
        return answer

    def thumbnail(
        self, data: bytes, *, side: int, max_pixels: int, deadline: Deadline = NO_DEADLINE
    ) -> tuple[Pixels, float, float]:
        """Decode a photo to the upright picture that the model's crop is cut from, no side above `side`.

        Return uint8 RGB of shape (height, width, 3), and how many seconds decoding and waiting for a slot took. Needs
        no model. Raises what `Lanes.decoded` raises.
        """
        arrived = time.monotonic()
        with self._decoded(data, Wanted(Geometry(), max_pixels, side), deadline) as (photo, turn):
            seconds = time.monotonic() - arrived - turn.waited_seconds
        assert photo.thumbnail is not None
        return photo.thumbnail, seconds, turn.waited_seconds

    def close(self) -> None:
        """Answer the requests that wait, then stop the batcher's thread and the decoders."""
        self._batcher.close()
        self._decoders.close()

    @contextmanager
    def _decoded(self, data: bytes, wanted: Wanted, deadline: Deadline) -> Iterator[tuple[Decoded, Turn]]:
        try:
            with self._lanes.decoded(data, wanted, deadline) as found:
                yield found
        except (BrokenImage, TooCostly, TooManyPixels, UnsupportedImage) as problem:
            metrics.count_decode_failure(problem.slug)
            raise

    def _infer_batch(self, items: Sequence[tuple[Engine, Pixels]]) -> list[tuple[Inference, int]]:
        """Compute crops in one batch for each model: after a reload, crops of both models may wait."""
        results: list[tuple[Inference, int]] = []
        for engine, group in itertools.groupby(items, key=lambda item: item[0]):
            crops = np.stack([crop for _, crop in group])
            inference, size = engine.infer(crops), len(crops)
            results += [
                (Inference(inference.logits[i : i + 1], inference.features[i : i + 1]), size) for i in range(size)
            ]
        return results


def softmax(logits: Floats) -> Floats:
    """Turn the logits of one photo into probabilities that add up to 1."""
    weights = np.exp(logits - logits.max())
    return np.asarray(weights / weights.sum(), dtype=np.float32)


def _heatmaps(
    inference: Inference, head: Head | None, predictions: Sequence[Prediction], outputs: Outputs
) -> list[Grid] | None:
    if head is None or not outputs.heatmap:
        return None
    first = [row.class_id for row in predictions[:MAX_HEATMAPS]]
    ids = first if outputs.heatmap_class is None else [outputs.heatmap_class]
    return activation_maps(head.cells(inference.features[0]), head.weight[ids])


def _image_facts(photo: Decoded, sha256: str, geometry: Geometry | None) -> dict[str, object]:
    facts: dict[str, object] = {"width": photo.width, "height": photo.height, "format": photo.format, "sha256": sha256}
    if geometry is not None:
        names = ("left", "top", "right", "bottom")
        edges = geometry.fractions(photo.width, photo.height)
        facts["crop"] = {name: round(edge, 6) for name, edge in zip(names, edges, strict=True)}
    return facts


def _predictions(
    logits: Floats, labels: tuple[Label, ...], top: int, judgement: Judgement = NO_JUDGEMENT
) -> list[Prediction]:
    confidences, probabilities = softmax(logits), judgement.probabilities
    order = np.argsort(-confidences, kind="stable")[:top]
    return [
        Prediction(
            rank,
            **vars(at),
            confidence=round(float(confidences[at.class_id]), 6),
            probability=None if probabilities is None else round(float(probabilities[at.class_id]), 6),
        )
        for rank, at in enumerate((labels[index] for index in order), start=1)
    ]


def _group(judgement: Judgement) -> GroupPrediction | None:
    if judgement.group is None:
        return None
    return GroupPrediction(**vars(judgement.group), probability=round(judgement.group_probability, 6))

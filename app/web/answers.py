"""One photo's answer as bytes: the same photo, model and parameters always give the same ones.

The bytes are JSON without the model, so that one cached response serves a single request, a batch and a stream.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import flask
import msgspec
import numpy as np
from msgspec import UNSET

from ..classifier import Answer, Classifier
from ..errors import BrokenImage, InternalError, NoEmbedding, Problem
from ..model import Model
from ..model.engines import Pixels
from ..model.heads import Floats, of_length_one
from ..model.verdicts import Outputs, Prediction, Verdict
from ..photos.heatmaps import Grid
from ..processes.memory import forget_frames
from ..queueing.cache import ResultCache, Source
from ..queueing.scheduling import Deadline, side_by_side
from ..version import __version__
from . import schemas
from .mistakes import explain_damage
from .parameters import Names, Parameters
from .problems import FAILED
from .service import request_state, service
from .uploads import JSON, request_deadline

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rendered:
    """One photo's answer in bytes, its first model, where it came from, and the stages if it was computed now."""

    body: bytes
    source: Source
    computed: Answer | None
    model: Model


@dataclass
class Answerer:
    """Answers the photos of one request; its methods may run in any thread.

    `caller` is the name of the request's key, None if keys are not required. Cached responses are shared only between
    requests of the same caller, because the time of an answer would show which photos another caller has sent. `names`
    are the models that the request asks for, none for the default one; `note` is called with them, unless `models` are
    given.
    """

    classifier: Classifier
    results: ResultCache
    max_pixels: int
    deadline: Deadline
    caller: str | None
    names: tuple[str, ...]
    note: Callable[[Sequence[Model]], object]
    models: list[Model] | None = None

    def load_models(self) -> list[Model]:
        """Return the models of this request, which a reload does not change; loads them if necessary.

        Raises UnknownModel and ModelUnavailable.
        """
        if self.models is None:
            self.models = self.classifier.find_models(self.names)
            self.note(self.models)
        return self.models

    def load_model(self) -> Model:
        """Return the first model of this request, as `load_models` does."""
        return self.load_models()[0]

    def classify(self, data: bytes, outputs: Outputs, sha256: str | None = None) -> Answer:
        """Classify a photo within the limits of this request; raises what `Classifier.classify` raises."""
        return self.classifier.classify(
            data,
            outputs,
            max_pixels=self.max_pixels,
            sha256=sha256,
            models=self.load_models(),
            deadline=self.deadline,
        )

    def thumbnail(self, data: bytes, side: int) -> tuple[Pixels, float, float]:
        """Decode a photo to a small picture, as `Classifier.thumbnail` does; needs no model."""
        return self.classifier.thumbnail(data, side=side, max_pixels=self.max_pixels, deadline=self.deadline)

    def predict(self, data: bytes, parameters: Parameters) -> Rendered:
        """Return the most likely classes of a photo, as the JSON of `schemas.Photo`."""
        outputs = Outputs(top=parameters.top, heatmap=parameters.heatmap)
        return self._render(data, parameters, outputs, lambda answer: encode(_photo(answer, parameters)))

    def embed(self, data: bytes, *, normalize: bool, as_npy: bool) -> Rendered:
        """Return the embedding of a photo, as the JSON of `schemas.PhotoEmbedding` or as a .npy file of float32.

        Raises NoEmbedding for a model without one.
        """

        def write(answer: Answer) -> bytes:
            assert answer.embedding is not None
            if not answer.embedding.size:
                raise NoEmbedding(f"The model {answer.model.name} gives no embedding.")
            vector = of_length_one(answer.embedding) if normalize else answer.embedding
            if as_npy:
                return _npy(vector)
            # str() gives the shortest decimals that read back as the same float32.
            numbers = [float(str(number)) for number in vector]
            return encode(schemas.PhotoEmbedding(numbers, len(numbers), normalize, schemas.Image(**answer.image)))

        return self._render(data, ("embed", normalize, as_npy), Outputs(top=1, embedding=True), write)

    def predict_many(
        self, photos: Sequence[bytes | Problem], parameters: Parameters
    ) -> Iterator[tuple[int, Rendered | Problem]]:
        """Yield each photo's index and its answer or problem, as soon as it is ready; photos are computed in parallel.

        Raises ModelUnavailable if no model can be loaded.
        """

        def predict(photo: bytes | Problem) -> Rendered:
            if isinstance(photo, Problem):
                raise photo
            return self.predict(photo, parameters)

        self.load_models()  # before several threads ask for it
        for index, future in side_by_side(predict, photos, self.classifier.max_parallel):
            error = future.exception()
            if error is None:
                yield index, future.result()
            elif isinstance(error, Problem):
                forget_frames(error)
                yield index, error
            else:
                log.error("A photo of a batch failed.", exc_info=error)
                yield index, InternalError(FAILED)

    def _render(
        self, data: bytes, parameters: Hashable, outputs: Outputs, write: Callable[[Answer], bytes]
    ) -> Rendered:
        digest = hashlib.sha256(data)
        computed: Answer | None = None

        def compute() -> bytes:
            nonlocal computed
            try:
                computed = self.classify(data, outputs, digest.hexdigest())
            except BrokenImage as problem:
                raise explain_damage(problem, data) from problem
            return write(computed)

        models = self.load_models()
        fingerprints = tuple(model.fingerprint for model in models)
        key = (digest.digest(), fingerprints, parameters, __version__, self.caller)
        body, source = self.results.get_or_compute(key, compute, self.deadline)
        return Rendered(body, source, computed, models[0])


def current_answerer(names: tuple[str, ...] = ()) -> Answerer:
    """Create the answerer of the current request, for the models of these names or the default one.

    Raises BadParameter for a time-out that cannot be used.
    """
    ours, state = service(), request_state()
    return Answerer(
        ours.classifier,
        ours.results,
        ours.settings.max_pixels,
        request_deadline(),
        state.caller,
        names=names,
        note=state.note_models,
    )


def encode(document: object) -> bytes:
    """Encode JSON in the form of all answers: compact, in the order of the fields, UTF-8 without escapes."""
    return msgspec.json.encode(document)


def json_response(document: object, status: int = 200) -> flask.Response:
    """Answer with a document."""
    return flask.Response(encode(document) + b"\n", status, mimetype=JSON)


def photo_response(rendered: Rendered) -> flask.Response:
    """Answer with the document of one photo and its model."""
    response = flask.Response(with_model(rendered.body, rendered.model), mimetype=JSON)
    response.headers["Server-Timing"] = server_timing(rendered.computed, rendered.source)
    return response


def with_model(body: bytes, model: Model) -> bytes:
    """Append the member `model` to a JSON object, and end its line."""
    return body[:-1] + b',"model":' + encode(schemas.Model(**model.identity)) + b"}\n"


def with_members_before(members: dict[str, object], body: bytes) -> bytes:
    """Insert members at the beginning of a JSON object."""
    return encode(members)[:-1] + b"," + body[1:] if members else body


def server_timing(answer: Answer | None, source: Source = "miss") -> str:
    """Return a `Server-Timing` header (W3C): the stages of this answer in milliseconds, and whether it was cached."""
    if answer is None:
        return f"{write_timing({})}, cache;desc={source}"
    stages = {"decode": answer.decode_seconds, "queue": answer.queue_seconds, "infer": answer.infer_seconds}
    return f'{write_timing(stages)}, batch;desc="{answer.batch_size}", cache;desc={source}'


def write_timing(stages: Mapping[str, float]) -> str:
    """Write the seconds of the stages, and of the whole request so far, in the form of `Server-Timing`."""
    stages = {**stages, "total": time.monotonic() - request_state().began}
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in stages.items())


def _photo(answer: Answer, parameters: Parameters) -> schemas.Photo:
    """Build one photo's document, without what the parameters leave out."""
    documents = [_model_answer(verdict, parameters) for verdict in (answer, *answer.others)]
    first = documents[0]
    models = documents if answer.others else UNSET
    return schemas.Photo(first.predictions, schemas.Image(**answer.image), first.certainty, first.group, models)


def _model_answer(verdict: Verdict, parameters: Parameters) -> schemas.ModelAnswer:
    return schemas.ModelAnswer(
        schemas.Model(**verdict.model.identity),
        _shown(verdict.predictions, verdict.heatmaps, parameters),
        verdict.certainty,
        UNSET if verdict.group is None else schemas.Group(**vars(verdict.group)),
    )


def _shown(
    rows: Sequence[Prediction], grids: Sequence[Grid] | None, parameters: Parameters
) -> list[schemas.Prediction]:
    """Build the documents of predictions, without those that the parameters leave out."""
    shown = [row for row in rows if row.confidence >= parameters.min_confidence]
    predictions = [_prediction(row, parameters.labels) for row in shown]
    for prediction, grid in zip(predictions, grids or [], strict=False):  # the first ones only have heat maps
        prediction.heatmap = grid
    return predictions


def _prediction(row: Prediction, labels: Names) -> schemas.Prediction:
    shown = schemas.Prediction(**vars(row))
    if labels == "en":
        shown.label_zh = UNSET
    elif labels == "zh" and row.label_zh is not None:  # a custom class without a Chinese name keeps its only one
        shown.label = shown.label_gloss = UNSET
    return shown


def _npy(vector: Floats) -> bytes:
    out = io.BytesIO()
    np.save(out, vector, allow_pickle=False)
    return out.getvalue()

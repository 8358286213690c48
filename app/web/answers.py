"""One photo's answer as the bytes that leave: the same photo, model and parameters give the same ones.

The bytes are JSON without the model, so that one kept answer serves a single request, a batch and a stream alike.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import flask
import numpy as np

from ..classifier import Answer, Classifier
from ..errors import InternalError, Problem
from ..model import Model
from ..model.engines import Floats
from ..queueing.cache import ResultCache, Source
from ..queueing.scheduling import Deadline, side_by_side
from ..version import __version__
from .parameters import Parameters
from .uploads import request_deadline, settings_of_app

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rendered:
    """One photo's answer in bytes, whose it is, where it came from, and its stages where computed for this caller."""

    body: bytes
    source: Source
    computed: Answer | None
    model: Model


@dataclass(frozen=True)
class Answerer:
    """All that answering photos needs from the current request; its methods may run in any thread.

    `caller` is the name of the request's key, None where none is asked for. Answers are kept for it, and shared with
    its own requests, alone: how fast an answer comes would tell one caller which photos another has sent.
    """

    classifier: Classifier
    results: ResultCache
    max_pixels: int
    deadline: Deadline
    caller: str | None

    @functools.cached_property
    def model(self) -> Model:
        """Return the one model of this request: a reload meanwhile is for later ones."""
        return self.classifier.model

    def predict(self, data: bytes, parameters: Parameters) -> Rendered:
        """Answer with the likeliest classes: the members `predictions` and `image` as UTF-8 JSON."""

        def classify(sha256: str) -> Answer:
            return self.classifier.classify(
                data,
                max_pixels=self.max_pixels,
                top=parameters.top,
                heatmap=parameters.heatmap,
                sha256=sha256,
                model=self.model,
                deadline=self.deadline,
            )

        return self._render(data, parameters, classify, lambda answer: to_json(as_dict(answer, parameters)))

    def embed(self, data: bytes, *, normalize: bool, as_npy: bool) -> Rendered:
        """Answer with the embedding: JSON without the model, or a .npy file (NumPy's format 1.0) of float32."""

        def classify(sha256: str) -> Answer:
            return self.classifier.classify(
                data,
                max_pixels=self.max_pixels,
                top=1,
                embedding=True,
                sha256=sha256,
                model=self.model,
                deadline=self.deadline,
            )

        def write(answer: Answer) -> bytes:
            vector = _embedding(answer, normalize=normalize)
            if as_npy:
                return _npy(vector)
            # str() gives the shortest decimals that read back as the same float32.
            numbers = [float(str(number)) for number in vector]
            return to_json(
                {"embedding": numbers, "dimension": len(numbers), "normalized": normalize, "image": answer.image}
            )

        return self._render(data, ("embed", normalize, as_npy), classify, write)

    def predict_many(
        self, photos: Sequence[bytes | Problem], parameters: Parameters
    ) -> Iterator[tuple[int, Rendered | Problem]]:
        """Answer photos side by side, each as soon as it is ready with its place; a failure is its photo's alone."""

        def predict(photo: bytes | Problem) -> Rendered:
            if isinstance(photo, Problem):
                raise photo
            return self.predict(photo, parameters)

        self.model  # noqa: B018 - chosen before several threads ask for it
        for index, future in side_by_side(predict, photos, self.classifier.max_parallel):
            error = future.exception()
            if error is None:
                yield index, future.result()
            elif isinstance(error, Problem):
                yield index, error
            else:
                log.error("A photo of a batch failed.", exc_info=error)
                yield index, InternalError("Something failed here. It is in the server's log.")

    def _render(
        self, data: bytes, parameters: Hashable, classify: Callable[[str], Answer], write: Callable[[Answer], bytes]
    ) -> Rendered:
        computed: list[Answer] = []
        digest = hashlib.sha256(data)

        def compute() -> bytes:
            computed.append(classify(digest.hexdigest()))
            return write(computed[0])

        key = (digest.digest(), self.model.fingerprint, parameters, __version__, self.caller)
        body, source = self.results.get_or_compute(key, compute, self.deadline)
        return Rendered(body, source, computed[0] if computed else None, self.model)


def current_answerer() -> Answerer:
    """Make the answerer of the current request."""
    extensions = flask.current_app.extensions
    return Answerer(
        extensions["topthree"],
        extensions["topthree_results"],
        settings_of_app().max_pixels,
        request_deadline(),
        flask.g.caller,
    )


def to_json(value: object) -> bytes:
    """Write JSON as all answers have it: compact, in the order given, UTF-8 unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def with_member(body: bytes, name: str, value: object) -> bytes:
    """Append a member to a JSON object in bytes."""
    return body[:-1] + b"," + to_json({name: value})[1:]


def as_dict(answer: Answer, parameters: Parameters) -> dict[str, object]:
    """Build one photo's members, without what the parameters leave out."""
    predictions = []
    for index, prediction in enumerate(answer.predictions):
        if prediction.confidence < parameters.min_confidence:
            break  # they come in falling order
        row = dict(vars(prediction))
        if parameters.labels == "en":
            del row["label_zh"]
        elif parameters.labels == "zh" and prediction.label_zh is not None:
            del row["label"], row["label_gloss"]  # a custom class without a Chinese name keeps the one it has
        if answer.heatmaps is not None and index < len(answer.heatmaps):
            row["heatmap"] = answer.heatmaps[index]
        predictions.append(row)
    return {"predictions": predictions, "image": answer.image}


def server_timing(answer: Answer | None, source: Source = "miss") -> str:
    """Write a `Server-Timing` header (W3C): where the time of this answer went, in milliseconds, or who had it."""
    if answer is None:
        return f"{write_timing({})}, cache;desc={source}"
    stages = {"decode": answer.decode_seconds, "queue": answer.queue_seconds, "infer": answer.infer_seconds}
    return f'{write_timing(stages)}, batch;desc="{answer.batch_size}", cache;desc={source}'


def write_timing(stages: Mapping[str, float]) -> str:
    """Write the seconds of the stages, and of all since the current request arrived, as `Server-Timing` has them."""
    stages = {**stages, "total": time.monotonic() - flask.g.arrived}
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in stages.items())


def _embedding(answer: Answer, *, normalize: bool) -> Floats:
    assert answer.embedding is not None
    vector = answer.embedding
    length = float(np.linalg.norm(vector)) if normalize else 0.0
    return np.asarray(vector / (length or 1.0), np.float32)


def _npy(vector: Floats) -> bytes:
    out = io.BytesIO()
    np.save(out, vector, allow_pickle=False)
    return out.getvalue()

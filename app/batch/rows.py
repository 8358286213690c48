"""The rows of a batch: their columns, and how an answer or a problem becomes a row."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..classifier import Answer
from ..errors import Problem
from ..measuring.stream import printable
from ..model.verdicts import Verdict
from ..photos.folders import FileProblem

Row = dict[str, Any]

TEXT, WHOLE, NUMBER, VECTOR = "text", "whole", "number", "vector"
PATH, ERROR, DETAIL, EMBEDDING = "path", "error", "detail", "embedding"
_IMAGE = {"width": WHOLE, "height": WHOLE, "format": TEXT}
_PREDICTION = {"class_id": WHOLE, "label": TEXT, "confidence": NUMBER, "probability": NUMBER}
_JUDGEMENT = {"certainty": TEXT, "group": TEXT, "group_probability": NUMBER}


@dataclass(frozen=True)
class Columns:
    """The columns of a run: for `top` answers of each of `models`, and the embedding if `embeddings`.

    The columns of the first model have plain names, those of a further one begin with its name and a dot.
    """

    top: int
    models: tuple[str, ...]
    embeddings: bool

    @property
    def kinds(self) -> dict[str, str]:
        """Return the kind of each column, in their order."""
        ranked = {
            f"{name}_{rank}": kind for rank in range(1, self.top + 1) for name, kind in _PREDICTION.items()
        } | _JUDGEMENT
        found = {PATH: TEXT, "sha256": TEXT, **_IMAGE, **ranked}
        for model in self.models[1:]:
            found |= {f"{model}.{name}": kind for name, kind in ranked.items()}
        found |= {ERROR: TEXT, DETAIL: TEXT}
        return found | ({EMBEDDING: VECTOR} if self.embeddings else {})


def answer_row(path: str, answer: Answer) -> Row:
    """Return the row of a photo that was classified, without columns for which the models have no value."""
    image = answer.image
    row: Row = {PATH: path, "sha256": image["sha256"], **{name: image[name] for name in _IMAGE}}
    _add_verdict(row, "", answer)
    for verdict in answer.others:
        _add_verdict(row, f"{verdict.model.name}.", verdict)
    if answer.embedding is not None:
        row[EMBEDDING] = answer.embedding.astype(np.float16)
    return row


def problem_row(path: str, problem: Problem | FileProblem, photo: bytes | None = None) -> Row:
    """Return the row of a photo that could not be read or classified, with its digest if its bytes are known."""
    digest = {"sha256": hashlib.sha256(photo).hexdigest()} if photo else {}
    return {PATH: path, **digest, ERROR: problem.slug, DETAIL: printable(str(problem))}


def _add_verdict(row: Row, prefix: str, verdict: Verdict) -> None:
    for prediction in verdict.predictions:
        for name in _PREDICTION:
            row[f"{prefix}{name}_{prediction.rank}"] = getattr(prediction, name)
    row[f"{prefix}certainty"] = verdict.certainty
    if verdict.group is not None:
        row[f"{prefix}group"] = verdict.group.label
        row[f"{prefix}group_probability"] = verdict.group.probability

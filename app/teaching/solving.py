"""From a project's state to its head, and to a report on what the head is worth and which photos it doubts."""

from __future__ import annotations

import functools
import hashlib
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import NotTaught
from ..model import Model
from ..model.digests import bytes_sha256
from ..model.labels import Label
from ..model.own_format import HEAD, Accuracy, OwnModel, files_of
from ..model.probabilities import Doubles, softmax
from ..model.ridge import Ridge, fit_ridge
from ..model.served import bound
from ..model.shares import Share, wilson_interval
from ..model.solver import Numbers
from ..telemetry import metrics
from .contents import NONE_LABEL, NONE_LABEL_ZH, ClassRow
from .database import NONE
from .snapshot import Snapshot

# A photo that has more near-duplicates than this before it adds nothing, and is not learnt from.
MAX_COPIES = 32
MAX_DOUBTED = 2
MIN_CLASSES = 2
# In the recipe of each published version.
HEAD_KIND = "ridge"

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Doubted:
    """A photo with the probability of its own label when it was left out, and the class that came first."""

    sha256: str
    label: str
    probability: float
    answer: str
    answer_zh: str


@dataclass(frozen=True)
class ClassReport:
    """A class, its photos, and the share of them that was right when left out; None if it cannot be measured."""

    label: str
    label_zh: str
    photos: int
    accuracy: Share | None
    doubted: list[Doubted]


@dataclass(frozen=True)
class Report:
    """What the head of a revision is worth; `groups` counts photos, near-duplicates once."""

    revision: int
    is_ready: bool
    accuracy: Share | None
    photos: int
    groups: int
    stale: int
    seconds: float
    classes: list[ClassReport]


@dataclass(frozen=True, eq=False)
class Solved:
    """The head of one state: `fit` is None if fewer than two classes have photos.

    `places` are the photos of the state that were learnt from, `classes` the classes that have any, in their order.
    """

    state: Snapshot
    places: Numbers
    classes: list[ClassRow]
    fit: Ridge | None
    seconds: float

    @functools.cached_property
    def truth(self) -> Numbers:
        """Return the class of each photo that was learnt from, as a place in `classes`."""
        return _places_of(self.classes, self.state.class_ids[self.places])

    @functools.cached_property
    def shares(self) -> Doubles:
        """Return the probability of each class for each photo that was learnt from, when it was left out."""
        assert self.fit is not None
        return softmax(self.fit.left_out)

    def probabilities(self) -> dict[str, float]:
        """Return the probability of its own label when it was left out for each photo that was measured, by digest."""
        if self.fit is None:
            return {}
        own = self.shares[np.arange(len(self.truth)), self.truth]
        told = np.flatnonzero(self.fit.is_measured)
        return {self.state.sha256[self.places[at]].hex(): round(float(own[at]), 6) for at in told}

    @functools.cached_property
    def report(self) -> Report:
        """Return the report of this head."""
        return Report(
            revision=self.state.facts.revision,
            is_ready=self.fit is not None,
            accuracy=self._accuracy(np.ones(len(self.places), np.bool_)),
            photos=len(self.state.ids) + self.state.stale,
            groups=len(np.unique(self.state.groups)),
            stale=self.state.stale,
            seconds=round(self.seconds, 4),
            classes=[self._class_report(row) for row in self.state.classes],
        )

    def model(self, name: str, backbone: Model) -> Model:
        """Return the head on its backbone under a name; it answers as the published version will.

        Raises NotTaught if there is no head.
        """
        return bound(self.own_model(name, backbone), backbone)

    def own_model(self, name: str, backbone: Model) -> OwnModel:
        """Return the head as a model of one's own, which can be published; raises NotTaught."""
        if self.fit is None:
            raise NotTaught(f"At least {MIN_CLASSES} classes need photos before the project can answer.")
        accuracy = self.report.accuracy
        own = OwnModel(
            weight=self.fit.weight[:, :-1].astype(np.float32),
            bias=self.fit.weight[:, -1].astype(np.float32),
            centres=self.fit.centres.astype(np.float32),
            labels=tuple(_label(number, row) for number, row in enumerate(self.classes)),
            backbone=backbone.weights.record.name,
            weights_sha256=backbone.weights.sha256,
            recipe={"head": HEAD_KIND, "flip": False, "strength": self.fit.strength},
            seed=0,
            data_sha256=self._data_sha256(),
            photos=len(self.state.ids),
            accuracy=Accuracy(**_percent(accuracy)) if accuracy else None,
            calibration=self.fit.calibration,
            created=self.state.facts.changed,
            name=name,
        )
        return _with_digest(own)

    def _data_sha256(self) -> str:
        labels = {row.id: row.label for row in self.state.classes}
        pairs = zip(self.state.sha256, self.state.class_ids.tolist(), strict=True)
        lines = sorted(f"{digest.hex()} {labels[number]}\n" for digest, number in pairs)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def _accuracy(self, chosen: Bools) -> Share | None:
        """Return the share of chosen photos that were right when left out; near-duplicates of a class count once."""
        if self.fit is None or not (chosen := chosen & self.fit.is_measured).any():
            return None
        right = (self.fit.left_out.argmax(axis=1) == self.truth)[chosen]
        pairs = np.stack([self.truth[chosen], self.state.groups[self.places][chosen]])
        _, pair, sizes = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        return wilson_interval(float((right / sizes[pair.ravel()]).sum()), len(sizes))

    def _class_report(self, row: ClassRow) -> ClassReport:
        if self.fit is None or row.id not in [each.id for each in self.classes]:
            return ClassReport(row.label, row.label_zh, row.photos, None, [])
        chosen = self.state.class_ids[self.places] == row.id
        doubted = self._doubted(np.flatnonzero(chosen & self.fit.is_measured), row)
        return ClassReport(row.label, row.label_zh, row.photos, self._accuracy(chosen), doubted)

    def _doubted(self, places: Numbers, row: ClassRow) -> list[Doubted]:
        """Return the photos of a class whose label was least probable, of each group of near-duplicates one."""
        own = self.shares[places, self.truth[places]]
        groups = self.state.groups[self.places[places]]
        ordered = np.argsort(own, kind="stable")
        _, first = np.unique(groups[ordered], return_index=True)
        found = []
        for at in ordered[np.sort(first)][:MAX_DOUBTED]:
            answer = self.classes[int(self.shares[places[at]].argmax())]
            digest = self.state.sha256[self.places[places[at]]].hex()
            probability = round(float(own[at]), 6)
            found.append(Doubted(digest, row.label, probability, answer.label, answer.label_zh))
        return found


def solve(state: Snapshot) -> Solved:
    """Solve the head of a state."""
    began = time.monotonic()
    places = _without_copies(state)
    counts = set(state.class_ids[places].tolist())
    classes = [row for row in state.classes if row.id in counts]
    if len(classes) < MIN_CLASSES:
        return Solved(state, places, classes, None, time.monotonic() - began)
    truth = _places_of(classes, state.class_ids[places])
    rows = state.rows if len(places) == len(state.rows) else state.rows[places]
    groups = np.unique(state.groups[places], return_inverse=True)[1]
    fit = fit_ridge(rows, truth, groups.astype(np.intp), len(classes))
    seconds = time.monotonic() - began
    metrics.head_solved(seconds)
    return Solved(state, places, classes, fit, seconds)


def _without_copies(state: Snapshot) -> Numbers:
    """Return the places of the photos to learn from: of a class's near-duplicates the first `MAX_COPIES`."""
    order = np.lexsort((np.arange(len(state.ids)), state.groups, state.class_ids))
    keys = np.stack([state.class_ids[order], state.groups[order]])
    starts = np.flatnonzero(np.any(np.diff(keys, axis=1, prepend=-1), axis=0))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return np.sort(order[rank < MAX_COPIES])


def _places_of(classes: list[ClassRow], class_ids: npt.NDArray[np.int64]) -> Numbers:
    places = {row.id: place for place, row in enumerate(classes)}
    return np.array([places[number] for number in class_ids.tolist()], np.intp)


def _label(number: int, row: ClassRow) -> Label:
    if row.label == NONE:
        return Label(number, None, NONE_LABEL, NONE_LABEL_ZH)
    return Label(number, None, row.label, row.label_zh or None)


def _percent(share: Share) -> dict[str, float]:
    return {"top1": share.percent, "low": share.low, "high": share.high}


def _with_digest(own: OwnModel) -> OwnModel:
    """Set the digest of the head's file, which reading a published version sets."""
    values = vars(own) | {"sha256": bytes_sha256(files_of(own, own.name, 1)[HEAD])}
    return OwnModel(**values)

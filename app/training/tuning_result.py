"""The result of tuning: the network, the epochs, the choices, and the comparison with the head. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..model.heads import Floats
from ..model.shares import Z_95, Share
from ..model.solver import Numbers

AUTO, HEAD, LAST, ALL = "auto", "head", "last", "all"
METHODS = (AUTO, HEAD, LAST, ALL)
# The folder of the cache with the files of runs, one folder for each model.
FOLDER = "tuning"


@dataclass(frozen=True)
class Extras:
    """Methods that are used only if they help: the share of label smoothing, and whether pictures are mixed."""

    smoothing: float = 0.0
    mixup: bool = False


@dataclass(frozen=True)
class Options:
    """The options of tuning: the method, the minutes it may take, and a number of epochs in place of the minutes.

    `extras` are used as they are, without a trial, unless they are None.
    """

    method: str
    minutes: float = 20.0
    epochs: int | None = None
    seed: int = 0
    has_flip: bool = True
    resume: bool = False
    extras: Extras | None = None


@dataclass(frozen=True)
class Tuned:
    """A tuned network: the tensors of its trunk by the names of the backbone's state dict, and a head.

    The trunk lacks the published head. logits = `weight` @ (e / ||e||) + `bias`, with e the mean of the last feature
    map; `weight` is (classes, channels) and `bias` (classes).
    """

    trunk: Mapping[str, Floats] = field(repr=False)
    weight: Floats = field(repr=False)
    bias: Floats = field(repr=False)


@dataclass(frozen=True)
class Epoch:
    """One pass over the photos: its phase, number from 1, mean loss, and how many left-out photos were right."""

    phase: str
    number: int
    loss: float
    hits: int


@dataclass(frozen=True)
class Choice:
    """One decision with its reason: the key of a sentence of the report's words, and the values in it."""

    key: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Gain:
    """The difference in accuracy to the head on the same photos, in points, with its 95% interval."""

    points: float
    low: float
    high: float

    @property
    def excludes_loss(self) -> bool:
        """Return whether the difference is a gain, and its interval has no loss."""
        return self.points > 0 and self.low >= 0


@dataclass(frozen=True)
class Row:
    """One way to train in the table of the report: its accuracy on left-out photos and on photos for testing only.

    `gain` is None for the head itself, `tested` without photos for testing.
    """

    method: str
    left_out: Share
    gain: Gain | None
    tested: Share | None = None


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The outcome of tuning; `kept` is `head`, `last` or `all`, and `tuned` is None if the head is kept.

    `places` are the photos that were left out of tuning; `left_out` (photos, classes) and `embeddings` (photos,
    channels) are what networks gave for them that were chosen without them. `was_stopped` says that Ctrl-C ended the
    run, which can be resumed.
    """

    kept: str
    rows: tuple[Row, ...]
    epochs: tuple[Epoch, ...]
    choices: tuple[Choice, ...]
    tuned: Tuned | None = None
    places: Numbers = field(default_factory=lambda: np.zeros(0, np.intp), repr=False)
    left_out: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    embeddings: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)
    recipe: Mapping[str, object] = field(default_factory=dict)
    was_stopped: bool = False


def paired_gain(are_right: npt.NDArray[np.bool_], were_right: npt.NDArray[np.bool_], groups: Numbers) -> Gain:
    """Compare two models on the same photos; near-duplicates of one group count as one photo.

    The interval is Wald's for paired shares with one more pair of each kind that differs (Bonett and Price, Journal
    of Educational and Behavioral Statistics 37, 2012), which also holds for few photos.
    """
    names, members = np.unique(groups, return_inverse=True)
    count = len(names)
    difference = are_right.astype(float) - were_right.astype(float)
    mean = np.bincount(members, difference) / np.bincount(members)
    won, lost = float(mean[mean > 0].sum()), float(-mean[mean < 0].sum())
    more, less = (won + 1) / (count + 2), (lost + 1) / (count + 2)
    half = Z_95 * math.sqrt((more + less - (more - less) ** 2) / (count + 2))
    points = (won - lost) / count
    return Gain(*(round(100 * value, 2) for value in (points, more - less - half, more - less + half)))

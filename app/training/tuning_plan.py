"""The plan of tuning for the time allowed: how many epochs of which layers, and whether it ends on all photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .tuning_result import ALL, AUTO, LAST, Choice

# A fifth of fewer photos a class is left out, which is at most one or two of each: too few to trust a gain by.
MIN_PHOTOS_OF_CLASS = 10
# With fewer left-out photos, no gain that tuning has could be told from chance.
MIN_LEFT_OUT = 20
LAST_EPOCHS, ALL_EPOCHS = 8, 15
MIN_LAST_EPOCHS, MIN_ALL_EPOCHS = 2, 3
# The rest is for work that is not measured beforehand: writing snapshots, the last predictions.
_USED_SHARE = 0.9
# The share of the time that the last stage may take before all layers learn.
_LAST_SHARE = 0.3
# The speed of all layers is measured on small random crops; those of the last third of the epochs take twice as long.
_LARGER = 1.33


@dataclass(frozen=True)
class Speeds:
    """Seconds a photo: to compute a map, and to learn and predict with the last stage and with all layers."""

    caching: float
    last: float
    last_predicting: float
    all: float
    all_predicting: float


@dataclass(frozen=True)
class Sizes:
    """Numbers: of photos to learn from, of those that are left out, and of feature maps to be computed."""

    learning: int
    left_out: int
    maps: int

    @property
    def photos(self) -> int:
        """Return the number of photos of a run on all of them."""
        return self.learning + self.left_out


@dataclass(frozen=True)
class Plan:
    """Epochs of the last stage and then of all layers, 0 for neither, and whether a second run learns from all photos.

    The first run, without the left-out photos, shows what the second is worth.
    """

    last: int
    all: int
    has_finish: bool


def why_only_head(method: str, counts: Mapping[str, int], left_out: int) -> Choice | None:
    """Return why only the head is to be trained, None if the backbone may be tuned."""
    if max(counts.values()) == 1:
        return Choice("single")
    if left_out < MIN_LEFT_OUT:
        return Choice("unmeasurable", {"count": left_out, "least": MIN_LEFT_OUT})
    mean = sum(counts.values()) / len(counts)
    if method == AUTO and mean < MIN_PHOTOS_OF_CLASS:
        return Choice("few", {"mean": f"{mean:.1f}", "least": MIN_PHOTOS_OF_CLASS})
    return None


def plan_epochs(method: str, seconds: float, speeds: Speeds, sizes: Sizes, asked: int | None = None) -> Plan:
    """Divide the seconds among the phases; with `asked` epochs the method's own phase has that many.

    A method that was asked for by name has one epoch at least, even if that takes longer; `auto` leaves out those for
    which there is no time.
    """
    if asked is not None:
        return Plan(asked if method == LAST else min(asked, LAST_EPOCHS), 0 if method == LAST else asked, True)
    left = seconds * _USED_SHARE - speeds.caching * sizes.maps
    once = speeds.last * sizes.learning + speeds.last_predicting * sizes.left_out
    twice = once + speeds.last * sizes.photos
    share = 1.0 if method == LAST else _LAST_SHARE
    last = _epochs(left * share, twice, LAST_EPOCHS)
    if last < MIN_LAST_EPOCHS and method != ALL:
        last = _epochs(left, once, LAST_EPOCHS)
        return Plan(max(1, last) if method == LAST else last if last >= MIN_LAST_EPOCHS else 0, 0, False)
    if method == LAST:
        return Plan(last, 0, True)
    last = last if last >= MIN_LAST_EPOCHS else 0
    if not last:  # no maps are needed either
        left = seconds * _USED_SHARE
    once = _LARGER * speeds.all * sizes.learning + speeds.all_predicting * sizes.left_out
    twice_all = once + _LARGER * speeds.all * sizes.photos
    every = _epochs(left - last * twice, twice_all, ALL_EPOCHS)
    has_finish = every >= MIN_ALL_EPOCHS
    if not has_finish:
        every = _epochs(left - last * twice, once, ALL_EPOCHS)
    if method == ALL:
        return Plan(last, max(1, every), has_finish)
    if every < MIN_ALL_EPOCHS:
        return Plan(last, 0, True)
    return Plan(last, every, has_finish)


def _epochs(seconds: float, each: float, most: int) -> int:
    return max(0, min(most, int(seconds / each)))

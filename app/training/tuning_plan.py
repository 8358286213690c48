"""The plan of tuning for the time allowed: how many epochs of which layers, and whether it ends on all photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .tuning_result import ALL, AUTO, LAST, Choice
from .tuning_schedule import MOST_EPOCHS

# A fifth of the photos is left out. With fewer photos of a class that is one or two: too few to measure a gain.
MIN_PHOTOS_OF_CLASS = 10
# With fewer left-out photos, a gain of tuning could not be distinguished from chance.
MIN_LEFT_OUT = 20
MIN_LAST_EPOCHS, MIN_ALL_EPOCHS = 2, 3
# Before all layers, the last stage learns at least as many epochs as there are maps of each photo: for fewer, the maps
# would cost more than they save.
MIN_FIRST_EPOCHS = 4
# With fewer epochs, twice as many on four fifths of the photos give more than a second run on all.
MIN_EPOCHS_OF_TWO_RUNS = 6
# The rest is for work that is not measured beforehand: writing snapshots, the last predictions.
_USED_SHARE = 0.9
# The share of the time that the last stage may take before all layers learn.
LAST_SHARE = 0.3
# The share that trials of smoothing and mixup may take.
_TRIAL_SHARE = 0.1
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
    """Numbers: of photos to learn from, of those that are left out, of feature maps to be computed.

    `trials` is how many times a photo would be learnt from to try smoothing and mixup, 0 if they cannot be tried.
    """

    learning: int
    left_out: int
    maps: int
    trials: int

    @property
    def photos(self) -> int:
        """Return the number of photos of a run on all of them."""
        return self.learning + self.left_out


@dataclass(frozen=True)
class Plan:
    """Epochs of the last stage and then of all layers, 0 for neither, and whether a second run learns from all photos.

    The first run, without the left-out photos, shows what the second is worth. If `has_trials`, smoothing and mixup
    are tried on the last stage before it.
    """

    last: int
    all: int
    has_finish: bool
    has_trials: bool = False


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

    Without time for all layers only the last stage learns, and without time for an epoch of that, nothing does.
    """
    if asked is not None:
        last, every = (asked, 0) if method == LAST else (min(asked, MOST_EPOCHS[LAST]), asked)
        return Plan(last, every, has_finish=True, has_trials=sizes.trials > 0)
    seconds *= _USED_SHARE
    left = seconds - speeds.caching * sizes.maps
    trials = speeds.last * sizes.trials
    has_trials = 0 < trials <= _TRIAL_SHARE * left
    if has_trials:
        left -= trials
    once = speeds.last * sizes.learning + speeds.last_predicting * sizes.left_out
    twice = once + speeds.last * sizes.photos
    if method != LAST:
        last = _epochs(LAST_SHARE * left, twice, MOST_EPOCHS[LAST])
        last = last if last >= MIN_FIRST_EPOCHS else 0
        # Without the last stage first, neither maps nor trials are needed.
        every, has_finish = _epochs_of_all(left - last * twice if last else seconds, speeds, sizes)
        if every >= (1 if method == ALL else MIN_ALL_EPOCHS):
            return Plan(last, every, has_finish, has_trials and last > 0)
    last, has_finish = _in_runs(left, once, twice, MOST_EPOCHS[LAST])
    if method == AUTO and last < MIN_LAST_EPOCHS:
        last = 0
    return Plan(last, 0, has_finish, has_trials and last > 0)


def _epochs_of_all(seconds: float, speeds: Speeds, sizes: Sizes) -> tuple[int, bool]:
    once = _LARGER * speeds.all * sizes.learning + speeds.all_predicting * sizes.left_out
    return _in_runs(seconds, once, once + _LARGER * speeds.all * sizes.photos, MOST_EPOCHS[ALL])


def _in_runs(seconds: float, once: float, twice: float, most: int) -> tuple[int, bool]:
    """Return how many epochs there is time for, and whether there are two runs.

    An epoch costs `once` seconds in one run, and `twice` in two.
    """
    epochs = _epochs(seconds, twice, most)
    return (epochs, True) if epochs >= MIN_EPOCHS_OF_TWO_RUNS else (_epochs(seconds, once, most), False)


def _epochs(seconds: float, each: float, most: int) -> int:
    return max(0, min(most, int(seconds / each)))

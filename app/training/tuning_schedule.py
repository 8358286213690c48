"""The schedule of a phase of tuning: its epochs, the rates in them, and how many there is still time for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from .tuning_result import ALL, LAST

WARM_UP_SHARE = 0.1
# From this share of the epochs on, random crops are as large as the crop that serves.
LARGE_FROM = 2 / 3
# An epoch of them takes about twice as long as one of small crops.
_LARGE_COST = 2.0
MOST_EPOCHS = {LAST: 8, ALL: 15}
MEASURING, FINISHING, TRIAL = "measuring", "finishing", "trial"
_RUNS = {MEASURING: "First run", FINISHING: "Second run, on all photos", TRIAL: "Trial"}
_PARTS = {
    LAST: "last stage",
    ALL: "all layers",
    "none": "without smoothing and mixup",
    "smoothing": "label smoothing",
    "mixup": "mixup",
}


@dataclass(frozen=True)
class Phase:
    """A number of epochs in which the same layers learn, `last` or `all`, under a name of its own.

    `kept` are the epochs that an earlier run has shown to be best, if there was one: the phase ends with the last of
    them. The rates follow `epochs`.
    """

    name: str
    method: str
    epochs: int
    kept: tuple[int, ...] = ()
    seed: int = 0

    @property
    def title(self) -> str:
        """Return the name as it is shown."""
        run, _, part = self.name.partition(" ")
        return f"{_RUNS[run]}, {_PARTS[part]}"

    @property
    def last_epoch(self) -> int:
        """Return the number of the last epoch, from 1."""
        return max(self.kept, default=self.epochs)

    def is_large(self, epoch: int) -> bool:
        """Return whether the random crops of an epoch are as large as the crop that serves."""
        return self.method == LAST or epoch > math.ceil(LARGE_FROM * self.epochs)

    def cost(self, first: int, last: int) -> float:
        """Return what the epochs from `first` to `last` cost, in epochs of small crops."""
        return sum(_LARGE_COST if self.is_large(number) else 1.0 for number in range(first, last + 1))

    def fitted(self, done: int, seconds: float, left: float) -> Phase:
        """Return the phase with as many epochs as fit into the seconds left, so that its rates fall to zero in time.

        `seconds` is what its last epoch, `done`, took. Epochs are added only while crops are small: later, rates that
        have fallen would rise again.
        """
        each = seconds / self.cost(done, done)
        most = self.epochs if self.is_large(done) else MOST_EPOCHS[self.method]
        for epochs in range(max(self.epochs, most), done, -1):
            found = replace(self, epochs=epochs)
            if each * found.cost(done + 1, epochs) <= left:
                return found
        return replace(self, epochs=done)


def rate_at(share: float) -> float:
    """Return the rate at a share of a phase, relative to its peak: a linear warm-up, then half a cosine to 0."""
    if share < WARM_UP_SHARE:
        return (share + 0.01) / (WARM_UP_SHARE + 0.01)
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)))

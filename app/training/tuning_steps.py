"""The loop of tuning: batches, epochs and phases, with a snapshot and a checkpoint after each epoch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ..model.heads import Floats
from ..model.solver import Numbers
from .photosets import PhotoSetError
from .tuning_data import Crops
from .tuning_net import Tensors, Tunable, mean_of
from .tuning_result import LAST, Choice, Epoch, Extras
from .tuning_schedule import Phase, rate_at
from .tuning_state import Journal

BATCH = 32
# Of the last stage. AdamW moves each number by about the rate in each step, and those of a pretrained stage are about
# a hundredth: with 5e-4, one epoch of 15 steps took a ResNet-18 from 77% to 18% on clothes.
RATE = 1e-4
MAX_GRADIENT = 1.0
PATIENCE = 3
# The network that is kept is the mean of this many of the best epochs, if there are three times as many.
AVERAGED = 3
_MIXUP_ALPHA = 0.2

# Of each epoch its mean loss, and how many left-out photos of each half were right.
History = list[tuple[float, int, int]]


class OutOfTime(Exception):
    """The time allowed is over."""


@dataclass
class Watch:
    """The left-out photos: their places, classes, and the half that each belongs to."""

    places: Numbers
    classes: Numbers
    halves: Numbers


@dataclass
class Shown:
    """How progress is shown: a bar by name, part and all; lines; and decisions as they are made."""

    bar: Callable[[str, int, int], None]
    say: Callable[[str], None]
    chose: Callable[[Choice], None]


@dataclass
class Trainer:
    """A network with its pictures, and how to compute with them. `maps` are views before the last stage, or None.

    Learning ends at the `deadline` wherever it is. A phase with left-out photos gets as many epochs as end before
    `until`, an earlier time.
    """

    network: Tunable
    crops: Crops
    classes: Numbers
    class_weights: Floats
    device: str
    half: bool
    frozen_norms: bool
    shown: Shown
    maps: npt.NDArray[np.float16] | None = None
    extras: Extras = field(default_factory=Extras)
    micro_batch: int = BATCH
    deadline: float = math.inf
    until: float = math.inf

    def first_step(self, method: str) -> int:
        """Return the step that the inputs of a method enter."""
        return self.network.stages[-1] if method == LAST and self.maps is not None else 0

    def predict(self, places: Numbers, method: str) -> tuple[Floats, Floats]:
        """Return logits (photos, classes) and embeddings (photos, channels) for the crops that serve."""
        self.network.set_mode(training=False, frozen_norms=True)
        logits, embeddings = [], []
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            with torch.inference_mode(), self.autocast():
                found = self.network(self._served(part, method), self.first_step(method))
            logits.append(found[0].float().cpu().numpy())
            embeddings.append(found[1].float().cpu().numpy())
        return np.concatenate(logits), np.concatenate(embeddings)

    def _served(self, places: Numbers, method: str) -> torch.Tensor:
        if self.first_step(method):
            assert self.maps is not None
            return torch.from_numpy(self.maps[places, 0].astype(np.float32)).to(self.device)
        return self.crops.centre(places).to(self.device)

    def _random(self, places: Numbers, phase: Phase, epoch: int) -> torch.Tensor:
        if self.first_step(phase.method):
            assert self.maps is not None
            views = torch.randint(self.maps.shape[1], (len(places),)).numpy()
            return torch.from_numpy(self.maps[places, views].astype(np.float32)).to(self.device)
        side = self.crops.side if phase.is_large(epoch) else self.crops.small_side
        return self.crops.random(places, side).to(self.device)

    def autocast(self) -> torch.autocast:
        """Compute in bfloat16, in a `with` statement, if the processor or GPU multiplies such numbers in hardware."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.half)

    def learn(self, inputs: torch.Tensor, classes: torch.Tensor, first: int) -> float:
        """Add the gradients of a batch, in parts if memory is short, and return its loss."""
        targets = functional.one_hot(classes, len(self.class_weights)).float()
        weights = torch.from_numpy(self.class_weights)[classes]
        if self.extras.mixup:
            inputs, targets, weights = _mixed(inputs, targets, weights)
        targets = targets * (1 - self.extras.smoothing) + self.extras.smoothing / targets.shape[1]
        while True:
            try:
                return self._learn_in_parts(inputs, targets.to(self.device), weights.to(self.device), first)
            except torch.OutOfMemoryError as error:
                self._halve(error)

    def _halve(self, error: Exception) -> None:
        if self.micro_batch == 1:
            raise PhotoSetError("One photo alone does not fit into the GPU's memory: train on a CPU.") from error
        self.micro_batch //= 2
        for value in self.network.parameters():
            value.grad = None
        torch.cuda.empty_cache()
        self.shown.say(
            f"The GPU is out of memory: its batches are halved to {self.micro_batch}, gradients are added up."
        )

    def _learn_in_parts(self, inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, first: int) -> float:
        total, sum_of_weights = 0.0, weights.sum()
        for start in range(0, len(inputs), self.micro_batch):
            part = slice(start, start + self.micro_batch)
            with self.autocast():
                logits, _ = self.network(inputs[part], first)
            losses = -(targets[part] * functional.log_softmax(logits.float(), dim=1)).sum(dim=1)
            loss = (losses * weights[part]).sum() / sum_of_weights
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def begin(self, phase: Phase, epoch: int) -> None:
        """Set which layers learn in an epoch: one stage more in each epoch of `all`, from the last on."""
        self.network.set_mode(training=True, frozen_norms=self.frozen_norms)
        self.network.unfreeze(1 if phase.method == LAST else epoch + 1)

    def epoch(self, phase: Phase, number: int, places: Numbers, optimizer: torch.optim.AdamW) -> float:
        """Learn from all photos once, and return the mean loss; raises OutOfTime in the middle of an epoch."""
        torch.manual_seed(_seed_of(phase, number))
        self.begin(phase, number)
        order = places[torch.randperm(len(places)).numpy()]
        batches = max(1, math.ceil(len(order) / BATCH))
        losses = []
        for at in range(batches):
            if time.monotonic() > self.deadline:
                raise OutOfTime
            part = order[at * BATCH : (at + 1) * BATCH]
            share = (number - 1 + at / batches) / phase.epochs
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_at(share)
            optimizer.zero_grad(set_to_none=True)
            inputs = self._random(part, phase, number)
            losses.append(self.learn(inputs, torch.from_numpy(self.classes[part]), self.first_step(phase.method)))
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
            optimizer.step()
            done = (number - 1) * len(places) + at * BATCH + len(part)
            self.shown.bar(phase.title, done, phase.last_epoch * len(places))
        return float(np.mean(losses))


def _seed_of(phase: Phase, number: int) -> int:
    """Return a seed for an epoch alone, so that one that is run again after a kill is the same."""
    return int.from_bytes(hashlib.sha256(f"{phase.seed} {phase.name} {number}".encode()).digest()[:7], "big")


def _mixed(inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Mix each picture with another one of the batch, and their targets likewise (Zhang et al., ICLR 2018)."""
    share = float(torch.distributions.Beta(_MIXUP_ALPHA, _MIXUP_ALPHA).sample())
    order = torch.randperm(len(inputs))
    mixed = share * inputs.float() + (1 - share) * inputs[order.to(inputs.device)].float()
    return mixed, share * targets + (1 - share) * targets[order], share * weights + (1 - share) * weights[order]


def run_phase(trainer: Trainer, phase: Phase, places: Numbers, journal: Journal, watch: Watch | None) -> list[Epoch]:
    """Run the epochs of a phase that are still to be run, and return all of them; the network stays as the last one.

    With left-out photos, the phase has as many epochs as there turns out to be time for; `as_run` returns that phase.
    It ends early if `PATIENCE` epochs did not improve. Each epoch leaves a snapshot, and the journal has the number of
    left-out photos that it got right.
    """
    phase = as_run(phase, journal)
    if journal.noted(f"done {phase.name}", bool):
        return history_of(phase, journal)
    optimizer = torch.optim.AdamW(trainer.network.groups_of_parameters(RATE), lr=RATE)
    epochs = _restore(trainer, phase, journal, optimizer)
    while len(epochs) < phase.last_epoch and not (watch and _has_stalled(phase, epochs)):
        number, begun = len(epochs) + 1, time.monotonic()
        try:
            loss = trainer.epoch(phase, number, places, optimizer)
        except OutOfTime:
            trainer.shown.say(f"{phase.title}: the time allowed is over in epoch {number} of {phase.last_epoch}.")
            break
        hits = _hits(trainer, phase, watch)
        epochs.append(Epoch(phase.name, number, loss, sum(hits)))
        seconds = time.monotonic() - begun
        if watch is not None:
            phase = _fitted(trainer, phase, number, seconds, journal)
        _keep(trainer, phase, (loss, *hits), number, optimizer, journal=journal, watch=watch)
        trainer.shown.say(_line(phase, epochs[-1], watch) + _time_left(trainer, phase, number, seconds))
    journal.note(f"done {phase.name}", True)
    return epochs


def _hits(trainer: Trainer, phase: Phase, watch: Watch | None) -> tuple[int, int]:
    """Return how many left-out photos of each half are right."""
    if watch is None:
        return 0, 0
    are_right = trainer.predict(watch.places, phase.method)[0].argmax(axis=1) == watch.classes
    first, second = (int(are_right[watch.halves == half].sum()) for half in (0, 1))
    return first, second


def _keep(
    trainer: Trainer,
    phase: Phase,
    result: tuple[float, int, int],
    number: int,
    optimizer: torch.optim.AdamW,
    *,
    journal: Journal,
    watch: Watch | None,
) -> None:
    """Write down what an epoch gave, and all that the next one begins with."""
    tensors = trainer.network.copy()
    journal.save_snapshot(phase.name, number, tensors)
    history = [*_noted(phase, journal)[: number - 1], result]
    journal.note(f"epochs {phase.name}", history)
    journal.save_checkpoint(phase.name, number, tensors, optimizer.state_dict())
    journal.prune(phase.name, _wanted(phase, history, watch))


def _fitted(trainer: Trainer, phase: Phase, number: int, seconds: float, journal: Journal) -> Phase:
    """Return the phase with the epochs that there is time for, and write down and say if they are others."""
    if math.isinf(trainer.until):
        return phase
    found = phase.fitted(number, seconds, trainer.until - time.monotonic())
    if found != phase:
        journal.note(f"epochs of {phase.name}", found.epochs)
        trainer.shown.say(
            f"{phase.title}: an epoch takes {seconds / 60:.1f} min; {found.epochs} instead of {phase.epochs} epochs "
            "fit into the time."
        )
    return found


def as_run(phase: Phase, journal: Journal) -> Phase:
    """Return a phase with the epochs that there turned out to be time for."""
    return replace(phase, epochs=journal.noted(f"epochs of {phase.name}", int) or phase.epochs)


def history_of(phase: Phase, journal: Journal) -> list[Epoch]:
    """Return the epochs of a phase that were run, here or before the run was killed."""
    history = enumerate(_noted(phase, journal), start=1)
    return [Epoch(phase.name, at, loss, first + second) for at, (loss, first, second) in history]


def _noted(phase: Phase, journal: Journal) -> History:
    return journal.noted(f"epochs {phase.name}", History) or []


def _wanted(phase: Phase, history: History, watch: Watch | None) -> set[int]:
    """Return the epochs whose snapshots may still be needed."""
    if watch is None:
        return set(phase.kept) or {len(history)}
    return {number for half in (None, 0, 1) for number in best_epochs(history, half, AVERAGED)}


def _line(phase: Phase, epoch: Epoch, watch: Watch | None) -> str:
    found = f": {100 * epoch.hits / len(watch.places):.1f}% of {len(watch.places)} left-out photos" if watch else ""
    return f"{phase.title}, epoch {epoch.number} of {phase.last_epoch}{found}, loss {epoch.loss:.3f}"


def _time_left(trainer: Trainer, phase: Phase, number: int, seconds: float) -> str:
    """Return the minutes left: of the time allowed, or without such a limit those that this phase will take."""
    if math.isfinite(trainer.deadline):
        return f"; at most {_minutes(trainer.deadline - time.monotonic())} left"
    left = seconds * phase.cost(number + 1, phase.last_epoch) / phase.cost(number, number)
    return f"; about {_minutes(left)} left of this part" if left else ""


def _minutes(seconds: float) -> str:
    return f"{max(1, math.ceil(seconds / 60))} min"


def _restore(trainer: Trainer, phase: Phase, journal: Journal, optimizer: torch.optim.AdamW) -> list[Epoch]:
    """Set network and optimiser as the last epoch of this phase left them, if a run was killed in it."""
    found = journal.checkpoint(phase.name)
    if found is None:
        return []
    number, tensors, states = found
    history = history_of(phase, journal)
    if not 1 <= number <= len(history) or not _fits(states, optimizer):
        raise journal.damage()
    trainer.network.load(tensors)
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return history[:number]


def _fits(states: Mapping[int, Mapping[str, torch.Tensor]], optimizer: torch.optim.AdamW) -> bool:
    """Return whether the state of an optimiser, by the places of its parameters, can be that of this one."""
    shapes = [value.shape for group in optimizer.param_groups for value in group["params"]]
    return all(
        place < len(shapes) and all(value.shape in (shapes[place], torch.Size()) for value in state.values())
        for place, state in states.items()
    )


def _has_stalled(phase: Phase, epochs: list[Epoch]) -> bool:
    """Return whether the last epochs did not improve; while crops are small and rates high, that says little."""
    if len(epochs) <= PATIENCE or not phase.is_large(len(epochs)):
        return False
    return max(epoch.hits for epoch in epochs[-PATIENCE:]) <= max(epoch.hits for epoch in epochs[:-PATIENCE])


def best_epochs(history: History, half: int | None, count: int | None = None) -> list[int]:
    """Return the numbers of the best epochs by one half of the left-out photos, or by all; of equal ones the later.

    By default they are at most a third of the epochs, since among few of them some are far from done.
    """
    count = max(1, min(AVERAGED, len(history) // 3)) if count is None else count
    hits = [first + second if half is None else (first, second)[half] for _, first, second in history]
    order = sorted(range(len(hits)), key=lambda at: (hits[at], at), reverse=True)
    return sorted(at + 1 for at in order[:count])


@dataclass(frozen=True)
class Measured:
    """Predictions for the left-out photos, for each half by the epochs that were best on the other half."""

    logits: Floats
    embeddings: Floats
    chosen: tuple[int, ...]


def measure(trainer: Trainer, phase: Phase, journal: Journal, watch: Watch) -> Measured:
    """Average the best epochs of a phase, and predict the left-out photos without bias.

    Each half is predicted by the mean of the epochs that were best on the other half. The network becomes the mean of
    those that were best on both.
    """
    history = _noted(phase, journal)
    logits = np.zeros((len(watch.places), len(trainer.class_weights)), np.float32)
    embeddings = np.zeros((len(watch.places), trainer.network.weight.shape[1]), np.float32)
    for half in (0, 1):
        trainer.network.load(average(journal, phase, best_epochs(history, 1 - half)))
        members = np.flatnonzero(watch.halves == half)
        if len(members):
            logits[members], embeddings[members] = trainer.predict(watch.places[members], phase.method)
    chosen = best_epochs(history, None)
    trainer.network.load(average(journal, phase, chosen))
    return Measured(logits, embeddings, tuple(chosen))


def average(journal: Journal, phase: Phase, numbers: list[int]) -> Tensors:
    """Return the mean of the network after some epochs; raises PhotoSetError if what was kept is damaged."""
    states = [journal.snapshot(phase.name, number) for number in numbers]
    shapes = [{name: value.shape for name, value in state.items()} for state in states]
    if any(each != shapes[0] for each in shapes):
        raise journal.damage()
    return mean_of(states)

"""Reload on SIGHUP: every worker prepares a new model and the keys; then all workers use them, or none does.

    the master                            each worker
    order(n, PREPARE), SIGHUP  ->         build, check, read; report(n, PREPARED or FAILED)
    waits for all, then decides
    order(n, USE or DROP), SIGHUP  ->     use what was prepared and report(n, USED), or drop it

Only the master writes the decision, one word, once for each reload. Requests are answered all the time, each with the
model that it began with.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeVar

from ..errors import TopthreeError
from .memory import shared_words

log = logging.getLogger(__name__)

Prepared = TypeVar("Prepared")

# Torch takes half a minute to prepare a model, on a slow machine several; a worker that takes longer has failed.
PREPARE_SECONDS = 300.0
# To exchange two references takes no time; a worker that has not done it by then is stuck.
USE_SECONDS = 10.0
_ROUND_SECONDS = 0.05
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Step(IntEnum):
    """An order of the master, or a report of a worker."""

    NOTHING = 0
    PREPARE = 1
    PREPARED = 2
    FAILED = 3
    USE = 4
    USED = 5
    DROP = 6


class ReloadState:
    """The master's order and the workers' reports, in memory that they share across the fork.

    Each is a 64-bit word that holds a reload's number and a step of it, and has one writer, so that both are always
    read together.
    """

    def __init__(self) -> None:
        self._words = shared_words()

    @property
    def order(self) -> tuple[int, Step]:
        """Return the master's last order: the number of the reload, and its step."""
        return self._read(0)

    def give_order(self, number: int, step: Step) -> None:
        """Give an order; only the master may call this."""
        self._write(0, number, step)

    def reported(self, slot: int) -> tuple[int, Step]:
        """Return the last report of the worker in a slot: the number of the reload, and its step."""
        return self._read(1 + slot)

    def report(self, slot: int, number: int, step: Step) -> None:
        """Report a step; only the worker in this slot may call this."""
        self._write(1 + slot, number, step)

    def _read(self, index: int) -> tuple[int, Step]:
        number, step = divmod(self._words[index], 8)
        return number, Step(step)

    def _write(self, index: int, number: int, step: Step) -> None:
        self._words[index] = 8 * number + step


class Reloader(Generic[Prepared]):
    """A worker's part: `prepare` builds and checks what is new, and `use` replaces the old; both run in a thread."""

    def __init__(
        self, prepare: Callable[[], Prepared], use: Callable[[Prepared], object], state: ReloadState, slot: int
    ) -> None:
        self._prepare_all = prepare
        self._use = use
        self._state = state
        self._slot = slot
        self._turn = threading.Lock()
        self._begun = 0
        self._prepared: Prepared | None = None

    def follow(self) -> threading.Thread:
        """Carry out the order in a thread, which is returned; to be called after each SIGHUP."""
        thread = threading.Thread(target=self._follow, name="reload", daemon=True)
        thread.start()
        return thread

    def _follow(self) -> None:
        with self._turn:
            number, step = self._state.order
            if step is Step.PREPARE and number != self._begun:
                self._begun = number
                self._prepare(number)
                return
            if step is Step.USE and number == self._begun and self._prepared is not None:
                self._use(self._prepared)
                self._state.report(self._slot, number, Step.USED)
            if step is not Step.PREPARE:
                self._prepared = None

    def _prepare(self, number: int) -> None:
        step, self._prepared = Step.FAILED, None
        try:
            self._prepared = self._prepare_all()
            step = Step.PREPARED
        except TopthreeError as error:
            log.error("Reload %d failed in process %d: %s", number, os.getpid(), error)
        finally:
            self._state.report(self._slot, number, step)


class Arbiter(Protocol):
    """The parts of gunicorn's master, `gunicorn.arbiter.Arbiter`, that are used here."""

    WORKERS: Mapping[int, Any]
    SIG_QUEUE: Any

    def kill_workers(self, sig: int) -> None:
        """Send all workers a signal."""

    def murder_workers(self) -> None:
        """End workers that hang."""

    def reap_workers(self) -> None:
        """Forget workers that have ended."""

    def wait_for_signals(self, timeout: float) -> list[int]:
        """Wait for signals for at most `timeout` seconds, and return them."""


def reload_workers(
    master: Arbiter, state: ReloadState, *, prepare_seconds: float = PREPARE_SECONDS, use_seconds: float = USE_SECONDS
) -> None:
    """Do the master's part: have all workers prepare, decide, and log the result.

    The master does nothing else until then, as in gunicorn's own reload. A worker that leaves, or a signal to stop,
    ends the reload at once.
    """
    number = state.order[0] + 1
    workers = dict(master.WORKERS)
    _order(master, state, number, Step.PREPARE)
    obstacle = _wait(master, state, workers, (number, Step.PREPARED), prepare_seconds)
    _order(master, state, number, Step.DROP if obstacle else Step.USE)
    if obstacle:
        log.error("Reload %d failed, and nothing has changed: %s.", number, obstacle)
        return
    obstacle = _wait(master, state, workers, (number, Step.USED), use_seconds)
    if obstacle:
        log.error("Reload %d is done, but %s.", number, obstacle)
    else:
        log.info("Reload %d is done: %d workers have read model and keys again.", number, len(workers))


def _order(master: Arbiter, state: ReloadState, number: int, step: Step) -> None:
    state.give_order(number, step)
    master.kill_workers(signal.SIGHUP)


def _wait(
    master: Arbiter, state: ReloadState, workers: Mapping[int, Any], wanted: tuple[int, Step], seconds: float
) -> str | None:
    """Wait until all workers report what is wanted; return None, or the reason if they will not."""
    deadline = time.monotonic() + seconds
    signals: list[int] = []
    try:
        while True:
            obstacle = _obstacle(master, state, workers, wanted[0])
            if obstacle or all(state.reported(worker.slot) == wanted for worker in workers.values()):
                return obstacle
            if time.monotonic() > deadline:
                return f"a worker took longer than {seconds:g} seconds"
            if any(each in _ENDINGS for each in signals):
                return "the service is stopping"
            signals += master.wait_for_signals(timeout=_ROUND_SECONDS)
            master.reap_workers()
            master.murder_workers()
    finally:
        for each in signals:  # gunicorn's main loop handles them
            master.SIG_QUEUE.put_nowait(each)


def _obstacle(master: Arbiter, state: ReloadState, workers: Mapping[int, Any], number: int) -> str | None:
    if (number, Step.FAILED) in [state.reported(worker.slot) for worker in workers.values()]:
        return "a worker failed; the log above has the reason"
    return "a worker left" if workers != master.WORKERS else None

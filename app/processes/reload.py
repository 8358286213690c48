"""Reload on SIGHUP: every worker prepares a new model and the keys; then all workers use them, or none does.

    the master                       each worker
    n, PREPARE; SIGHUP          ->   build, check, read; n, PREPARED or n, FAILED
    waits for all, then decides
    n, USE or n, DROP; SIGHUP   ->   use what was prepared; n, USED; or drop it

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
from typing import Any, Generic, TypeVar

from ..errors import TopthreeError
from .memory import shared_words

log = logging.getLogger(__name__)

Prepared = TypeVar("Prepared")

# Torch takes half a minute to prepare a model, on a slow machine several; a worker that takes longer has failed.
PREPARE_SECONDS = 300.0
# To exchange two references takes no time; a worker that has not done it by then is stuck.
USE_SECONDS = 10.0
_ROUND_SECONDS = 0.05
MASTER = -1
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
    """The master's last order at `MASTER`, and each worker's last report at its slot, in memory that all share.

    Each is a 64-bit word that holds a reload's number and a step of it, and has one writer, so that both are always
    read together.
    """

    def __init__(self) -> None:
        self._words = shared_words()

    def __getitem__(self, slot: int) -> tuple[int, Step]:
        """Return the number and the step that were written last."""
        number, step = divmod(self._words[1 + slot], 8)
        return number, Step(step)

    def __setitem__(self, slot: int, written: tuple[int, Step]) -> None:
        """Write a number and a step; the master may write only its order, and a worker only its report."""
        number, step = written
        self._words[1 + slot] = 8 * number + step


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
            number, step = self._state[MASTER]
            if step is Step.PREPARE and number != self._begun:
                self._begun = number
                self._prepare(number)
                return
            if step is Step.USE and number == self._begun and self._prepared is not None:
                self._use(self._prepared)
                self._state[self._slot] = number, Step.USED
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
            self._state[self._slot] = number, step


def reload_workers(
    master: Any, state: ReloadState, *, prepare_seconds: float = PREPARE_SECONDS, use_seconds: float = USE_SECONDS
) -> None:
    """Do the part of `master`, a `gunicorn.arbiter.Arbiter`: have all workers prepare, decide, and log the result.

    The master does nothing else until then, as in gunicorn's own reload. A worker that leaves, or a signal to stop,
    ends the reload at once.
    """
    number = state[MASTER][0] + 1
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


def _order(master: Any, state: ReloadState, number: int, step: Step) -> None:
    state[MASTER] = number, step
    master.kill_workers(signal.SIGHUP)


def _wait(
    master: Any, state: ReloadState, workers: Mapping[int, Any], wanted: tuple[int, Step], seconds: float
) -> str | None:
    """Wait until all workers report what is wanted; return None, or the reason if they will not."""
    deadline = time.monotonic() + seconds
    signals: list[int] = []
    try:
        while True:
            obstacle = _obstacle(master, state, workers, wanted[0])
            if obstacle or all(state[worker.slot] == wanted for worker in workers.values()):
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


def _obstacle(master: Any, state: ReloadState, workers: Mapping[int, Any], number: int) -> str | None:
    if (number, Step.FAILED) in [state[worker.slot] for worker in workers.values()]:
        return "a worker failed; the log above has the reason"
    return "a worker left" if workers != master.WORKERS else None

"""SIGHUP: every worker builds and checks a new model and reads the keys beside those in use; all change, or none.

    the master                            each worker
    order(n, PREPARE), SIGHUP  ->         build, check, read; report(n, PREPARED or FAILED)
    waits for all, then decides
    order(n, USE or DROP), SIGHUP  ->     use what was prepared and report(n, USED), or drop it

The decision is one word that the master alone writes, once for each reload. Requests go on meanwhile: one that has
begun ends with the model that it began with.
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

# A model that must be prepared first takes torch half a minute, on a slow machine some; after that it has failed.
PREPARE_SECONDS = 300.0
# To exchange two references takes no time; a worker that has not done it by then is stuck.
USE_SECONDS = 10.0
_ROUND_SECONDS = 0.05
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Step(IntEnum):
    """What is to be done, or has been."""

    NOTHING = 0
    PREPARE = 1
    PREPARED = 2
    FAILED = 3
    USE = 4
    USED = 5
    DROP = 6


class ReloadBoard:
    """What master and workers tell each other, in memory that they share across the fork.

    A word of 64 bits holds a reload's number and a step of it, and has one writer, so that nobody ever reads one
    without the other.
    """

    def __init__(self) -> None:
        self._words = shared_words()

    @property
    def order(self) -> tuple[int, Step]:
        """Return the number of the last reload and what the master wants of it."""
        return self._read(0)

    def give_order(self, number: int, step: Step) -> None:
        """Say what is to be done; the master's alone."""
        self._write(0, number, step)

    def reported(self, slot: int) -> tuple[int, Step]:
        """Return how far the worker in a slot has come, and in which reload."""
        return self._read(1 + slot)

    def report(self, slot: int, number: int, step: Step) -> None:
        """Say how far the worker in this slot has come; that worker's alone."""
        self._write(1 + slot, number, step)

    def _read(self, index: int) -> tuple[int, Step]:
        number, step = divmod(self._words[index], 8)
        return number, Step(step)

    def _write(self, index: int, number: int, step: Step) -> None:
        self._words[index] = 8 * number + step


class Reloader(Generic[Prepared]):
    """A worker's part: `prepare` builds and checks what is new, and `use` puts it to use; both run in a thread."""

    def __init__(
        self, prepare: Callable[[], Prepared], use: Callable[[Prepared], object], board: ReloadBoard, slot: int
    ) -> None:
        self._prepare_all = prepare
        self._use = use
        self._board = board
        self._slot = slot
        self._turn = threading.Lock()
        self._begun = 0
        self._prepared: Prepared | None = None

    def follow(self) -> threading.Thread:
        """Do, in a thread, what the board says; to be called after each SIGHUP."""
        thread = threading.Thread(target=self._follow, name="reload", daemon=True)
        thread.start()
        return thread

    def _follow(self) -> None:
        with self._turn:
            number, step = self._board.order
            if step is Step.PREPARE and number != self._begun:
                self._begun = number
                self._prepare(number)
                return
            if step is Step.USE and number == self._begun and self._prepared is not None:
                self._use(self._prepared)
                self._board.report(self._slot, number, Step.USED)
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
            self._board.report(self._slot, number, step)


class Arbiter(Protocol):
    """What is used of gunicorn's master, `gunicorn.arbiter.Arbiter`."""

    WORKERS: Mapping[int, Any]
    SIG_QUEUE: Any

    def kill_workers(self, sig: int) -> None:
        """Send all workers a signal."""

    def murder_workers(self) -> None:
        """End workers that hang."""

    def reap_workers(self) -> None:
        """Take notice of workers that have ended."""

    def wait_for_signals(self, timeout: float) -> list[int]:
        """Return the signals that have come, at the latest after some seconds."""


def reload_workers(
    master: Arbiter, board: ReloadBoard, *, prepare_seconds: float = PREPARE_SECONDS, use_seconds: float = USE_SECONDS
) -> None:
    """Do the master's part: have all workers prepare, decide, and tell the log what became of it.

    The master does nothing else meanwhile, as in gunicorn's own reload; a worker that leaves, or a signal to stop,
    ends it at once.
    """
    number = board.order[0] + 1
    workers = dict(master.WORKERS)
    _tell(master, board, number, Step.PREPARE)
    obstacle = _wait(master, board, workers, (number, Step.PREPARED), prepare_seconds)
    _tell(master, board, number, Step.DROP if obstacle else Step.USE)
    if obstacle:
        log.error("Reload %d is given up, all goes on as before: %s.", number, obstacle)
        return
    obstacle = _wait(master, board, workers, (number, Step.USED), use_seconds)
    if obstacle:
        log.error("Reload %d is done, but %s.", number, obstacle)
    else:
        log.info("Reload %d is done: %d workers have read model and keys again.", number, len(workers))


def _tell(master: Arbiter, board: ReloadBoard, number: int, step: Step) -> None:
    board.give_order(number, step)
    master.kill_workers(signal.SIGHUP)


def _wait(
    master: Arbiter, board: ReloadBoard, workers: Mapping[int, Any], wanted: tuple[int, Step], seconds: float
) -> str | None:
    """Wait until all workers report what is wanted; return None, or why that will not be."""
    deadline = time.monotonic() + seconds
    signals: list[int] = []
    try:
        while True:
            obstacle = _obstacle(master, board, workers, wanted[0])
            if obstacle or all(board.reported(worker.slot) == wanted for worker in workers.values()):
                return obstacle
            if time.monotonic() > deadline:
                return f"a worker took longer than {seconds:g} seconds"
            if any(each in _ENDINGS for each in signals):
                return "the service is stopping"
            signals += master.wait_for_signals(timeout=_ROUND_SECONDS)
            master.reap_workers()
            master.murder_workers()
    finally:
        for each in signals:  # they are the main loop's
            master.SIG_QUEUE.put_nowait(each)


def _obstacle(master: Arbiter, board: ReloadBoard, workers: Mapping[int, Any], number: int) -> str | None:
    if (number, Step.FAILED) in [board.reported(worker.slot) for worker in workers.values()]:
        return "a worker failed, with its reason in the line above"
    return "a worker left meanwhile" if workers != master.WORKERS else None

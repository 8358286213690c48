"""All connections of a worker: how much they hold together, and which of them goes if it is too much."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gunicorn.config import Config

from ..errors import Overloaded, Problem
from ..settings import Settings
from ..web.gate import Gate
from ..web.uploads import BATCH, FRAMING_BYTES, ONE_PHOTO

if TYPE_CHECKING:
    from .channel import Channel

# How much of a body that is not taken is read and dropped, so that its sender can read the answer.
MAX_SKIPPED_BYTES = 256 * 2**20
# A connection that has just been accepted is not idle yet.
_IDLE_SECONDS = 1.0
# How long a stopping worker keeps an idle connection, on which a request may be on its way already.
_STOP_SECONDS = 2.0
_MAX_WARNINGS, _WARNING_SECONDS = 10, 10.0


@dataclass(frozen=True)
class Limits:
    """What a client may ask of a connection: sizes in bytes, times in seconds, and the slowest pace."""

    line_bytes: int
    header_fields: int
    body_bytes: int
    all_bytes: int
    connections: int
    keepalive_seconds: float
    stall_seconds: float
    bytes_per_second: int

    @property
    def head_bytes(self) -> int:
        """Return the limit of the request line and all header fields together."""
        return self.line_bytes + 1024 * self.header_fields


def limits_of(cfg: Config, settings: Settings) -> Limits:
    """Take the limits of connections from gunicorn's configuration and our settings."""
    return Limits(
        line_bytes=cfg.limit_request_line,
        header_fields=cfg.limit_request_fields,
        body_bytes=max(limit.body_bytes(settings) for limit in (ONE_PHOTO, BATCH)),
        all_bytes=settings.max_waiting_bytes + 2 * FRAMING_BYTES,
        connections=cfg.worker_connections,
        keepalive_seconds=cfg.keepalive,
        stall_seconds=settings.stall_seconds,
        bytes_per_second=settings.min_bytes_per_second,
    )


class Connections:
    """The connections of a worker, in the order in which they began to wait for what they wait for now.

    `changed` and `at_once` are the channels that the loop must look at and those whose answer needs no thread.
    """

    def __init__(self, gate: Gate, limits: Limits, changed: deque[int], warn: Callable[..., None]) -> None:
        self.gate = gate
        self.limits = limits
        self.changed = changed
        self.at_once: deque[Channel] = deque()
        self.channels: dict[Channel, None] = {}
        self.held_bytes = 0
        self.answered = 0
        self.is_stopping = False
        self._warn = warn
        self._warnings: deque[float] = deque(maxlen=_MAX_WARNINGS)

    def add(self, channel: Channel) -> None:
        """Note a connection that was accepted, and end another one if there are too many."""
        self.channels[channel] = None
        if len(self.channels) > self.limits.connections:
            self._make_room(channel)

    def count(self, change: int) -> None:
        """Note a change of the bytes that are held, and refuse the slowest client if they are too many."""
        self.held_bytes += change
        if change > 0 and self.held_bytes > self.limits.all_bytes and (slowest := _slowest(self.channels)):
            slowest.refuse(Overloaded("Too much is being received at once. Try again in a moment.", 1))

    def sweep(self) -> None:
        """End what has had its time."""
        now = time.monotonic()
        for channel in [channel for channel in self.channels if channel.deadline <= now]:
            channel.expire(now)

    def stop(self) -> None:
        """Announce the end of each connection in its next answer, and keep idle ones for a moment only."""
        self.is_stopping = True
        for channel in self.channels:
            if channel.is_idle:
                channel.deadline = min(channel.deadline, time.monotonic() + _STOP_SECONDS)

    def end(self) -> None:
        """End all connections, and tell the clients that are still sending."""
        for channel in list(self.channels):
            channel.refuse(Overloaded("This process is stopping. Try again in a moment.", 1))
            channel.handle_close()

    def warn_of(self, problem: Problem, address: str) -> None:
        """Log a malformed request, without any byte of it, at a limited rate."""
        now = time.monotonic()
        if len(self._warnings) < _MAX_WARNINGS or now - self._warnings[0] > _WARNING_SECONDS:
            self._warnings.append(now)
            # The address is taken out of the log unless it is asked for (app/telemetry/logs.py).
            self._warn("Invalid request from ip=%s: %s", address, problem.detail)

    def _make_room(self, newest: Channel) -> None:
        """End the connection that has been idle for longest, or else the slowest; never the newest."""
        latest = time.monotonic() - _IDLE_SECONDS
        others = [channel for channel in self.channels if channel is not newest]
        idle = (channel for channel in others if channel.is_idle and channel.since <= latest)
        victim = next(idle, None) or _slowest(others) or next(iter(others), None)
        if victim is not None:
            victim.refuse(Overloaded("There are too many connections. Try again in a moment.", 1))
            victim.handle_close()


def _slowest(channels: Iterable[Channel]) -> Channel | None:
    now = time.monotonic()
    return min((each for each in channels if each.is_moving), key=lambda each: each.pace(now), default=None)

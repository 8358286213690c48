"""`RateLimits`: how often each key and each address has called, counted in memory or in Redis.

While Redis cannot be reached, each process counts in its own memory: callers are served and limited, though less
exactly.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..settings import Settings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.strategies import FixedWindowRateLimiter

log = logging.getLogger(__name__)

MEMORY = "memory://"
# The scopes of the two settings: what a key may use, or an address without a key, and what each address may use.
CALLER, ADDRESS = "caller", "address"
# Redis usually answers within a millisecond. No request waits longer than this for it.
_REDIS_OPTIONS = {"socket_connect_timeout": 1, "socket_timeout": 1}
# After a failure, Redis is tried again at this interval.
RETRY_SECONDS = 10.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Count:
    """One limit as it applies to one request: `kind` is "key" or "address", and `name` the one that is counted."""

    limit: RateLimitItem
    scope: str
    kind: str
    name: str

    @property
    def identifiers(self) -> tuple[str, str, str]:
        """Return the names under which it is stored."""
        return "topthree", f"{self.kind} {self.name}", self.scope


class RateLimits:
    """The limits of the settings and their counts; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        # Imported only here: with the client for Redis it would lengthen every start.
        from limits import parse_many
        from limits.storage import MemoryStorage, storage_from_string
        from limits.strategies import FixedWindowRateLimiter

        texts = {CALLER: settings.rate_limit, ADDRESS: settings.rate_limit_per_address}
        self._limits = sorted(
            ((limit, scope) for scope, text in texts.items() if text for limit in parse_many(text)),
            key=lambda each: each[0],
        )
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._in_redis: FixedWindowRateLimiter | None = None
        self._lock = threading.Lock()
        self._is_away = False
        self._retry_at = 0.0
        if settings.rate_limit_storage != MEMORY:
            storage = storage_from_string(settings.rate_limit_storage, wrap_exceptions=True, **_REDIS_OPTIONS)
            # The only one of the strategies that lets a batch use more than is left.
            self._in_redis = FixedWindowRateLimiter(storage)
            if not storage.check():
                self._note_failure("no answer to a ping")

    def counts_for(self, caller: str | None, address: str) -> list[Count]:
        """Return the limits that apply to a request of a key, or without one, from an address; shortest first."""
        names = {CALLER: ("key", caller) if caller else ("address", address), ADDRESS: ("address", address)}
        return [Count(limit, scope, *names[scope]) for limit, scope in self._limits]

    def hit(self, count: Count, cost: int = 1) -> bool:
        """Count `cost` requests, and return whether the limit still holds."""
        return self._ask(lambda limiter: limiter.hit(count.limit, *count.identifiers, cost=cost))

    def left(self, count: Count) -> tuple[int, int]:
        """Return how many requests are left, and the seconds until the count starts again, at least 1."""
        window = self._ask(lambda limiter: limiter.get_window_stats(count.limit, *count.identifiers))
        return window.remaining, max(1, math.ceil(window.reset_time - time.time()))

    def _ask(self, question: Callable[[FixedWindowRateLimiter], Result]) -> Result:
        """Ask Redis or, if it does not answer, the memory of this process."""
        from limits.errors import StorageError

        if self._in_redis is None or not self._should_try():
            return question(self._in_memory)
        try:
            answer = question(self._in_redis)
        except StorageError as error:
            self._note_failure(str(error.storage_error))
            return question(self._in_memory)
        self._is_away = False
        return answer

    def _should_try(self) -> bool:
        """Return whether to ask Redis; after a failure, one request at a time finds out whether it is back."""
        with self._lock:
            if not self._is_away:
                return True
            is_due = time.monotonic() >= self._retry_at
            if is_due:
                self._retry_at = time.monotonic() + RETRY_SECONDS
            return is_due

    def _note_failure(self, reason: str) -> None:
        self._is_away, self._retry_at = True, time.monotonic() + RETRY_SECONDS
        log.warning("The Redis of TOPTHREE_RATE_LIMIT_STORAGE does not answer; until it does, each process counts.")
        log.debug("Redis: %s", reason)


def make_limits(settings: Settings) -> RateLimits | None:
    """Create the limits of the settings; return None if they set none."""
    is_limited = settings.rate_limit or settings.rate_limit_per_address
    return RateLimits(settings) if is_limited else None

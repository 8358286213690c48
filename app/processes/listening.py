"""`Listener`: a worker's side of a socket on which several accept: each connection goes to that with the fewest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

# A worker may be busy, or stopped. Then another one takes what it has left for so long.
REST_SECONDS = 0.01


class Listener:
    """A dispatcher for a loop like waitress's, in the place of one that accepts at once.

    All workers see a new connection. One that has more connections than another leaves it to that one and rests: it
    does not look for connections. If this one is still there after the rest, it takes it.
    """

    def __init__(self, dispatcher: Any, has_more: Callable[[], bool], changed: deque[int]) -> None:
        self.dispatcher = dispatcher
        self.handle_error = dispatcher.handle_error
        self.file: int = dispatcher.socket.fileno()
        self.rests = False
        self._rests_until = 0.0
        self._has_more = has_more
        self._insists = False
        self._changed = changed

    def readable(self) -> bool:
        """Return whether the loop should wait for connections."""
        return not self.rests

    def writable(self) -> bool:
        """Return False: a listening socket sends nothing."""
        return False

    def handle_read_event(self) -> None:
        """Accept a connection, or leave it to another worker."""
        if self._insists or not self._has_more():
            self.dispatcher.handle_read_event()
        else:
            self.rests, self._rests_until = True, time.monotonic() + REST_SECONDS

    def look(self) -> None:
        """End the rest if it is over or this worker has no more than others; called after each round of the loop."""
        self._insists = self.rests and time.monotonic() >= self._rests_until
        if self._insists or (self.rests and not self._has_more()):
            self.rests = False
            self._changed.append(self.file)

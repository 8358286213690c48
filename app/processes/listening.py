"""`Listener`: a worker's side of a socket on which several accept: each connection goes to that with the fewest."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# A worker may be busy, or stopped. Then another one takes what it has left for so long.
REST_SECONDS = 0.01


class Listener:
    """A dispatcher for a loop like waitress's, in the place of one that accepts at once.

    All workers see a new connection. One that has more connections than another leaves it, and does not look for
    `REST_SECONDS`; if the connection is still there then, it takes it.
    """

    def __init__(self, dispatcher: Any, has_more: Callable[[], bool]) -> None:
        self.dispatcher = dispatcher
        self.file: int = dispatcher.socket.fileno()
        self._has_more = has_more
        self._rests_until = 0.0
        self.handle_error = dispatcher.handle_error

    def readable(self) -> bool:
        """Return whether the loop should wait for connections."""
        return time.monotonic() >= self._rests_until

    def writable(self) -> bool:
        """Return False: a listening socket sends nothing."""
        return False

    def handle_read_event(self) -> None:
        """Accept a connection, or leave it to another worker."""
        now = time.monotonic()
        has_rested = now < self._rests_until + REST_SECONDS
        if self._has_more() and not has_rested:
            self._rests_until = now + REST_SECONDS
        else:
            self.dispatcher.handle_read_event()

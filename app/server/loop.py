"""The event loop: waitress's dispatchers, and which of them the system is asked about."""

from __future__ import annotations

import selectors
from collections import deque
from typing import Any

from waitress import wasyncore

from .channel import Channel


class Loop(dict[int, Any]):
    """The map of waitress's dispatchers by file descriptor, and a round over those to which something happened.

    waitress's own loop asks each dispatcher in each round what it waits for, which takes longer than a photo if
    thousands wait. Here the system remembers it, and only a dispatcher in `changed` is asked again. Any thread may
    append to `changed`; all else is for the loop's thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: deque[int] = deque()
        self._selector = selectors.DefaultSelector()
        self._events: dict[int, int] = {}

    def __setitem__(self, file: int, dispatcher: Any) -> None:
        super().__setitem__(file, dispatcher)
        self.changed.append(file)

    def __delitem__(self, file: int) -> None:
        super().__delitem__(file)
        self._register(file, 0)

    def turn(self, seconds: float) -> None:
        """Wait up to so many seconds for something to happen, and handle it."""
        for _ in range(len(self.changed)):
            self._ask(self.changed.popleft())
        for key, events in self._selector.select(0 if self.changed else seconds):
            for event, handle in ((selectors.EVENT_READ, wasyncore.read), (selectors.EVENT_WRITE, wasyncore.write)):
                if events & event and key.fd in self:
                    handle(self[key.fd])
            self.changed.append(key.fd)

    def _ask(self, file: int) -> None:
        if isinstance(self.get(file), Channel):
            self[file].look()
        dispatcher = self.get(file)
        if dispatcher is not None:
            events = selectors.EVENT_READ if dispatcher.readable() else 0
            self._register(file, events | (selectors.EVENT_WRITE if dispatcher.writable() else 0))

    def _register(self, file: int, events: int) -> None:
        before = self._events.pop(file, 0)
        if events:
            self._events[file] = events
        if events and before and events != before:
            self._selector.modify(file, events)
        elif events and not before:
            self._selector.register(file, events)
        elif before and not events:
            self._selector.unregister(file)

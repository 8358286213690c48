"""A decoder with faults that no guard recognises: some GIFs make it spin, allocate, crash, wait or run slowly.

The fork server of the decoders imports this module if a trial or a test asks for it. It takes the place of Pillow's
opener of GIF. If the last four bytes of a GIF name a deed, it is done before the pixels are decoded; any other GIF
is decoded as usual. `bomb_photos.hostile` makes such files. The deeds imitate a native library with a flaw, so those
that compute keep the GIL, as such code does.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import IO

from PIL import GifImagePlugin, Image

DEED_BYTES = 4
SLOW_SECONDS = 0.5
MANY_THREADS = 640
LEAKED_BYTES = 40 * 2**20
LEAKED: list[bytes] = []


def spin() -> None:
    """Compute without end; no signal handler of Python runs until then."""
    deque(itertools.repeat(0), maxlen=0)


def hoard() -> None:
    """Allocate all memory, touch it, keep it, and spin."""
    kept = []
    while True:
        try:
            kept.append(b"\1" * 2**20)
        except MemoryError:
            spin()


def ask_too_much() -> None:
    """Allocate more memory at once than any photo may have, and fail if that is refused."""
    bytearray(2**33)


def crash() -> None:
    """Read from address 0."""
    ctypes.string_at(0)


def wait() -> None:
    """Wait without end, with no use of the processor."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def resist() -> None:
    """Compute without end and ignore the kernel's limit of processor time."""
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    spin()


def be_slow() -> None:
    """Compute for longer than any header suggests, then decode."""
    end = time.process_time() + SLOW_SECONDS
    while time.process_time() < end:
        deque(itertools.repeat(0, 10**5), maxlen=0)


def leak() -> None:
    """Leak memory, as some libraries do on errors, and fail."""
    LEAKED.append(b"\1" * LEAKED_BYTES)
    raise OSError("broken data stream")


def multiply() -> None:
    """Start as many threads as possible, and wait."""
    threading.stack_size(64 * 2**10)
    for _ in range(MANY_THREADS):
        threading.Thread(target=wait, daemon=True).start()
    wait()


def poison() -> None:
    """Make the next photo crash, as a damaged heap does."""
    Image.open = lambda *_, **__: crash()  # type: ignore[assignment]


DEEDS: dict[bytes, Callable[[], None]] = {
    b"SPIN": spin,
    b"HOAR": hoard,
    b"MUCH": ask_too_much,
    b"SEGV": crash,
    b"WAIT": wait,
    b"SLOW": be_slow,
    b"DEAF": resist,
    b"LEAK": leak,
    b"POIS": poison,
    b"MANY": multiply,
}


class HostileGif(GifImagePlugin.GifImageFile):
    """A GIF that does its deed before its pixels are decoded."""

    def _open(self) -> None:
        start = self.fp.tell()
        self.fp.seek(-DEED_BYTES, os.SEEK_END)
        self._deed = DEEDS.get(self.fp.read(DEED_BYTES))
        self.fp.seek(start)
        super()._open()

    def load(self) -> Image.core.PixelAccess | None:
        """Do the deed, if there is one, and decode."""
        if self._deed is not None:
            deed, self._deed = self._deed, None
            deed()
        return super().load()


def _open(file: IO[bytes], name: str | bytes) -> HostileGif:
    return HostileGif(file, name)


Image.register_open("GIF", _open, GifImagePlugin._accept)

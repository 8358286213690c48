"""`Channel`: the connection of a worker and its helper process, which copies no photo through a pipe.

Both share one block of memory and one socket. A request is a frame of fixed size on the socket, and its input lies at
the beginning of the block; the answer is a frame of fixed size, and its output lies in the block from `input_bytes`
on. There is one request at a time. The end of either process closes the socket, which the other sees at once.

The user of a channel defines what its frames hold, as `photos.protocol` does for decoders. The worker trusts neither
frame nor block: it reads only sizes that it knows, and copies what it uses before it looks at it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import socket
import struct
import tempfile
from typing import Any

# The block is emptied after a larger input, so that a few large photos do not stay in memory.
_KEPT_BYTES = 1024 * 1024


class Disconnected(ConnectionError):
    """The other process has ended."""


class Channel:
    """One end: `block` for the bytes, `socket` for the frames. The caller may close the block's file."""

    def __init__(self, sock: socket.socket, block_file: int, input_bytes: int) -> None:
        self.socket = sock
        self.input_bytes = input_bytes
        self.block = mmap.mmap(block_file, os.fstat(block_file).st_size)
        self._file = os.dup(block_file)
        self._received = b""

    def send(self, frame: bytes) -> None:
        """Send a frame; raises Disconnected."""
        try:
            self.socket.sendall(frame)
        except OSError as error:
            raise Disconnected from error

    def receive(self, frame: struct.Struct) -> tuple[Any, ...]:
        """Wait for a frame and unpack it.

        Raises TimeoutError after the socket's time-out, after which the caller may go on waiting, and Disconnected.
        """
        while len(self._received) < frame.size:
            try:
                part = self.socket.recv(frame.size - len(self._received))
            except TimeoutError:
                raise
            except OSError as error:
                raise Disconnected from error
            if not part:
                raise Disconnected
            self._received += part
        data, self._received = self._received, b""
        return frame.unpack(data)

    def is_quiet(self) -> bool:
        """Return whether nothing has come from the other process, neither a frame nor its end."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        return not poll.poll(0)

    def put(self, data: bytes | memoryview) -> None:
        """Write a request's input; other threads run, which they could not while the mapped block is written."""
        view, done = memoryview(data), 0
        while done < len(view):
            done += os.pwrite(self._file, view[done:], done)

    def output(self, start: int, size: int) -> bytes:
        """Copy a part of the answer's output."""
        at = self.input_bytes + start
        return self.block[at : at + size]

    def tidy(self, used_bytes: int) -> bool:
        """Return the memory of the whole block to the system after a large input; return False if that fails."""
        if used_bytes > _KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            try:
                self.block.madvise(mmap.MADV_REMOVE)
            except OSError:  # gVisor, for example, does not support it
                return False
        return True

    def close(self) -> None:
        """Close the socket and the file, and unmap the block."""
        self.socket.close()
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)
        with contextlib.suppress(BufferError):  # unmapped with its last view
            self.block.close()


def shared_block(size: int) -> int:
    """Make a block of memory that is a file without a name; returns its descriptor.

    On Linux it can neither shrink nor grow: a shorter block would end the process that reads beyond its end. It takes
    memory only for pages that were written, and needs no /dev/shm.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            _resize(file.fileno(), size)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("topthree-photo", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _resize(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _resize(descriptor: int, size: int) -> None:
    """Set the size of a file in memory, to which the limit on the sizes of files applies too."""
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise OSError(
            error.errno, f"the limit on file sizes (ulimit -f) is below the {size:,} bytes it needs"
        ) from error

"""The decoder: a process that turns hostile bytes into a crop, one photo after another, and may do nothing else.

The kernel ends it if a photo takes more processor time than its limit (`setitimer(2)`, `ITIMER_PROF`, which counts
all threads), also inside native code; the worker sets the limit of its memory. A problem that is raised here becomes
the reply. If the process itself ends, the worker decides whether its photo is at fault (`decoder_process`).
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImagePalette

from ..errors import Problem
from ..processes import sandbox
from ..processes.channel import Channel, Disconnected
from .decoding import decode
from .device_jpegs import device_orientation
from .formats import KEYS, format_of
from .guards import Estimate, examine
from .protocol import (
    HELLO,
    MAX_DETAIL_BYTES,
    PROBLEMS,
    REQUEST,
    THUMBNAIL_START,
    Reply,
    Request,
    Status,
)
from .refusals import out_of_memory

# The most that a decoder has mapped before its first photo; measured: 55 MiB of data, 156 MiB in all.
_MAX_INITIAL_DATA_BYTES, _MAX_INITIAL_MAPPED_BYTES = 80 << 20, 224 << 20
# Nothing can be imported inside the sandbox, so modules that Pillow would import late are imported here.
Image.preinit()
_IMPORTED = (ImageCms, ImagePalette)


def serve(channel: Channel) -> None:
    """Enter the sandbox, report its measures, and decode until the worker closes the channel."""
    decoder = Decoder(channel)
    measures, memory = sandbox.enter(), decoder.memory()
    channel.send(HELLO.pack(measures, memory.data_bytes, memory.mapped_bytes))
    try:
        while True:
            decoder.answer(Request.unpack(channel.receive(REQUEST)))
    except Disconnected:
        return


@dataclass(frozen=True)
class Memory:
    """How many bytes a process has mapped, has in memory, and has mapped for its own data (proc_pid_statm(5))."""

    mapped_bytes: int
    resident_bytes: int
    data_bytes: int


class Decoder:
    """Answer requests on a channel; must be created before the sandbox is entered, since it opens a file."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._statm = os.open("/proc/self/statm", os.O_RDONLY) if os.path.exists("/proc/self/statm") else -1

    def answer(self, request: Request) -> None:
        """Decode one photo and send the reply."""
        signal.setitimer(signal.ITIMER_PROF, request.max_seconds)
        try:
            reply = self._decode(request)
        except Problem as problem:
            reply = self._refuse(problem)
        except MemoryError:
            reply = self._refuse(out_of_memory())
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self._channel.send(reply.pack())

    def _decode(self, request: Request) -> Reply:
        data = self._channel.block[: request.size]
        wanted, allowance = request.wanted, request.allowance
        photo_format = format_of(data)
        resize = wanted.geometry.resize
        estimate = examine(data, max_pixels=wanted.max_pixels, photo_format=photo_format, resize=resize)
        if estimate.memory_bytes > allowance.memory_bytes or estimate.seconds > allowance.seconds:
            return self._reply(Status.NEEDS_MORE, estimate, width=estimate.width, height=estimate.height)
        if wanted.may_leave and (orientation := device_orientation(data, photo_format, estimate)):
            height, width = sides = estimate.height, estimate.width
            width, height = sides if orientation >= 5 else (width, height)
            return self._reply(Status.CHECKED, estimate, width=width, height=height, orientation=orientation)
        photo = decode(data, max_pixels=wanted.max_pixels, photo_format=photo_format, resize=resize)
        self._write(0, photo.crop(wanted.geometry))
        thumbnail_height = thumbnail_width = 0
        if wanted.thumbnail_side:
            thumbnail = photo.thumbnail(wanted.thumbnail_side)
            thumbnail_height, thumbnail_width = thumbnail.shape[:2]
            self._write(THUMBNAIL_START, thumbnail)
        return self._reply(
            Status.DONE,
            estimate,
            width=photo.width,
            height=photo.height,
            thumbnail_width=thumbnail_width,
            thumbnail_height=thumbnail_height,
        )

    def _refuse(self, problem: Problem) -> Reply:
        detail = problem.detail.encode()[:MAX_DETAIL_BYTES]
        start = self._channel.input_bytes + THUMBNAIL_START
        self._channel.block[start : start + len(detail)] = detail
        memory = self.memory()
        return Reply(
            Status.PROBLEM,
            problem=PROBLEMS.index(type(problem)),
            detail_bytes=len(detail),
            resident_bytes=memory.resident_bytes,
            data_bytes=memory.data_bytes,
        )

    def _reply(self, status: Status, estimate: Estimate, **facts: int) -> Reply:
        memory = self.memory()
        return Reply(
            status,
            KEYS.index(estimate.kind),
            memory_bytes=estimate.memory_bytes,
            seconds=estimate.seconds,
            resident_bytes=memory.resident_bytes,
            data_bytes=memory.data_bytes,
            **facts,
        )

    def _write(self, start: int, pixels: npt.NDArray[np.uint8]) -> None:
        at = self._channel.input_bytes + start
        self._channel.block[at : at + pixels.nbytes] = np.ascontiguousarray(pixels).data.cast("B")

    def memory(self) -> Memory:
        """Read how much memory this process has; on a system without /proc, upper bounds."""
        if self._statm < 0:
            return Memory(_MAX_INITIAL_MAPPED_BYTES, _max_resident_bytes(), _MAX_INITIAL_DATA_BYTES)
        pages = [int(number) * resource.getpagesize() for number in os.pread(self._statm, 100, 0).split()]
        return Memory(pages[0], pages[1], pages[5])


def _max_resident_bytes() -> int:
    """Return the largest resident size of this process so far (getrusage(2): kilobytes, on macOS bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

"""The decoder: a process that turns hostile bytes into a crop, one photo after another, and may do nothing else.

The kernel ends it where a photo takes more processor time than its limit (`setitimer(2)`, `ITIMER_PROF`, which counts
all threads), also inside native code; the worker sets the limit of its memory. What it raises of its own accord is the
photo's problem; what ends it is, too.
"""

from __future__ import annotations

import os
import resource
import signal

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImagePalette,
    MpoImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import Problem, TooCostly
from ..images import decode
from ..processes import sandbox
from ..processes.channel import Channel, Disconnected
from .guards import Estimate, examine
from .protocol import (
    HELLO,
    KINDS,
    MAX_DETAIL_BYTES,
    PROBLEMS,
    REQUEST,
    THUMBNAIL_START,
    Reply,
    Request,
    Status,
)

# Behind the sandbox nothing can be imported any more.
Image.preinit()
_IMPORTED = (AvifImagePlugin, GifImagePlugin, ImageCms, ImagePalette, MpoImagePlugin, TiffImagePlugin, WebPImagePlugin)


def serve(channel: Channel) -> None:
    """Enter the sandbox, say what it enforces, and decode until the worker closes the channel."""
    decoder = Decoder(channel)
    channel.send(HELLO.pack(sandbox.enter()))
    try:
        while True:
            decoder.answer(Request.unpack(channel.receive(REQUEST)))
    except Disconnected:
        return


class Decoder:
    """Answers requests on a channel; to be made before the sandbox, since it opens what it needs."""

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
            reply = self._refuse(TooCostly("Decoding this photo takes more memory than its header promised."))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self._channel.send(reply.pack())

    def _decode(self, request: Request) -> Reply:
        data = self._channel.block[: request.size]
        wanted, allowance = request.wanted, request.allowance
        estimate = examine(data, max_pixels=wanted.max_pixels)
        if estimate.memory_bytes > allowance.memory_bytes or estimate.seconds > allowance.seconds:
            return self._reply(Status.NEEDS_MORE, estimate)
        photo = decode(data, max_pixels=wanted.max_pixels)
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
        return Reply(Status.PROBLEM, problem=PROBLEMS.index(type(problem)), detail_bytes=len(detail))

    def _reply(self, status: Status, estimate: Estimate, **facts: int) -> Reply:
        return Reply(
            status,
            KINDS.index(estimate.kind),
            memory_bytes=estimate.memory_bytes,
            seconds=estimate.seconds,
            resident_bytes=self._resident_bytes(),
            **facts,
        )

    def _write(self, start: int, pixels: npt.NDArray[np.uint8]) -> None:
        at = self._channel.input_bytes + start
        self._channel.block[at : at + pixels.nbytes] = np.ascontiguousarray(pixels).data.cast("B")

    def _resident_bytes(self) -> int:
        """Read what this process occupies; where the system has no /proc, the most that it ever did."""
        if self._statm < 0:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = os.pread(self._statm, 100, 0).split()[1]
        return int(pages) * resource.getpagesize()

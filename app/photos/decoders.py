"""`Decoders`: photos are decoded in processes of their own, which can be killed at any time.

Each decoder is a child of the fork server (`processes.forkserver`) and shares one block of memory with this process
(`processes.channel`). A thread that has a photo takes an idle decoder, writes the photo into its block and waits for
the reply; every 50 ms it checks whether there is still a reason to wait (`decoder_process`). The supervisor replaces
decoders that have ended (`supervisor`).

A decoder ends when a photo has taken its processor time (the kernel sees to that), when the request's deadline has
passed or the client has disconnected, when it neither computes nor waits for a processor for a second, and after a
photo that made it grow or that went on at the lowest priority.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import BrokenImage, Problem, TooCostly
from ..processes import sandbox
from ..processes.channel import Channel, Disconnected
from ..processes.usage import run_with_less_priority
from ..settings import MEBI
from .decoder_process import DecoderProcess, Waiter
from .formats import KEYS
from .guards import Estimate
from .protocol import PROBLEMS, THUMBNAIL_START, Allowance, Reply, Request, Status, Wanted
from .supervisor import Supervisor

log = logging.getLogger(__name__)

MAX_SECONDS = 2.0
# Enough for most photos: a JPEG of 12 megapixels is decoded at a quarter of its size, within both.
FAST = Allowance(memory_bytes=32 * MEBI, seconds=0.05)


@dataclass(frozen=True)
class Decoded:
    """A photo as the model sees it: `crop` is uint8 RGB of shape (side, side, 3), `thumbnail` (height, width, 3).

    `width` and `height` are those of the upright original, `format` one of `formats.KEYS`.
    """

    width: int
    height: int
    format: str
    crop: npt.NDArray[np.uint8]
    thumbnail: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Checked:
    """A JPEG that was not decoded, since the device can: the size of the upright photo, and how it is stored."""

    width: int
    height: int
    orientation: int
    format: str = "JPEG"
    thumbnail: None = None


class Decoders:
    """`count` decoders, started with the first photo; usable from many threads until `close`.

    A photo may have up to `max_bytes`, take `memory_bytes` while it is decoded, and `max_seconds` of processor time.
    The fork server imports `extra_modules` before it forks.
    """

    def __init__(
        self,
        count: int,
        *,
        max_bytes: int,
        memory_bytes: int,
        max_seconds: float = MAX_SECONDS,
        extra_modules: tuple[str, ...] = (),
    ) -> None:
        self.count = count
        self.max_bytes = max_bytes
        self.memory_bytes = memory_bytes
        self.max_seconds = max_seconds
        self._supervisor = Supervisor(count, max_bytes, extra_modules)

    @property
    def measures(self) -> sandbox.Measures:
        """Return the measures that the sandbox of the newest decoder enforces."""
        return self._supervisor.measures

    @property
    def pids(self) -> list[int]:
        """Return the process ids of the decoders that are alive."""
        return self._supervisor.pids

    def begin(self) -> None:
        """Begin to start the decoders, without waiting for one; raises Overloaded."""
        self._supervisor.begin()

    def start(self) -> sandbox.Measures:
        """Start the decoders, wait for one, and return what its sandbox enforces; raises Overloaded."""
        self._supervisor.check_in(self._supervisor.check_out(None))
        return self.measures

    def log_measures(self) -> None:
        """Log what the sandbox enforces, as a warning if that is not everything."""
        level = logging.INFO if self.measures == sandbox.ALL_MEASURES else logging.WARNING
        log.log(level, "Sandbox of the processes that decode photos: %s.", sandbox.describe(self.measures))

    def decode(self, photo: bytes, wanted: Wanted, waiter: Waiter | None = None) -> Decoded:
        """Decode a photo with all the memory and time that a photo may take; raises what `attempt` raises."""
        found = self.attempt(photo, wanted, Allowance(self.memory_bytes, self.max_seconds), waiter)
        if isinstance(found, Estimate):
            raise self.too_costly(found)
        assert isinstance(found, Decoded)
        return found

    def attempt(
        self,
        photo: bytes,
        wanted: Wanted,
        allowance: Allowance = FAST,
        waiter: Waiter | None = None,
        *,
        step_aside: Callable[[], None] | None = None,
        is_long: bool = False,
    ) -> Decoded | Estimate | Checked:
        """Decode a photo if its header promises no more than the allowance, else return the estimate.

        A long photo is decoded at a lower priority, by a decoder beyond the planned ones. A photo that takes much
        longer than promised goes on at the lowest priority, after `step_aside` was called.
        Raises UnsupportedImage, BrokenImage, TooManyPixels or TooCostly for the photo, Overloaded if no decoder
        can be started or too many photos go on at the lowest priority, and what the waiter raises.
        """
        if len(photo) > self.max_bytes:
            raise TooCostly(f"The file has more than {self.max_bytes:,} bytes.")
        request = Request(len(photo), wanted, allowance, self.max_seconds)
        tries = 0
        while True:
            tries += 1
            decoder = self._supervisor.check_out(waiter)
            if is_long:
                self._supervisor.set_apart(decoder)
                run_with_less_priority(decoder.pid)
            try:
                return self._run(decoder, photo, request, waiter, step_aside)
            except Disconnected:
                if tries >= decoder.max_tries(self.count):
                    raise decoder.problem_of_end(self.max_seconds) from None

    def too_costly(self, estimate: Estimate) -> TooCostly:
        """Build the error that names the limit of one photo that an estimate exceeds."""
        needed, allowed = estimate.memory_bytes / MEBI, self.memory_bytes / MEBI
        if needed > allowed:
            return TooCostly(f"Decoding takes about {needed:,.0f} MiB of memory; {allowed:,.0f} MiB are allowed.")
        return TooCostly(
            f"Decoding takes about {estimate.seconds:.1f} s of processor time; {self.max_seconds:g} s are allowed."
        )

    def close(self) -> None:
        """End all decoders."""
        self._supervisor.close()

    def _run(
        self,
        decoder: DecoderProcess,
        photo: bytes,
        request: Request,
        waiter: Waiter | None,
        step_aside: Callable[[], None] | None,
    ) -> Decoded | Estimate | Checked:
        def move_aside() -> None:
            self._supervisor.step_aside(decoder)
            if step_aside is not None:
                step_aside()

        is_fit = False
        try:
            reply = decoder.run(photo, request, waiter, move_aside)
            found = _result(decoder.channel, reply, request.wanted)
            is_fit = True
        except ValueError as error:
            raise BrokenImage("The file is damaged in a way that confuses its decoder.") from error
        finally:
            if is_fit:
                self._supervisor.check_in(decoder, len(photo), has_grown=decoder.has_grown(reply))
            else:
                self._supervisor.end(decoder)
        if isinstance(found, Problem):
            raise found
        return found


def _result(channel: Channel, reply: Reply, wanted: Wanted) -> Decoded | Estimate | Checked | Problem:
    """Copy the output of a decoder; its sizes follow from the request or are bounded."""
    if reply.status == Status.PROBLEM:
        detail = channel.output(THUMBNAIL_START, reply.detail_bytes).decode("utf-8", "replace")
        return PROBLEMS[reply.problem](detail)
    kind = KEYS[reply.kind]
    if reply.status == Status.NEEDS_MORE:
        return Estimate(kind, reply.width, reply.height, reply.memory_bytes, reply.seconds)
    if reply.status == Status.CHECKED:
        if not wanted.may_leave:
            raise ValueError("The decoder's answer makes no sense.")
        return Checked(reply.width, reply.height, reply.orientation)
    side = wanted.geometry.crop
    crop = np.frombuffer(channel.output(0, side * side * 3), np.uint8).reshape(side, side, 3)
    thumbnail = None
    if wanted.thumbnail_side:
        shape = reply.thumbnail_height, reply.thumbnail_width, 3
        if not 1 <= min(shape[:2]) <= max(shape[:2]) <= wanted.thumbnail_side:
            raise ValueError("The decoder's answer makes no sense.")
        thumbnail = np.frombuffer(channel.output(THUMBNAIL_START, shape[0] * shape[1] * 3), np.uint8).reshape(shape)
    return Decoded(reply.width, reply.height, kind, crop, thumbnail)

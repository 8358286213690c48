"""`Lanes`: a photo is decoded in the lane that its header asks for.

Every photo first gets a slot and a decoder with a small allowance, and is decoded at once if its header promises no
more than that. One that needs more gives its slot back, reserves the memory that its header promises, and is decoded
in the long lane, without a slot and at a lower priority. A photo that takes much longer than promised, in either lane,
goes on at the lowest priority. Each needs a slot again when it is decoded. So short photos never wait for long ones,
and lose little of the processors to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ..errors import DeadlineExceeded, Overloaded
from ..photos.decoders import FAST, Checked, Decoded, Decoders
from ..photos.guards import Estimate
from ..photos.protocol import Allowance, Wanted
from .scheduling import NO_DEADLINE, Deadline, MemoryBudget, Slots, Turn


class Lanes:
    """The slots, the memory and the decoders of one process."""

    def __init__(self, slots: Slots, decoders: Decoders) -> None:
        self.slots = slots
        self.long_slots = Slots(max(1, slots.count - 1))
        self.decoders = decoders
        self.memory = MemoryBudget(decoders.memory_bytes)

    @contextmanager
    def decoded(
        self, photo: bytes, wanted: Wanted, deadline: Deadline = NO_DEADLINE
    ) -> Iterator[tuple[Decoded | Checked, Turn]]:
        """Decode a photo and hold a slot while the caller computes; `Turn.waited_seconds` adds up all waits for slots.

        A JPEG is only checked if `wanted` allows that and the device can decode it.
        Raises what `Decoders.attempt` raises; TooCostly if the header promises more than one photo may take;
        DeadlineExceeded and ClientClosedRequest; Overloaded if the wait for the long lane takes the whole deadline.
        """
        with ExitStack() as held:
            turn = held.enter_context(self.slots.take(deadline, len(photo)))
            waited = turn.waited_seconds
            found = self.decoders.attempt(photo, wanted, FAST, deadline, step_aside=turn.give_up)
            if isinstance(found, Estimate):
                held.close()
                found, waited_long = self._decode_long(photo, wanted, found, deadline)
                waited += waited_long
            if not turn.is_held:
                held.close()  # of a photo that has stepped aside: the metrics count it as in flight until here
                turn = held.enter_context(self.slots.take(deadline))
                waited += turn.waited_seconds
            turn.waited_seconds = waited
            yield found, turn

    def _decode_long(
        self, photo: bytes, wanted: Wanted, estimate: Estimate, deadline: Deadline
    ) -> tuple[Decoded | Checked, float]:
        """Decode a photo in the long lane; return it, and the seconds that it waited."""
        if estimate.memory_bytes > self.memory.total_bytes or estimate.seconds > self.decoders.max_seconds:
            raise self.decoders.too_costly(estimate)
        began = time.monotonic()
        with ExitStack() as reserved:
            try:
                # The file itself is in its decoder twice, in the shared block and as a copy.
                needed = min(self.memory.total_bytes, estimate.memory_bytes + 2 * len(photo))
                reserved.enter_context(self.memory.reserve(needed, deadline))
                turn = reserved.enter_context(self.long_slots.take(deadline))
            except DeadlineExceeded as error:
                raise Overloaded("Other large photos are waiting already. Try again later.") from error
            waited = time.monotonic() - began
            allowance = Allowance(estimate.memory_bytes, estimate.seconds)
            found = self.decoders.attempt(photo, wanted, allowance, deadline, step_aside=turn.give_up, is_long=True)
        if isinstance(found, Estimate):
            raise self.decoders.too_costly(found)
        return found, waited

"""`Computing`: decodes photos and has an engine, in this process or in the device process, compute them.

An engine on a CPU computes a photo in the slot in which it was decoded. One that is faster with many photos gets them
without a slot: from the device process, or in a process that has none from a `Batcher`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from ..errors import BrokenImage, TooCostly, TooManyPixels, UnsupportedImage
from ..model.engines import DeviceEngine, Engine, Inference, Pixels
from ..model.engines.device import Undecoded
from ..model.engines.frames import DeviceOutputs
from ..photos.decoders import Checked, Decoded
from ..photos.protocol import Wanted
from ..telemetry import metrics
from .lanes import Lanes
from .scheduling import Batcher, Deadline, Turn

MAX_BATCH = 32


@dataclass(frozen=True)
class Computed:
    """A photo and its inference, the size of its batch, and each stage's duration in seconds."""

    photo: Decoded | Checked
    inference: Inference
    batch_size: int
    decode_seconds: float
    queue_seconds: float
    infer_seconds: float


class Computing:
    """Decodes and computes the photos of one process."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._batcher = Batcher(_infer_batch, max_batch=MAX_BATCH)

    @contextmanager
    def decoded(self, data: bytes, wanted: Wanted, deadline: Deadline) -> Iterator[tuple[Decoded | Checked, Turn]]:
        """Decode a photo as `Lanes.decoded` does, and count failures."""
        try:
            with self._lanes.decoded(data, wanted, deadline) as found:
                yield found
        except (BrokenImage, TooCostly, TooManyPixels, UnsupportedImage) as problem:
            metrics.count_decode_failure(problem.slug)
            raise

    def compute(
        self, engine: Engine, data: bytes, wanted: Wanted, outputs: DeviceOutputs, deadline: Deadline
    ) -> Computed:
        """Decode a photo and compute it.

        A JPEG that the device does not decode after all is decoded here, and not sent there again. Raises what
        `decoded` and the engine raise.
        """
        arrived = time.monotonic()
        with self.decoded(data, wanted, deadline) as (photo, turn):
            decoded = time.monotonic()
            deadline.check()
            if not engine.batches:
                inference, batch_size = engine.infer(crop_of(photo)[None], alone=turn.is_exclusive), 1
        if isinstance(photo, Checked) and isinstance(engine, DeviceEngine):
            try:
                inference, batch_size = engine.infer_jpeg(data, photo.orientation, outputs, deadline)
            except Undecoded:
                return self.compute(engine, data, replace(wanted, may_leave=False), outputs, deadline)
        elif engine.batches:
            inference, batch_size = self._compute_in_batch(engine, crop_of(photo), outputs, deadline)
        return Computed(
            photo=photo,
            inference=inference,
            batch_size=batch_size,
            decode_seconds=decoded - arrived - turn.waited_seconds,
            queue_seconds=turn.waited_seconds,
            infer_seconds=time.monotonic() - decoded,
        )

    def close(self) -> None:
        """Compute the photos that wait, and end the batcher's thread."""
        self._batcher.close()

    def _compute_in_batch(
        self, engine: Engine, crop: Pixels, outputs: DeviceOutputs, deadline: Deadline
    ) -> tuple[Inference, int]:
        """Compute a crop together with others, of all workers or of this process; return the size of the batch."""
        if isinstance(engine, DeviceEngine):
            return engine.infer_one(crop, outputs, deadline)
        return self._batcher.submit((engine, crop), deadline).result()


def crop_of(photo: Decoded | Checked) -> Pixels:
    """Return the crop of a photo that was decoded, as `Wanted.may_leave` decides."""
    assert isinstance(photo, Decoded)
    return photo.crop


def _infer_batch(items: Sequence[tuple[Engine, Pixels]]) -> list[tuple[Inference, int]]:
    """Compute crops in one batch for each model: after a reload, crops of both models may wait."""
    results: list[tuple[Inference, int]] = []
    for engine, group in itertools.groupby(items, key=lambda item: item[0]):
        crops = np.stack([crop for _, crop in group])
        inference, size = engine.infer(crops), len(crops)
        results += [(Inference(inference.logits[i : i + 1], inference.features[i : i + 1]), size) for i in range(size)]
    return results

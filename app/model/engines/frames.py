"""The frames of a worker and the device process, and the layout of their block, over a `Channel`.

A worker opens as many channels as it has photos in flight at the device; each carries one photo at a time.

block: [ a crop, or a JPEG     | logits | embedding | features ]
       [ -                     | what LOAD has found, as JSON | the head's matrices ]
                               ^ input_bytes
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import Any

from ...processes.channel import Channel
from ..heads import Head, head_bytes, read_head
from ..records import as_json, from_json
from ..weights import Weights

REQUEST = struct.Struct("=BBIQdB")
REPLY = struct.Struct("=BHII")

# The output of LOAD: a head with a hidden layer has tens of MiB. The memory is taken only where it is written.
MAX_LOAD_BYTES = 256 * 1024 * 1024
MAX_DETAIL_BYTES = 4096
FLOAT_BYTES = 4


class Kind(IntEnum):
    """The kind of a worker's request."""

    LOAD = 1
    CROP = 2
    JPEG = 3


class DeviceOutputs(IntFlag):
    """The outputs that are wanted beside the logits."""

    LOGITS = 0
    EMBEDDING = 1
    FEATURES = 2


class Status(IntEnum):
    """How a request ended."""

    DONE = 0
    LATE = 1
    GONE = 2  # the model of the request is not loaded
    FAILED = 3
    REFUSED = 4  # LOAD found no weights that can serve
    UNDECODED = 5  # the JPEG is to be decoded elsewhere


@dataclass(frozen=True)
class Request:
    """One photo for a model, which `Facts.number` names; `size` bytes of input. `expires` is monotonic time.

    `orientation` is the EXIF orientation of a JPEG.
    """

    kind: int
    outputs: int = 0
    size: int = 0
    model: int = 0
    expires: float = math.inf
    orientation: int = 1

    def pack(self) -> bytes:
        """Write the frame."""
        return REQUEST.pack(*vars(self).values())

    @classmethod
    def unpack(cls, fields: tuple[Any, ...]) -> Request:
        """Read the frame."""
        return cls(*fields)


@dataclass(frozen=True)
class Reply:
    """How a request ended; `batch` is the number of photos that were computed together.

    `text_bytes` is the length of a sentence about a failure, or of what LOAD has found; `head_bytes` that of the head.
    """

    status: int
    batch: int = 0
    text_bytes: int = 0
    head_bytes: int = 0

    def pack(self) -> bytes:
        """Write the frame."""
        return REPLY.pack(*vars(self).values())

    @classmethod
    def unpack(cls, fields: tuple[Any, ...]) -> Reply:
        """Read the frame."""
        return cls(*fields)


@dataclass(frozen=True)
class Facts:
    """What a worker knows of the model that the device process has loaded: all but its weights.

    `number` names it in requests; the same weights in the same precision have the same one. `device` is the device's
    name, for the log. `max_jpeg_bytes` is the size of the largest JPEG that it decodes, 0 if it decodes none.
    """

    number: int
    weights: Weights
    precision: str
    classes: int
    channels: int
    grid: tuple[int, int]
    head: Head | None
    device: str
    max_jpeg_bytes: int = 0

    @property
    def side(self) -> int:
        """Return the side of a crop in pixels."""
        return self.weights.record.geometry.crop

    @property
    def crop_bytes(self) -> int:
        """Return the size of a crop."""
        return self.side * self.side * 3

    @property
    def input_bytes(self) -> int:
        """Return the size of the largest input."""
        return max(self.crop_bytes, self.max_jpeg_bytes)

    @property
    def output_bytes(self) -> int:
        """Return the size of all outputs of one photo, and enough for a sentence."""
        cells = self.grid[0] * self.grid[1]
        return max(MAX_DETAIL_BYTES, FLOAT_BYTES * (self.classes + self.channels * (1 + cells)))

    def pack(self) -> tuple[bytes, bytes]:
        """Write everything as JSON, and the head's matrices."""
        weights = vars(self.weights) | {"path": str(self.weights.path), "record": as_json(self.weights.record)}
        members = {name: value for name, value in vars(self).items() if name != "head"} | {"weights": weights}
        return json.dumps(members).encode(), head_bytes(self.head)

    @classmethod
    def unpack(cls, text: bytes, head: bytes) -> Facts:
        """Read what `pack` has written."""
        members = json.loads(text)
        weights = members.pop("weights")
        record = from_json(weights.pop("record"))
        found = Weights(**weights | {"path": Path(weights["path"]), "record": record})
        return cls(**members | {"grid": tuple(members["grid"])}, weights=found, head=read_head(head))


def refusal(channel: Channel, status: Status, detail: str) -> Reply:
    """Write a sentence into a channel's block, and return the reply that names it."""
    text = detail.encode()[:MAX_DETAIL_BYTES]
    channel.block[channel.input_bytes : channel.input_bytes + len(text)] = text
    return Reply(status, text_bytes=len(text))

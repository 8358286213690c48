"""The frames of a worker and a decoder, and the layout of their block, over a `Channel`.

The decoder sends one hello. Then the worker sends a request for each photo, and the decoder a reply.

block: [ the photo's bytes ... | crop | thumbnail, or the sentence of a problem ]
                               ^ input_bytes
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from ..errors import BrokenImage, Problem, TooCostly, TooManyPixels, UnsupportedImage
from .decoding import Geometry
from .formats import KEYS

# The measures of the sandbox, and the bytes that are mapped before the first photo: for data, and in all.
HELLO = struct.Struct("=BQQ")
REQUEST = struct.Struct("=IHHBH?QQdd")
REPLY = struct.Struct("=BBBIIHHHQQQdB")

MAX_CROP_SIDE = 640
MAX_THUMBNAIL_SIDE = 1024
MAX_DETAIL_BYTES = 1024
THUMBNAIL_START = MAX_CROP_SIDE * MAX_CROP_SIDE * 3
OUTPUT_BYTES = THUMBNAIL_START + max(MAX_THUMBNAIL_SIDE * MAX_THUMBNAIL_SIDE * 3, MAX_DETAIL_BYTES)

PROBLEMS: tuple[type[Problem], ...] = (UnsupportedImage, BrokenImage, TooManyPixels, TooCostly)
INTERPOLATIONS: tuple[Literal["bilinear", "bicubic"], ...] = ("bilinear", "bicubic")


class Status(IntEnum):
    """How a request ended."""

    DONE = 0
    NEEDS_MORE = 1
    PROBLEM = 2
    CHECKED = 3  # a JPEG that the device may decode


@dataclass(frozen=True)
class Wanted:
    """The wanted results: the model's crop, and an upright RGB thumbnail if `thumbnail_side` is not 0.

    `max_pixels` bounds width times height. A crop has at most 640 pixels a side, a thumbnail 1024. If `may_leave` is
    set, a JPEG that a device can decode is only checked.
    """

    geometry: Geometry
    max_pixels: int
    thumbnail_side: int = 0
    may_leave: bool = False


@dataclass(frozen=True)
class Allowance:
    """How much memory, beyond the file's own bytes, and processor time a photo may be expected to take."""

    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Request:
    """One photo: its size in bytes, the wanted results, the cost that its header may promise, and its time limit."""

    size: int
    wanted: Wanted
    allowance: Allowance
    max_seconds: float

    def pack(self) -> bytes:
        """Write the frame."""
        wanted, geometry = self.wanted, self.wanted.geometry
        return REQUEST.pack(
            self.size,
            geometry.resize,
            geometry.crop,
            INTERPOLATIONS.index(geometry.interpolation),
            wanted.thumbnail_side,
            wanted.may_leave,
            wanted.max_pixels,
            self.allowance.memory_bytes,
            self.allowance.seconds,
            self.max_seconds,
        )

    @classmethod
    def unpack(cls, fields: tuple[Any, ...]) -> Request:
        """Read the frame."""
        size, resize, crop, interpolation, side, may_leave, max_pixels, memory, seconds, max_seconds = fields
        geometry = Geometry(resize, crop, INTERPOLATIONS[interpolation])
        return cls(size, Wanted(geometry, max_pixels, side, may_leave), Allowance(memory, seconds), max_seconds)


@dataclass(frozen=True)
class Reply:
    """How a photo ended.

    `width` and `height` are the upright photo's, or the header's if more is needed. `memory_bytes` and `seconds`
    are the estimate from the header; `resident_bytes` is the decoder's memory now, and `data_bytes` the
    memory that it has mapped for its own data. `detail_bytes` is the length of a problem's sentence. `orientation` is
    the EXIF orientation of a JPEG that was only checked.
    """

    status: int
    kind: int = 0
    problem: int = 0
    width: int = 0
    height: int = 0
    thumbnail_width: int = 0
    thumbnail_height: int = 0
    detail_bytes: int = 0
    resident_bytes: int = 0
    data_bytes: int = 0
    memory_bytes: int = 0
    seconds: float = 0.0
    orientation: int = 0

    def pack(self) -> bytes:
        """Write the frame."""
        return REPLY.pack(*vars(self).values())

    @classmethod
    def unpack(cls, fields: tuple[Any, ...]) -> Reply:
        """Read the frame; raises ValueError for values that no decoder of ours sends."""
        reply = cls(*fields)
        if (
            reply.status > Status.CHECKED
            or reply.kind >= len(KEYS)
            or reply.problem >= len(PROBLEMS)
            or max(reply.thumbnail_width, reply.thumbnail_height) > MAX_THUMBNAIL_SIDE
            or reply.detail_bytes > MAX_DETAIL_BYTES
            or (reply.status in (Status.DONE, Status.CHECKED) and min(reply.width, reply.height) < 1)
            or not (reply.status == Status.CHECKED) <= reply.orientation <= 8
            or not 0 <= reply.seconds < math.inf
        ):
            raise ValueError("The decoder's answer makes no sense.")
        return reply

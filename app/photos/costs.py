"""How much time and memory decoding and cropping a photo takes, estimated from its header.

The constants were measured with `scripts/measure_decoding.py` (Pillow 13.0, libjpeg-turbo 3.2, libwebp 1.6, libavif
1.4.2 with dav1d, libtiff 4.7.2, libheif 1.23 with libde265) on one virtual processor: photos of 12 megapixels with
a camera's noise, and flat pictures of 64 megapixels, each decoded and cropped in a process of its own. Seconds are
processor time. Bytes are the growth of the largest resident size, which the address space exceeds by at most 10%.
"""

from __future__ import annotations

from dataclasses import dataclass

# The memory and time of the smallest photo: tables of decoders, Pillow's partly used blocks of 16 MiB, one tile of the
# crop as it is converted.
BASE_BYTES = 12 << 20
BASE_SECONDS = 0.0007


@dataclass(frozen=True)
class Estimate:
    """A photo's format, stored size in pixels, and the expected cost of decoding and cropping it.

    `width` and `height` are those of the header, or of the frame itself if that is larger. `memory_bytes` comes on
    top of the file's own bytes and is an upper estimate, `seconds` of processor time is a fair one.
    """

    kind: str
    width: int
    height: int
    memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """The cost of each pixel, and of each byte of the file, with the crop's share."""

    pixel_ns: float
    pixel_bytes: float
    file_byte_ns: float = 0.0
    file_bytes: float = 0.0  # copies of the file's bytes


# Of each format and mode: nanoseconds a pixel, bytes a pixel, nanoseconds a byte of the file, copies of the file.
COSTS: dict[str, Cost] = {
    # Rows are inflated and unfiltered into Pillow's own pixels: 8 bits of grey or palette, else 4 bytes a pixel; and
    # the file once more, without its metadata.
    "PNG 1": Cost(5.0, 1.5, 8.0, 1.0),
    "PNG 2": Cost(9.0, 2.0, 8.0, 1.0),
    "PNG I;16": Cost(13.0, 3.8, 8.0, 1.0),
    "PNG 3": Cost(13.0, 4.9, 8.0, 1.0),
    "PNG 4": Cost(18.0, 4.9, 8.0, 1.0),
    "PNG 6": Cost(22.0, 4.9, 8.0, 1.0),
    "PNG 8": Cost(27.0, 4.9, 8.0, 1.0),
    # libwebp's canvas and the canvas before it, Pillow's copy as bytes, and its pixels: 4 bytes a pixel each.
    "WEBP": Cost(18.0, 17.0, 12.0, 1.2),
    "WEBP alpha": Cost(22.0, 17.0, 12.0, 1.2),
    "GIF": Cost(7.0, 1.5, 5.0),
    "BMP 1": Cost(4.0, 1.5),
    "BMP 3": Cost(8.0, 4.4),
    # Colours in other bits than usual, or transparency, and one block of pixels as it is converted.
    "BMP masks": Cost(60.0, 5.0),
    # Runs are decoded in Python: 0.5 us for each, of two bytes.
    "BMP RLE": Cost(5.0, 3.3, 250.0),
    # The frame's planes twice, RGB, Pillow's copy as bytes, and its pixels.
    "AV1": Cost(22.0, 10.8, 60.0, 1.0),
    "AV1 4:4:4": Cost(23.0, 12.2, 60.0, 1.0),
    "AV1 alpha": Cost(6.0, 2.5),
    # More than 8 bits: planes and their copies hold 2 bytes a sample.
    "AV1 deep": Cost(10.0, 6.0),
    "HEVC": Cost(20.0, 8.2, 100.0, 1.2),
    "HEVC 4:4:4": Cost(26.0, 10.4, 100.0, 1.2),
    "HEVC alpha": Cost(15.0, 2.5),
    "HEVC deep": Cost(10.0, 6.0),
    # The additional cost of a grid, an overlay or an identity. libheif frees a tile once it is in
    # its place: a grid of 22 megapixels took 7.3 bytes a pixel in all.
    "composed": Cost(6.0, 2.0),
}


def estimate(kind: str, size: tuple[int, int], costs: list[tuple[Cost, int]], file_bytes: int = 0) -> Estimate:
    """Add up costs, each with its number of pixels; the file's bytes count once, at the rate of the first cost."""
    seconds = BASE_SECONDS + sum(cost.pixel_ns * pixels for cost, pixels in costs) * 1e-9
    memory = BASE_BYTES + sum(cost.pixel_bytes * pixels for cost, pixels in costs)
    seconds += costs[0][0].file_byte_ns * file_bytes * 1e-9
    memory += costs[0][0].file_bytes * file_bytes
    return Estimate(kind, *size, int(memory), seconds)

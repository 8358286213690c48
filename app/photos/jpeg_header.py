"""The cost of a JPEG, which is that of its scans: a progressive one may pass over all of its blocks hundreds of times.

A JPEG of one scan is decoded row by row, and at 1/2, 1/4 or 1/8 of its size if it is large. One of several scans is
decoded at full size first, into 2 bytes per coefficient, even if the result is small.
"""

from __future__ import annotations

import bisect
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .costs import BASE_BYTES, BASE_SECONDS, Estimate
from .refusals import check_size, damaged, ends_in_filling, too_costly, unsupported_kind

# A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, but not below 2.5 times what the resize needs: at twice,
# sharp photos differed from torchvision's crop by up to 11 levels and 0.6 on average, from here on by 4 and 0.3.
_DECODED_PER_RESIZED = 2.5
DEFAULT_RESIZE = 256

# More processor time than any photo may take, however high a caller's own limit is.
MAX_SECONDS = 30.0
_MAX_SEGMENTS = 1000
_MAX_FRAMES = 8
_MAX_SKIPPED_BYTES = 65_536
_MARKER = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_MAX_MARKS = 8192
_END = re.compile(rb"\xff\xd9")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_MAX_FILLING = 256  # at the end of a file without an end marker; coded data that is no single colour has no such run
_BLOCK_BYTES = 1 << 16
_ONE = np.uint8(1)  # 0xFF + 1 is 0: above 1 is every code that is neither 0x00 nor 0xFF
_Codes = npt.NDArray[np.uint8]

_JPEG_LS = 0xF7
_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, _JPEG_LS}
_HIERARCHICAL = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xCA}
_COEFFICIENTS = 64  # of a block
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_LOSSLESS = {0xC3, 0xC7, 0xCB, 0xCF}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8), 0xD8}

# Measured as costs.py says. Real photos: a sample is one pixel of one component, as it is stored; the bytes are
# those of the Huffman code. Blocks are of 8x8 samples: for each scan that passes over one, by flat pictures of
# 64 megapixels with 200 scans of one kind. Arithmetic coding decodes 63 decisions a block even from no data at all.
_SAMPLE_NS = 0.9
_BYTE_NS = 7.0
_PROGRESSIVE_BYTE_NS = 25.0
_BLOCK_NS = 16.0
_REFINED_BLOCK_NS = 40.0
_ARITHMETIC_BLOCK_NS = 450.0
_LOSSLESS_SAMPLE_NS = 25.0
_SKIPPED_BYTE_NS = 150.0  # between segments, where Pillow reads byte by byte
_CONVERTED_PIXEL_NS = 30.0  # of the decoded, smaller size: CMYK becomes RGB tile by tile


@dataclass(frozen=True)
class _Frame:
    marker: int
    width: int
    height: int
    blocks: dict[int, int]  # of 8x8 samples, of each component


def min_decoded_side(resize: int) -> int:
    """Return how short a JPEG's shorter side may be decoded for a photo that is then resized to `resize`."""
    return int(resize * _DECODED_PER_RESIZED)


def examine_jpeg(data: bytes | memoryview, max_pixels: int, resize: int = DEFAULT_RESIZE) -> Estimate:
    """Estimate a JPEG's cost from its first frame and all scans of it; `resize` is the model's, in pixels."""
    frame, first_scan, skipped = _header(data)
    check_size(frame.width, frame.height, max_pixels)
    if ends_in_filling(data, len(data), _MAX_FILLING) and not _END.search(data, first_scan):
        raise damaged("JPEG")
    one_scan = _has_one_scan(data, first_scan, frame)
    seconds, memory = _output_cost(frame, min_decoded_side(resize))
    seconds += skipped * _SKIPPED_BYTE_NS * 1e-9
    size = len(data) - first_scan
    if one_scan:
        seconds += size * _BYTE_NS * 1e-9
        if frame.marker in _ARITHMETIC:
            seconds += sum(frame.blocks.values()) * _ARITHMETIC_BLOCK_NS * 1e-9
    else:
        seconds += _scans_ns(data, first_scan, frame) * 1e-9
        memory += sum(frame.blocks.values()) * 64 * 2
    if seconds > MAX_SECONDS:
        raise too_costly("JPEG", f"its scans take {seconds:.0f} s")
    return Estimate("JPEG", frame.width, frame.height, int(memory), seconds)


def segments(data: bytes | memoryview) -> Iterator[tuple[int, int, int]]:
    """Yield the marker of each segment, where it starts and where it ends.

    The last is the first scan or the end of the file, without its length. Like Pillow, this skips up to 64 KiB between
    segments. Raises TooCostly for more segments than any photo has.
    """
    place, skipped = 2, 0
    for _ in range(_MAX_SEGMENTS):
        following = _MARKER.search(data, place, place + 2 + _MAX_SKIPPED_BYTES - skipped)
        if following is None:
            return
        start = following.start()
        skipped += start - place
        marker = data[start + 1]
        if marker in (0xDA, 0xD9):
            yield marker, start, start
            return
        length = 0 if marker in _WITHOUT_LENGTH else max(2, int.from_bytes(data[start + 2 : start + 4], "big"))
        place = start + 2 + length
        yield marker, start, place
    raise too_costly("JPEG", f"it has more than {_MAX_SEGMENTS:,} segments")


def _header(data: bytes | memoryview) -> tuple[_Frame, int, int]:
    """Find the frame, the largest of several, the first scan's marker, and how much between segments is skipped."""
    frames: list[_Frame] = []
    place, skipped = 2, 0
    for marker, start, end in segments(data):
        skipped += start - place
        place = end
        if marker == 0xDA and frames:
            return max(frames, key=lambda frame: frame.width * frame.height), start, skipped
        if len(frames) > _MAX_FRAMES:
            break
        if marker in _START_OF_FRAME:
            frames.append(_frame(data, start))
    raise damaged("JPEG")


def _frame(data: bytes | memoryview, place: int) -> _Frame:
    _, _, _, precision, height, width, count = struct.unpack_from(">BBHBHHB", data, place)
    listed = bytes(data[place + 10 : place + 10 + 3 * count])
    if not width or not height or not listed or len(listed) % 3:
        raise damaged("JPEG")
    marker = data[place + 1]
    if marker == _JPEG_LS or marker in _HIERARCHICAL:
        raise unsupported_kind("JPEG", "JPEG-LS" if marker == _JPEG_LS else "several sizes in one picture")
    if precision != 8 or count not in (1, 3, 4):
        raise unsupported_kind("JPEG", f"{precision} bits a sample" if precision != 8 else f"{count} colours")
    factors = [(min(4, max(1, both >> 4)), min(4, max(1, both & 15))) for both in listed[1::3]]
    across, down = max(factor[0] for factor in factors), max(factor[1] for factor in factors)
    counts = [-(-width * x // (across * 8)) * -(-height * y // (down * 8)) for x, y in factors]
    return _Frame(data[place + 1], width, height, dict(zip(listed[::3], counts, strict=True)))


def _output_cost(frame: _Frame, min_side: int) -> tuple[float, float]:
    """Estimate the seconds and bytes that do not depend on scans: transform, colours, the smaller picture, crop."""
    samples = 64 * sum(frame.blocks.values())
    scale = min(8, max(1, min(frame.width, frame.height) // min_side))
    scale = 1 if frame.marker in _LOSSLESS else 1 << (scale.bit_length() - 1)
    decoded = math.ceil(frame.width / scale) * math.ceil(frame.height / scale)
    components = len(frame.blocks)
    seconds = BASE_SECONDS + samples * _SAMPLE_NS * 1e-9 + decoded * 4e-9
    if components > 3:
        seconds += decoded * _CONVERTED_PIXEL_NS * 1e-9
    if frame.marker in _LOSSLESS:
        seconds += samples * _LOSSLESS_SAMPLE_NS * 1e-9
    # Beside the picture the decoder keeps some rows at full width.
    memory = BASE_BYTES + decoded * (1.2 if components == 1 else 4.5) + frame.width * components * 128
    return seconds, memory


def _scans_ns(data: bytes | memoryview, first_scan: int, frame: _Frame) -> float:
    """Add up the time of the scans, in nanoseconds."""
    starts = _scan_starts(data, first_scan)
    total = (len(data) - first_scan) * _PROGRESSIVE_BYTE_NS
    for start in starts:
        count = min(data[start + 4], 4)
        end = start + 5 + 2 * count
        components = bytes(data[start + 5 : end : 2])
        refines_ac = end + 2 < len(data) and data[end] > 0 and data[end + 2] >> 4 > 0
        block_ns = _REFINED_BLOCK_NS if refines_ac else _BLOCK_NS
        if frame.marker in _ARITHMETIC:
            block_ns = _ARITHMETIC_BLOCK_NS
        total += block_ns * sum(frame.blocks.get(component, 0) for component in components)
    return total


def end_of_scans(data: bytes) -> int:
    """Return where the coded data ends: at the end marker, or in a file of one scan at any marker but a restart."""
    frame, first_scan, _ = _header(data)
    start = first_scan + 2 + int.from_bytes(data[first_scan + 2 : first_scan + 4], "big")
    end = (_END_OF_SCAN if _has_one_scan(data, first_scan, frame) else _END).search(data, start)
    return len(data) if end is None else end.start()


def _has_one_scan(data: bytes | memoryview, first_scan: int, frame: _Frame) -> bool:
    return frame.marker not in _PROGRESSIVE and data[first_scan + 4] >= len(frame.blocks)


def has_all_scans(data: bytes) -> bool:
    """Return whether the scans of a JPEG hold all bits of all coefficients of all components."""
    frame, first_scan, _ = _header(data)
    if _has_one_scan(data, first_scan, frame):
        return True
    missing = {(component, place) for component in frame.blocks for place in range(_COEFFICIENTS)}
    for start in _scan_starts(data, first_scan):
        end = start + 5 + 2 * data[start + 4]
        first, last, low_bit = 0, _COEFFICIENTS - 1, 0
        if frame.marker in _PROGRESSIVE:
            first, last, low_bit = data[end], data[end + 1], data[end + 2] & 15
        found = {(component, place) for component in data[start + 5 : end : 2] for place in range(first, last + 1)}
        missing = missing | found if low_bit else missing - found
    return not missing


def _scan_starts(data: bytes | memoryview, first_scan: int) -> list[int]:
    """Find the markers of the first image's scans; coded data holds no such pair of bytes."""
    coded = data[first_scan:]
    marks = _marker_places(coded, lambda code: (code == 0xDA) | (code == 0xD9))
    if len(marks) > _MAX_MARKS:
        raise too_costly("JPEG", f"it has more than {_MAX_MARKS:,} scans or ends")
    scans = [place for place in marks if coded[place + 1] == 0xDA]
    end = next((place for place in marks if coded[place + 1] == 0xD9), len(coded))
    before = bisect.bisect(scans, end)
    if before < len(scans) and _ends_the_image(coded, scans[before - 1], end):
        scans = scans[:before]
    return [first_scan + place for place in scans]


def _ends_the_image(coded: bytes | memoryview, scan: int, end: int) -> bool:
    """Return whether an end marker is one: whether no segment, which may hold any bytes, begins after the scan."""
    header = 2 + int.from_bytes(coded[scan + 2 : scan + 4], "big")
    between = coded[scan + header : end]
    return not _marker_places(between, lambda code: (code + _ONE > 1) & (code & 0xF8 != 0xD0), max_marks=0)


def _marker_places(
    data: bytes | memoryview, wanted: Callable[[_Codes], npt.NDArray[np.bool_]], max_marks: int = _MAX_MARKS
) -> list[int]:
    """Find 0xFF before a wanted code, by blocks that a processor's cache holds; stop after more than `max_marks`."""
    codes = np.frombuffer(data, np.uint8)
    found: list[int] = []
    for start in range(0, len(codes), _BLOCK_BYTES):
        block = codes[start : start + _BLOCK_BYTES + 1]
        marks = block[:-1] == 0xFF
        if np.count_nonzero(marks) * 16 > marks.size:  # more than any photo has; listing them would take longer
            places = np.flatnonzero(marks & wanted(block[1:]))
        else:
            places = np.flatnonzero(marks)
            places = places[wanted(block[places + 1])]
        found += (start + places).tolist()
        if len(found) > max_marks:
            break
    return found

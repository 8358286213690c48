"""The cost of GIF and WebP, from the few fields of their headers that decide it."""

from __future__ import annotations

from .costs import COSTS, Estimate, estimate
from .refusals import check_size, damaged, too_costly

_MAX_CHUNKS = 1000  # before the pixels; no encoder writes a hundred
_MAX_BLOCKS = 20_000  # of GIF, 255 bytes each: 5 MB before the first frame


def examine_gif(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a GIF's cost from its screen and its first frame, which may enlarge the screen."""
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    frame = _first_gif_frame(data)
    right = _little(data, frame, 2) + _little(data, frame + 4, 2)
    bottom = _little(data, frame + 2, 2) + _little(data, frame + 6, 2)
    width, height = max(width, right), max(height, bottom)
    if not width or not height:
        raise damaged("GIF")
    check_size(width, height, max_pixels)
    return estimate("GIF", (width, height), [(COSTS["GIF"], width * height)], len(data))


def _first_gif_frame(data: bytes | memoryview) -> int:
    """Find the first frame's place and size, behind the screen's palette and any extensions (GIF89a, section 20)."""
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 128 else 0)
    in_extension = False
    for _ in range(_MAX_BLOCKS):
        first = data[place]
        if in_extension:
            in_extension = first != 0
            place += 1 + first
        elif first == 0x2C:
            return place + 1
        elif first == 0x3B:
            raise damaged("GIF")
        else:  # an extension's label is followed by its blocks; Pillow skips a byte that begins nothing
            in_extension = first == 0x21
            place += 2 if in_extension else 1
    raise too_costly("GIF", f"its first frame comes after more than {_MAX_BLOCKS:,} blocks")


def examine_webp(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a WebP's cost from its canvas and its first frame, the larger of both."""
    sizes: list[tuple[int, int]] = []
    alpha, start = False, 12
    for _ in range(_MAX_CHUNKS):
        kind, content = bytes(data[start : start + 4]), start + 8
        if kind == b"ANMF":  # a frame's own header, and the chunks of its pixels
            sizes.append((1 + _little(data, content + 6, 3), 1 + _little(data, content + 9, 3)))
            start = content + 16
            continue
        if kind == b"VP8X":
            alpha = bool(data[content] & 0x10)
            sizes.append((1 + _little(data, content + 4, 3), 1 + _little(data, content + 7, 3)))
        elif kind == b"VP8L":
            bits = _little(data, content + 1, 4)
            sizes.append((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
            alpha = alpha or bool(bits >> 28 & 1)
            break
        elif kind == b"VP8 ":
            sizes.append((_little(data, content + 6, 2) & 0x3FFF, _little(data, content + 8, 2) & 0x3FFF))
            break
        size = _little(data, start + 4, 4)
        start = content + size + (size & 1)
        if start >= len(data):
            break
    else:
        raise too_costly("WebP", f"it has more than {_MAX_CHUNKS:,} chunks before its pixels")
    if not sizes:
        raise damaged("WebP")
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    check_size(width, height, max_pixels)
    cost = COSTS["WEBP alpha" if alpha else "WEBP"]
    return estimate("WEBP", (width, height), [(cost, width * height)], len(data))


def _little(data: bytes | memoryview, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")

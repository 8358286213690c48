"""The cost of PNG, GIF, BMP and WebP, from the few fields of their headers that decide it."""

from __future__ import annotations

from collections.abc import Iterator

from .costs import COSTS, Cost, Estimate, estimate
from .refusals import check_size, damaged, too_costly

_MAX_CHUNKS = 1000  # before the pixels; no encoder writes a hundred
_MAX_BLOCKS = 20_000  # of GIF, 255 bytes each: 5 MB before the first frame

# Pillow handles each chunk of a PNG in Python, and unpacks at most 1 MiB of each text, 64 MiB of all together.
_CHUNK_SECONDS = 2e-6
_TEXT_BYTES, _ALL_TEXT_BYTES = 2 << 20, 64 << 20


def examine_png(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a PNG's cost from its IHDR, the largest if it has several, and the chunks before its pixels."""
    width = height = depth = colour = texts = chunks = 0
    for kind, start in _chunks(data):
        chunks += 1
        if kind == b"IDAT":
            break
        if kind == b"IHDR":
            width, height = max(width, _big(data, start, 4)), max(height, _big(data, start + 4, 4))
            depth, colour = max(depth, data[start + 8]), data[start + 9]
        texts += kind in (b"iTXt", b"zTXt", b"iCCP")
        if chunks > _MAX_CHUNKS:
            raise too_costly("PNG", f"it has more than {_MAX_CHUNKS:,} chunks before its pixels")
    if not width or not height:
        raise damaged("PNG")
    check_size(width, height, max_pixels)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 4)
    mode = "I;16" if (colour, depth) == (0, 16) else str(-(-samples * depth // 8))
    known = COSTS.get(f"PNG {mode}", COSTS["PNG 8"])
    if colour == 4:  # Pillow keeps grey with alpha in 4 bytes
        known = Cost(COSTS["PNG 4"].pixel_ns, COSTS["PNG 4"].pixel_bytes, known.file_byte_ns)
    texts_bytes = min(texts * _TEXT_BYTES, _ALL_TEXT_BYTES)
    found = estimate("PNG", (width, height), [(known, width * height)], len(data))
    return Estimate(
        "PNG", width, height, found.memory_bytes + texts_bytes, found.seconds + chunks * _CHUNK_SECONDS + texts * 0.002
    )


def _chunks(data: bytes | memoryview) -> Iterator[tuple[bytes, int]]:
    """Yield the type of each chunk and where its content starts (PNG, section 5.3)."""
    start = 8
    while start + 8 <= len(data):
        size = _big(data, start, 4)
        yield bytes(data[start + 4 : start + 8]), start + 8
        start += 12 + size


def examine_gif(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a GIF's cost from its screen and its first frame, which makes the screen larger where it is larger."""
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


def examine_bmp(data: bytes | memoryview, max_pixels: int) -> Estimate:
    """Estimate a BMP's cost from its header; one of runs takes what the worst runs of its pixels and bytes take."""
    if data[14] == 12:
        width, height, bits, compression = _little(data, 18, 2), _little(data, 20, 2), _little(data, 24, 2), 0
    else:
        width, height = _little(data, 18, 4), _little(data, 22, 4)
        bits, compression = _little(data, 28, 2), _little(data, 30, 4)
        if data[25] == 0xFF:
            height = 2**32 - height
    if not width or not height:
        raise damaged("BMP")
    check_size(width, height, max_pixels)
    if compression in (1, 2):
        return estimate("BMP", (width, height), [(COSTS["BMP RLE"], width * height)], len(data))
    mode = 1 if bits <= 8 else 4 if bits == 32 else 3
    return estimate("BMP", (width, height), [(COSTS[f"BMP {mode}"], width * height)])


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


def _big(data: bytes | memoryview, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "big")


def _little(data: bytes | memoryview, start: int, size: int) -> int:
    return int.from_bytes(data[start : start + size], "little")

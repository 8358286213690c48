"""Mutations that know how image files are built, so that damage gets past the first check and into the decoders.

A file is taken apart into its chunks, segments, boxes or directory entries, one of them is changed, and it is put
together again with lengths and checksums that fit.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

Mutate = Callable[[bytes], bytes]
Pieces = list[tuple[bytes, bytes]]

# Sizes and counts at which sums overflow, signs turn, and tables end.
INTERESTING = (0, 1, 2, 3, 4, 7, 8, 16, 32, 255, 256, 2000, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(data: bytes, chance: random.Random, raw: Mutate) -> bytes:
    """Change a file by its structure if it has a known one, else, and sometimes anyway, by its bytes.

    `raw` is a mutation without knowledge of formats, such as libFuzzer's; it changes single pieces, too.
    """
    if chance.random() < 0.15:
        return raw(data)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 4))):
        kind = next((kind for kind in KINDS if data.startswith(kind[0], kind[1])), None)
        data = scramble(data, chance) if kind is None or chance.random() < 0.1 else kind[2](data, chance, raw)
    return data


def scramble(data: bytes, chance: random.Random) -> bytes:
    """Write a number that often breaks programs, half of the time near the start; or cut, double or drop bytes."""
    if not data:
        return b"\0"
    out = bytearray(data)
    reach = len(out) if chance.random() < 0.5 else min(len(out), 200)
    place = chance.randrange(reach)
    action = chance.choice((0, 0, 0, 1, 1, 1, 1, 3, 4, 5))
    if action == 0:
        out[place] ^= 1 << chance.randrange(8)
    elif action == 1:
        size = chance.choice((1, 2, 4))
        value = chance.choice(INTERESTING) & (256**size - 1)
        out[place : place + size] = value.to_bytes(size, chance.choice(("big", "little")))
    elif action == 3:
        del out[place : place + chance.randrange(1, 40)]
    elif action == 4:
        out[place:place] = out[place : place + chance.randrange(1, 40)]
    else:
        del out[place:]
    return bytes(out)


def shuffle(pieces: Pieces, chance: random.Random, raw: Mutate) -> Pieces:
    """Change the content or the name of one piece, or leave out, double, swap or empty one."""
    if not pieces:
        return pieces
    pieces = list(pieces)
    place = chance.randrange(len(pieces))
    name, body = pieces[place]
    action = chance.randrange(10)
    if action < 5:
        change = raw if chance.random() < 0.4 else lambda old: scramble(old, chance)
        pieces[place] = name, change(body)
    elif action == 5:
        del pieces[place]
    elif action == 6:
        pieces.insert(chance.randrange(len(pieces) + 1), (name, body))
    elif action == 7:
        other = chance.randrange(len(pieces))
        pieces[place], pieces[other] = pieces[other], pieces[place]
    elif action == 8:
        pieces[place] = chance.choice(pieces)[0], body
    else:
        pieces[place] = name, body[: chance.randrange(len(body) + 1)]
    return pieces


def png(data: bytes, chance: random.Random, raw: Mutate) -> bytes:
    """Change a chunk of a PNG, sometimes the deflated content, and repair lengths and checksums."""
    pieces, start = [], 8
    while start + 8 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        pieces.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + size]))
        start += 12 + size
    if chance.random() < 0.3:
        pieces = [(name, _inside_deflate(body, chance) if name == b"IDAT" else body) for name, body in pieces]
    else:
        pieces = shuffle(pieces, chance, raw)
    chunks = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in pieces)
    return data[:8] + b"".join(chunks)


def _inside_deflate(body: bytes, chance: random.Random) -> bytes:
    try:
        plain = zlib.decompressobj().decompress(body, 1 << 20)
    except zlib.error:
        return scramble(body, chance)
    return zlib.compress(scramble(plain, chance), 1)


def jpeg(data: bytes, chance: random.Random, raw: Mutate) -> bytes:
    """Change a segment of a JPEG, or its entropy-coded data, and repair the lengths."""
    pieces, start = [], 2
    while start + 4 <= len(data) and data[start] == 0xFF and data[start + 1] not in (0xD9, 0xDA):
        size = int.from_bytes(data[start + 2 : start + 4], "big")
        pieces.append((data[start : start + 2], data[start + 4 : start + 2 + size]))
        start += 2 + max(size, 2)
    scan = data[start:]
    if chance.random() < 0.3:
        scan = scramble(scan, chance)
    else:
        pieces = shuffle(pieces, chance, raw)
    return data[:2] + b"".join(n + struct.pack(">H", min(len(b) + 2, 65535)) + b for n, b in pieces) + scan


def riff(data: bytes, chance: random.Random, raw: Mutate) -> bytes:
    """Change a chunk of a WebP and repair the lengths."""
    pieces, start = [], 12
    while start + 8 <= len(data):
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        pieces.append((data[start : start + 4], data[start + 8 : start + 8 + size]))
        start += 8 + size + size % 2
    pieces = shuffle(pieces, chance, raw)
    body = b"".join(n + struct.pack("<I", len(b)) + b + bytes(len(b) % 2) for n, b in pieces)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + data[8:12] + body


def tiff(data: bytes, chance: random.Random, raw: Mutate) -> bytes:
    """Change entries of the first directory of a TIFF in place: tag, type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    start = struct.unpack_from(order + "I", data, 4)[0] if len(data) >= 8 else len(data)
    if start + 14 > len(data) or chance.random() < 0.2:
        return scramble(data, chance)
    entries = min(struct.unpack_from(order + "H", data, start)[0], (len(data) - start - 2) // 12)
    if entries < 1:
        return scramble(data, chance)
    out = bytearray(data)
    entry = start + 2 + 12 * chance.randrange(entries)
    action = chance.randrange(4)
    if action == 0:
        tag = chance.choice((256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339))
        struct.pack_into(order + "H", out, entry, tag)
    elif action == 1:
        struct.pack_into(order + "H", out, entry + 2, chance.randrange(14))
    else:
        place, value = entry + (4 if action == 2 else 8), chance.choice(INTERESTING)
        struct.pack_into(order + "I", out, place, value)
    return bytes(out)


CONTAINERS = {
    b"meta": 4,
    b"iprp": 0,
    b"ipco": 0,
    b"iinf": 6,
    b"iref": 4,
    b"dinf": 0,
    b"moov": 0,
    b"trak": 0,
    b"mdia": 0,
}


def boxes(data: bytes, chance: random.Random, raw: Mutate, depth: int = 0) -> bytes:
    """Change a box of an AVIF or HEIC, however deep, and repair the lengths around it."""
    pieces, start = [], 0
    while start + 8 <= len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        end = start + size if size >= 8 else len(data)
        pieces.append((data[start + 4 : start + 8], data[start + 8 : end]))
        start = end
    inner = [place for place, (name, _) in enumerate(pieces) if name in CONTAINERS]
    if inner and depth < 5 and chance.random() < 0.8:
        place = chance.choice(inner)
        name, body = pieces[place]
        skip = CONTAINERS[name]
        pieces[place] = name, body[:skip] + boxes(body[skip:], chance, raw, depth + 1)
    else:
        pieces = shuffle(pieces, chance, raw)
    return b"".join(struct.pack(">I", len(b) + 8) + n + b for n, b in pieces)


def plain(data: bytes, chance: random.Random, raw: Mutate) -> bytes:
    """Change the header of a GIF or BMP, which has no lengths to repair, or the data behind it."""
    head = chance.choice((16, 60, 200))
    return scramble(data[:head], chance) + data[head:] if chance.random() < 0.5 else scramble(data, chance)


KINDS: tuple[tuple[bytes, int, Callable[[bytes, random.Random, Mutate], bytes]], ...] = (
    (b"\x89PNG", 0, png),
    (b"\xff\xd8\xff", 0, jpeg),
    (b"RIFF", 0, riff),
    (b"II", 0, tiff),
    (b"MM", 0, tiff),
    (b"ftyp", 4, boxes),
    (b"GIF8", 0, plain),
    (b"BM", 0, plain),
)

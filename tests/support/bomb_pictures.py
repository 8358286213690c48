"""Small files that would cost a decoder much, written by hand: each by the fields that make it so."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

from fakes import encode
from PIL import Image

DRAWN_HEIC = Path(__file__).parent.parent / "data" / "drawn.heic"


def progressive(size: tuple[int, int] = (640, 480)) -> bytes:
    """Write a flat progressive JPEG, as small as its scans can be."""
    return encode(Image.new("RGB", size, (90, 120, 200)), "JPEG", progressive=True)


def last_scan(jpeg: bytes) -> int:
    """Find the last scan, which refines: no bytes of code, but a visit of each block."""
    return jpeg.rindex(b"\xff\xda")


def with_scans(jpeg: bytes, times: int, before: bytes = b"") -> bytes:
    """Repeat a JPEG's last scan, behind any segment."""
    start = last_scan(jpeg)
    return jpeg[:start] + before + jpeg[start:-2] * times + b"\xff\xd9"


def with_frame_size(jpeg: bytes, width: int, height: int) -> bytes:
    """Say another size in a JPEG's frame header."""
    frame = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2"))
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


def tiff(tags: Sequence[tuple[int, int, int, int]], following: bytes = b"", order: str = "<") -> bytes:
    """Write a TIFF of one directory: (tag, type, count, value or offset) each, and what follows it."""
    entries = b"".join(_entry(order, *tag) for tag in tags)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HIH", 42, 8, len(tags)) + entries + bytes(4) + following


def _entry(order: str, tag: int, kind: int, count: int, value: int) -> bytes:
    letter = {1: "B3x", 3: "H2x"}.get(kind, "I") if count == 1 else "I"
    return struct.pack(f"{order}HHI{letter}", tag, kind, count, value)


def tiff_of(width: int, height: int, *more: tuple[int, int, int, int]) -> bytes:
    """Write a grey TIFF that says this size, with more tags and no pixels."""
    first = ((256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (277, 3, 1, 1))
    return tiff(sorted([*first, *more]))


def big_tiff_of(tags: Sequence[tuple[int, int, int, int]]) -> bytes:
    """Write a BigTIFF, whose numbers may have 64 bits."""
    entries = b"".join(struct.pack("<HHQQ", *tag) for tag in tags)
    return b"II+\x00" + struct.pack("<HHQQ", 8, 0, 16, len(tags)) + entries + bytes(8)


def bmp_runs(width: int, height: int, runs: bytes = b"") -> bytes:
    """Write a BMP of 8 bits whose pixels are runs."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], extensions: bytes = b"") -> bytes:
    """Write a GIF without pixels: the screen's size, extensions, and a frame's left, top, width and height."""
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0) + extensions + b"," + struct.pack("<HHHHB", *frame, 0)


def box(kind: bytes, *content: bytes) -> bytes:
    """Write one box of ISO/IEC 14496-12."""
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def full_box(kind: bytes, *content: bytes, version: int = 0) -> bytes:
    """Write a box with a version and flags."""
    return box(kind, bytes([version, 0, 0, 0]), *content)


def ispe(width: int, height: int) -> bytes:
    """Write the property that says a picture's size."""
    return full_box(b"ispe", struct.pack(">II", width, height))


ALPHA = full_box(b"auxC", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\x00")


class HeifFile:
    """A HEIC or an AVIF under construction: items with their content, properties and references."""

    def __init__(self, brand: bytes = b"heic") -> None:
        self.brand = brand
        self.items: list[tuple[bytes, bytes, list[bytes]]] = []
        self.references: list[tuple[bytes, int, list[int]]] = []
        self.repeated: dict[int, int] = {}  # of an item: how many times its content is listed

    def add(self, kind: bytes, content: bytes = b"", *properties: bytes, made_of: Sequence[int] = ()) -> int:
        """Add an item and return its number; the last one is the photo."""
        self.items.append((kind, content, list(properties)))
        number = len(self.items)
        if made_of:
            self.references.append((b"dimg", number, list(made_of)))
        return number

    def refer(self, kind: bytes, source: int, *targets: int) -> None:
        """Let an item refer to others."""
        self.references.append((kind, source, list(targets)))

    def data(self, primary: int | None = None) -> bytes:
        """Write the file, its content in `idat`."""
        placed = idat = b""
        links, properties = b"", b""
        count = 0
        for number, (_, content, own) in enumerate(self.items, 1):
            extents = self.repeated.get(number, 1)
            places = struct.pack(">II", len(idat), len(content)) * extents
            placed += struct.pack(">HHHH", number, 1, 0, extents) + places
            idat += content
            links += struct.pack(">HB", number, len(own)) + bytes(range(count + 1, count + 1 + len(own)))
            properties += b"".join(own)
            count += len(own)
        kinds = [
            full_box(b"infe", struct.pack(">HH", number, 0), kind, b"\x00", version=2)
            for number, (kind, _, _) in enumerate(self.items, 1)
        ]
        links = struct.pack(">I", len(self.items)) + links
        references = [
            box(kind, struct.pack(f">HH{len(targets)}H", source, len(targets), *targets))
            for kind, source, targets in self.references
        ]
        return box(b"ftyp", self.brand, bytes(4), self.brand) + full_box(
            b"meta",
            full_box(b"pitm", struct.pack(">H", primary or len(self.items))),
            full_box(b"iloc", b"\x44\x00", struct.pack(">H", len(self.items)), placed, version=1),
            full_box(b"iinf", struct.pack(">H", len(self.items)), *kinds),
            full_box(b"iref", *references),
            box(b"iprp", box(b"ipco", properties), full_box(b"ipma", links)),
            box(b"idat", idat),
        )


def grid(across: int, down: int, width: int, height: int) -> bytes:
    """Write the content of a grid."""
    return struct.pack(">BBBBHH", 0, 0, down - 1, across - 1, width, height)


def overlay(width: int, height: int, parts: int) -> bytes:
    """Write the content of an overlay whose parts all lie at its corner."""
    return struct.pack(">BB4HHH", 0, 0, 0, 0, 0, 0, width, height) + bytes(4 * parts)


def hevc_sps(width: int, height: int) -> bytes:
    """Write a sequence parameter set up to the bit depths, with its NAL unit's header."""
    golomb = [1, width, height]
    bits = "0000" + "000" + "0" + "0" * 96 + "1"  # no sub-layers; the profile; number 0
    bits += "".join(f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}" for value in golomb) + "0" + "11" + "1"
    bits += "0" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big")
    while b"\x00\x00\x00" in coded:
        coded = coded.replace(b"\x00\x00\x00", b"\x00\x00\x03\x00", 1)
    return b"\x42\x01" + coded


def hvcc(*sets: bytes) -> bytes:
    """Write HEVC's configuration, which holds parameter sets."""
    listed = b"".join(struct.pack(">H", len(unit)) + unit for unit in sets)
    return box(b"hvcC", bytes(21), b"\xff\x01", b"\x21", struct.pack(">H", len(sets)), listed)


def hevc_unit(unit: bytes) -> bytes:
    """Write a NAL unit behind its length."""
    return struct.pack(">I", len(unit)) + unit


def av1_sequence_header(width: int, height: int) -> bytes:
    """Write the OBU that says an AV1 still picture's size."""
    bits = "000" + "1" + "1" + "00000" + "1111" + "1111" + f"{width - 1:016b}{height - 1:016b}"
    bits += "0" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([1 << 3 | 2, len(coded)]) + coded


def av1_frames(count: int) -> bytes:
    """Write OBUs that say they are frames."""
    return bytes([6 << 3 | 2, 0]) * count


def mpo() -> bytes:
    """Write two progressive JPEGs one after the other."""
    first = progressive()
    out = io.BytesIO(first)
    out.seek(0, io.SEEK_END)
    out.write(with_scans(first, 50))
    return out.getvalue()

"""How a TIFF stores its pixels, which code decodes them, and which kinds are not supported.

Pillow decodes what usual programs write. Some other kinds it decodes wrongly without an error, so `tiff_pixels`
decodes everything that Pillow is not known to decode correctly. tests/photos/test_tiff_kinds.py compares both with
another decoder.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .refusals import camera_raw, check_size, damaged, too_costly, too_many_pixels, unsupported_kind
from .tiff_directory import (
    BITS,
    COMPRESSION,
    DNG_VERSION,
    EXTRA_SAMPLES,
    FILL_ORDER,
    LENGTH,
    MAKE,
    NEW_SUBFILE_TYPE,
    ORIENTATION,
    PHOTOMETRIC,
    PLANAR,
    PREDICTOR,
    ROWS,
    SAMPLE_FORMAT,
    SAMPLES,
    STRIP_LENGTHS,
    STRIP_OFFSETS,
    SUBSAMPLING,
    TILE_LENGTH,
    TILE_LENGTHS,
    TILE_OFFSETS,
    TILE_WIDTH,
    WIDTH,
    Directory,
    is_big,
    read_directories,
    read_directory,
)

# All tiles together may have at most this many times `max_pixels`.
_MAX_TILED = 2
_MAX_SAMPLES = 64

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, _MASK, CMYK, YCBCR, LAB = 0, 1, 2, 3, 4, 5, 6, 8
_UNKNOWN = -1
_RAW_HEAD = re.compile(rb"CR|IIII.waR|MMMMRaw", re.DOTALL)  # behind the header of Canon's and Phase One's TIFFs
_RAW_PHOTOMETRICS = (32803, 34892)  # a colour filter array, and its linear form in DNG
_RAW_COMPRESSIONS = {32767, 32769, 32770, 34713, 65000, 65535}  # Sony, Epson, Samsung, Nikon, Kodak, Pentax
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
_UNTYPED = 4  # which readers treat as unsigned (TIFF 6.0, page 80)
HORIZONTAL, FLOATING = 2, 3  # predictors
_COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, LAB: 3}

_NONE, _OLD_JPEG, _JPEG, _PACKBITS = 1, 6, 7, 32773
_FAX = (2, 3, 4)
# None, LZW, deflate, PackBits, deflate by its older number, LZMA, Zstandard: these compress any bytes.
_BYTEWISE = {_NONE, 5, 8, _PACKBITS, 32946, 34925, 50000}
# With PackBits tifffile writes differences, which libtiff would show as they are.
_WITH_PREDICTOR = (5, 8, _PACKBITS, 32946, 34925, 50000)
_BY_PILLOW_ONLY = {*_FAX, _OLD_JPEG, _JPEG}
_UNSUPPORTED_COMPRESSIONS = {
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_UNSUPPORTED_PHOTOMETRICS = {
    _UNKNOWN: "it does not say what its samples mean (PhotometricInterpretation)",
    _MASK: "a transparency mask",
    9: "ICC Lab colours",
    10: "ITU Lab colours",
    32844: "LogL colours",
    32845: "LogLuv colours",
}


@dataclass(frozen=True)
class Parts:
    """The tiles or strips: their size in pixels, how many cover the picture, and the tags that list them."""

    width: int
    height: int
    across: int
    down: int
    offsets: int
    lengths: int

    @property
    def pixels(self) -> int:
        """Return how many pixels one part has."""
        return self.width * self.height

    @property
    def count(self) -> int:
        """Return how many parts cover the picture, for each plane."""
        return self.across * self.down


@dataclass(frozen=True)
class Layout:
    """The facts in the first directory about the pixels; `planes` is 1 if a pixel's samples lie side by side."""

    width: int
    height: int
    samples: int
    bits: int
    sample_format: int
    is_untyped: bool
    photometric: int
    compression: int
    planes: int
    predictor: int
    fill_order: int
    extra: tuple[int, ...]
    orientation: int
    parts: Parts
    is_big_endian_big: bool
    names_colours: bool

    @property
    def colours(self) -> int:
        """Return how many samples of a pixel are its colour."""
        return _COLOURS[self.photometric]

    @property
    def alpha(self) -> int | None:
        """Return the kind of transparency, 1 if colours are multiplied by it, 2 if not; None for an opaque picture.

        Next to inks, such a sample is a mask of the program that wrote it.
        """
        if self.photometric == CMYK:
            return None
        return self.extra[0] if self.extra and self.extra[0] in (1, 2) and self.samples > self.colours else None

    @property
    def used_samples(self) -> int:
        """Return how many samples of a pixel are its colour and transparency."""
        return self.colours + (self.alpha is not None)

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one row of a part, all samples of a plane together."""
        return math.ceil(self.parts.width * (self.samples // self.planes) * self.bits / 8)

    @property
    def is_for_pillow(self) -> bool:
        """Return whether Pillow decodes this kind correctly."""
        if self.compression in _BY_PILLOW_ONLY:
            return True
        if self.sample_format != UNSIGNED or self.is_untyped or self.fill_order == 2:
            return False
        if self.compression == _PACKBITS and self.predictor > 1:
            return False
        if self.is_big_endian_big or self.planes > self.colours or not self.names_colours:
            return False
        if self.samples == 1 and self.bits in (1, 2, 4, 8):
            return self.photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO)
        if self.samples == 1 and self.bits == 16:
            return self.photometric == BLACK_IS_ZERO
        if self.bits == 16 and self.planes == 1:
            return self.photometric == RGB and self.samples <= 4
        if self.photometric == CMYK and self.samples > self.colours:
            return False
        return self.bits == 8 and self.photometric in (RGB, CMYK, YCBCR, LAB)


def layout_of(directory: Directory, max_pixels: int) -> Layout:
    """Read how a TIFF stores its pixels.

    Raises UnsupportedImage for kinds that are not supported and for a camera's raw file, BrokenImage for an impossible
    layout, TooManyPixels for a part with more than `max_pixels`, and TooCostly for far more parts than the picture
    needs.
    """
    if _is_camera_raw(read_directory(directory.data)):
        raise camera_raw()
    width, height = directory.number(WIDTH, 0), directory.number(LENGTH, 0)
    if not width or not height:
        raise damaged("TIFF")
    check_size(width, height, max_pixels)
    compression = directory.number(COMPRESSION, _NONE)
    samples = max(1, directory.number(SAMPLES, 1))
    sample_format = max((UNSIGNED, *directory.numbers(SAMPLE_FORMAT, _MAX_SAMPLES)))
    layout = Layout(
        width=width,
        height=height,
        samples=samples,
        bits=max((1, *directory.numbers(BITS, _MAX_SAMPLES))),
        sample_format=UNSIGNED if sample_format == _UNTYPED else sample_format,
        is_untyped=sample_format == _UNTYPED,
        photometric=_photometric(directory, samples),
        compression=compression,
        planes=samples if directory.number(PLANAR, 1) == 2 else 1,
        predictor=directory.number(PREDICTOR, 1) if compression in _WITH_PREDICTOR else 1,
        fill_order=directory.number(FILL_ORDER, 1),
        extra=directory.numbers(EXTRA_SAMPLES, _MAX_SAMPLES),
        orientation=directory.number(ORIENTATION, 1),
        parts=_parts(directory, max_pixels),
        is_big_endian_big=directory.order == ">" and is_big(directory.data),
        names_colours=PHOTOMETRIC in directory.tags,
    )
    unsupported = _unsupported(layout, directory)
    if unsupported:
        raise unsupported_kind("TIFF", unsupported)
    if samples < layout.colours and layout.compression not in _BY_PILLOW_ONLY:
        raise damaged("TIFF")
    return layout


def _photometric(directory: Directory, samples: int) -> int:
    """Return what the samples mean; if the file does not say so, what libtiff's TIFFRGBAImageBegin takes them for."""
    if PHOTOMETRIC in directory.tags:
        return directory.number(PHOTOMETRIC, WHITE_IS_ZERO)
    compression = directory.number(COMPRESSION, _NONE)
    if compression in (_OLD_JPEG, *_FAX):
        return YCBCR if compression == _OLD_JPEG else WHITE_IS_ZERO
    extra = directory.tags.get(EXTRA_SAMPLES)
    colours = 0 if compression == _JPEG else samples - (extra.count if extra else 0)
    return {1: BLACK_IS_ZERO, 3: RGB}.get(colours, _UNKNOWN)


def _unsupported(layout: Layout, directory: Directory) -> str:
    """Return the unsupported feature of a layout; empty if there is none."""
    compression, photometric = layout.compression, layout.photometric
    if compression not in _BYTEWISE and compression not in _BY_PILLOW_ONLY:
        known = _UNSUPPORTED_COMPRESSIONS.get(compression)
        return f"{known} compression" if known else f"compression of number {compression}"
    if photometric not in _COLOURS and compression != _OLD_JPEG:
        return _UNSUPPORTED_PHOTOMETRICS.get(photometric, f"colours of number {photometric}")
    bits = directory.numbers(BITS, _MAX_SAMPLES)
    if len(set(bits)) > 1 or len(set(directory.numbers(SAMPLE_FORMAT, _MAX_SAMPLES))) > 1:
        return "samples of different sizes"
    if layout.samples > _MAX_SAMPLES:
        return f"{layout.samples:,} samples a pixel"
    if compression in (_OLD_JPEG, _JPEG):
        return f"JPEG with {layout.bits} bits a sample" if layout.bits != 8 else ""
    if layout.predictor > 1 and layout.bits not in (8, 16, 32, 64):
        return f"a predictor with {layout.bits} bits a sample"
    if layout.predictor > FLOATING or (layout.predictor == FLOATING and layout.sample_format != FLOAT):
        return f"predictor {layout.predictor}"
    if layout.is_for_pillow:
        return _unsupported_by_pillow(layout, directory)
    if layout.sample_format not in (UNSIGNED, SIGNED, FLOAT):
        return "complex numbers"
    if layout.bits > 64 or (layout.sample_format == FLOAT and layout.bits not in (16, 32, 64)):
        return f"numbers of {layout.bits} bits"
    if photometric == PALETTE and (layout.bits > 8 or layout.sample_format != UNSIGNED):
        return f"a palette with {layout.bits} bits a sample"
    if photometric in (YCBCR, LAB):
        return "YCbCr or Lab colours in numbers of this kind"
    return ""


def _unsupported_by_pillow(layout: Layout, directory: Directory) -> str:
    """Return the feature that Pillow does not support, of a kind that it decodes; empty if there is none."""
    subsampling = directory.numbers(SUBSAMPLING, 2) or (2, 2)
    if layout.photometric == YCBCR and layout.compression in _BYTEWISE and subsampling != (1, 1):
        return "YCbCr colours of reduced size without JPEG"
    if layout.photometric == YCBCR and layout.compression == _NONE and layout.planes > 1:
        return "YCbCr colours in separate planes"
    return ""


def _is_camera_raw(first: Directory) -> bool:
    """Return whether a directory holds the data of a camera's sensor, or the file says that it is a raw file.

    The first directory of most raw files is a small preview, which must not be taken for the photo.
    """
    if DNG_VERSION in first.tags or _RAW_HEAD.match(bytes(first.data[8:16])):
        return True
    if first.number(NEW_SUBFILE_TYPE, 0) & 1 and MAKE in first.tags:
        return True
    return any(
        directory.number(PHOTOMETRIC, 0) in _RAW_PHOTOMETRICS or directory.number(COMPRESSION, 0) in _RAW_COMPRESSIONS
        for directory in read_directories(first)
    )


def _parts(directory: Directory, max_pixels: int) -> Parts:
    """Find how tiles or strips cover the picture, and reject parts that are too large or cover far more than it."""
    width, height = directory.number(WIDTH, 0), directory.number(LENGTH, 0)
    if TILE_WIDTH in directory.tags or TILE_OFFSETS in directory.tags:
        part_width, part_height = directory.number(TILE_WIDTH, width), directory.number(TILE_LENGTH, height)
        offsets, lengths = TILE_OFFSETS, TILE_LENGTHS
    else:
        part_width, part_height = width, min(height, directory.number(ROWS, height))
        offsets, lengths = STRIP_OFFSETS, STRIP_LENGTHS
    if not part_width or not part_height:
        raise damaged("TIFF")
    if part_width * part_height > max_pixels:
        raise too_many_pixels(max_pixels)
    parts = Parts(
        part_width, part_height, math.ceil(width / part_width), math.ceil(height / part_height), offsets, lengths
    )
    if parts.count * parts.pixels > _MAX_TILED * max_pixels:
        raise too_costly("TIFF", f"its {parts.count:,} tiles are {part_width:,}x{part_height:,} pixels each")
    return parts

"""Every kind of TIFF looks as another decoder says, tifffile with imagecodecs, or is refused by name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from fakes import encode
from pictures import MAX_PIXELS, cat
from PIL import Image, ImageOps

from app.errors import BrokenImage, TooCostly, UnsupportedImage
from app.photos.decoding import decode
from app.photos.guards import examine

# With black and white, so that a picture's own range is the full one.
COLOURS = np.asarray(cat(50, 40)).copy()
COLOURS[0, :2] = [[0], [255]]
GREY = np.asarray(Image.fromarray(COLOURS).convert("L"))[..., None]
PHOTOMETRICS = {"miniswhite": GREY, "minisblack": GREY, "rgb": COLOURS}
Numbers = npt.NDArray[np.generic]


def as_numbers(levels: npt.NDArray[np.uint8], dtype: str) -> Numbers:
    """Spread levels over numbers of a type: all unsigned ones, some signed ones, and floats from 0 to 1."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (levels / 255).astype(kind)
    if kind.kind == "i":
        return (levels.astype(np.int64) - 100).astype(kind) * (1 if kind.itemsize == 1 else 99)
    return levels.astype(kind) * kind.type(np.iinfo(kind).max // 255)


def tiff(numbers: Numbers, extra: str = "", **options: object) -> bytes:
    out = io.BytesIO()
    samples = [extra] if extra else None
    tifffile.imwrite(out, numbers, extrasamples=samples, metadata=None, **options)
    return out.getvalue()


def expected(data: bytes, colours: int) -> npt.NDArray[np.float64]:
    """Decode with tifffile, and scale to 8 bits: by the full range of up to 16 bits, else by the picture's own."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        numbers = page.asarray()
        if page.planarconfig == 2 and numbers.ndim == 3:
            numbers = np.moveaxis(numbers, 0, -1)
        numbers = np.atleast_3d(numbers)[..., :colours]
        black, white = 0.0, 2.0**page.bitspersample - 1
        if page.sampleformat != 1 or page.bitspersample > 16:
            black, white = float(numbers.min()), float(numbers.max())
        levels = np.rint((numbers.astype(np.float64) - black) * 255 / (white - black))
        levels = 255 - levels if page.photometric == 0 else levels
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def as_shown(data: bytes) -> npt.NDArray[np.float64]:
    """Decode with the service's decoder, all of the photo."""
    photo = decode(data, max_pixels=MAX_PIXELS)
    return photo.thumbnail(max(photo.width, photo.height)).astype(np.float64)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", PHOTOMETRICS)
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_every_type_of_number(dtype: str, photometric: str, order: str):
    data = tiff(as_numbers(PHOTOMETRICS[photometric], dtype), photometric=photometric, byteorder=order)
    assert np.abs(as_shown(data) - expected(data, PHOTOMETRICS[photometric].shape[-1])).max() <= 1


@pytest.mark.parametrize("tile", [None, (16, 32)])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4"])
@pytest.mark.parametrize(
    ("compression", "predicted"),
    [
        (None, False),
        ("lzw", False),
        ("lzw", True),
        ("zlib", True),
        ("zstd", True),
        ("lzma", True),
        ("packbits", False),
    ],
)
def test_every_order_of_the_bytes(compression: str, predicted: bool, dtype: str, planar: str, tile: tuple[int, int]):
    numbers = as_numbers(COLOURS, dtype)
    numbers = np.moveaxis(numbers, -1, 0) if planar == "separate" else numbers
    rows = {} if tile else {"rowsperstrip": 7}
    options = {"compression": compression, "predictor": predicted, "planarconfig": planar, "tile": tile}
    data = tiff(numbers, photometric="rgb", **options, **rows)
    assert np.abs(as_shown(data) - expected(data, 3)).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_packbits_with_differences(planar: str, dtype: str):
    numbers = as_numbers(COLOURS, dtype)
    numbers = np.moveaxis(numbers, -1, 0) if planar == "separate" else numbers
    data = tiff(numbers, photometric="rgb", planarconfig=planar, compression="packbits", predictor=True)
    assert np.abs(as_shown(data) - COLOURS).max() <= 1


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("photometric", [0, 1])
def test_numbers_of_no_type_are_unsigned(photometric: int, bits: int):
    levels = np.round(GREY[..., 0].astype(np.float64) * ((1 << bits) - 1) / 255).astype(np.uint16)
    data = raw_tiff(packed(levels, bits), bits, 1, photometric, order=">", t339=4)
    shown = as_shown(data)[..., 0]
    grey = np.rint(levels * 255.0 / ((1 << bits) - 1))
    assert np.abs(shown - (grey if photometric else 255 - grey)).max() <= 1


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", PHOTOMETRICS)
def test_every_order_of_the_header(photometric: str, order: str, big: bool):
    data = tiff(PHOTOMETRICS[photometric], photometric=photometric, byteorder=order, bigtiff=big)
    assert np.abs(as_shown(data) - expected(data, PHOTOMETRICS[photometric].shape[-1])).max() <= 1


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_numbers_that_are_not_whole_bytes(bits: int, photometric: str):
    levels = (PHOTOMETRICS[photometric].astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    data = raw_tiff(packed(levels, bits), bits, levels.shape[-1], 1 if photometric == "minisblack" else 2)
    shown = np.broadcast_to(PHOTOMETRICS[photometric], COLOURS.shape)
    assert np.abs(as_shown(data) - shown).max() <= 1
    assert np.abs(as_shown(data) - expected(data, levels.shape[-1])).max() <= 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_24_bits_are_read_in_the_file_s_order(order: str):
    place = "little" if order == "<" else "big"
    stored = b"".join((int(level) * 65793).to_bytes(3, place) for level in GREY.flat)
    data = raw_tiff(stored, 24, 1, 1, order)
    low, high = GREY.min(), GREY.max()
    assert np.abs(as_shown(data) - np.rint((GREY.astype(float) - low) * 255 / (high - low))).max() <= 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha", "unspecified"])
def test_every_kind_of_extra_sample(extra: str, photometric: str, planar: str, dtype: str):
    levels = PHOTOMETRICS[photometric]
    opacity = np.tile(np.where(np.arange(50) < 25, 255, 102).astype(np.uint8), (40, 1))[..., None]
    share = opacity / 255
    stored = np.rint(levels * share).astype(np.uint8) if extra == "assocalpha" else levels
    numbers = as_numbers(np.concatenate([stored, opacity], axis=-1), dtype)
    numbers = np.moveaxis(numbers, -1, 0) if planar == "separate" else numbers
    data = tiff(numbers, extra, photometric=photometric, planarconfig=planar)
    on_white = levels if extra == "unspecified" else levels * share + 255 * (1 - share)
    assert np.abs(as_shown(data) - np.broadcast_to(on_white, COLOURS.shape)).max() <= 4


def test_inks_of_16_bits():
    inks = np.asarray(cat(50, 40).convert("CMYK"))
    data = tiff(as_numbers(inks, "u2"), photometric="separated", planarconfig="contig")
    same = as_shown(encode(Image.fromarray(inks, "CMYK"), "TIFF"))
    assert np.abs(as_shown(data) - same).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_converted_kinds_are_turned_upright(orientation: int):
    numbers = as_numbers(COLOURS, "f4")
    turned = tiff(numbers, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    plain = tiff(COLOURS, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    same = ImageOps.exif_transpose(Image.open(io.BytesIO(plain)))
    assert (as_shown(turned) == np.asarray(same)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.7e308, -1.7e308])
def test_odd_floating_numbers_in_colours_are_still_a_picture(value: float):
    numbers = as_numbers(COLOURS, "f8")
    numbers[3:5] = value
    assert as_shown(tiff(numbers, photometric="rgb")).shape == COLOURS.shape


def raw_tiff(
    stored: bytes, bits: int, samples: int, photometric: int, order: str = "<", compression: int = 1, **tags: object
) -> bytes:
    """Write a TIFF of 50x40 pixels around bytes, in one strip; further tags are named t and their number."""
    entries: dict[int, object] = {
        256: 50,
        257: 40,
        258: bits,
        259: compression,
        262: photometric,
        273: 8,
        277: samples,
    }
    entries |= {278: 40, 279: len(stored)} | {int(tag[1:]): value for tag, value in tags.items()}
    start = 8 + len(stored) + len(stored) % 2
    mark = b"II*\0" if order == "<" else b"MM\0*"
    rows, values = b"", b""
    for tag, value in sorted(entries.items()):
        if isinstance(value, list):
            place = start + 6 + 12 * len(entries) + len(values)
            rows += struct.pack(f"{order}HHII", tag, 3, len(value), place)
            values += struct.pack(f"{order}{len(value)}H", *value)
        else:
            rows += struct.pack(f"{order}HHII", tag, 4, 1, value)
    directory = struct.pack(f"{order}H", len(entries)) + rows + bytes(4) + values
    return mark + struct.pack(f"{order}I", start) + stored + bytes(len(stored) % 2) + directory


def in_order(stored: bytes, fill_order: int) -> bytes:
    """Turn the bits of each byte around for fill order 2."""
    return bytes(int(f"{byte:08b}"[::-1], 2) for byte in stored) if fill_order == 2 else stored


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_every_order_of_the_bits(bits: int, photometric: int, compression: int, fill_order: int):
    levels = np.random.default_rng(bits).integers(0, 2**bits, (40, 50, 1)).astype(np.uint16)
    stored = packed(levels, bits)
    order = "<" if bits < 16 else ">"
    stored = in_order(zlib.compress(stored) if compression == 8 else stored, fill_order)
    data = raw_tiff(stored, bits, 1, photometric, order, compression, t266=fill_order)
    shown = np.rint(levels * 255.0 / (2**bits - 1))
    assert np.abs(as_shown(data) - (shown if photometric else 255 - shown)).max() <= 1


@pytest.mark.parametrize("fill_order", [1, 2])
@pytest.mark.parametrize("scale", [257, 256, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_every_palette(bits: int, scale: int, fill_order: int):
    chance = np.random.default_rng(bits)
    indices = chance.integers(0, 2**bits, (40, 50, 1)).astype(np.uint16)
    palette = chance.integers(0, 256, (2**bits, 3))
    stored = in_order(packed(indices, bits), fill_order)
    data = raw_tiff(stored, bits, 1, 3, t320=(palette * scale).T.ravel().tolist(), t266=fill_order)
    assert np.abs(as_shown(data) - palette[indices[..., 0]]).max() <= 1


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw"])
@pytest.mark.parametrize("photometric", [0, 1])
def test_every_compression_of_fax(photometric: int, compression: str):
    page = Image.fromarray(GREY[..., 0]).convert("1")
    data = encode(page, "TIFF", compression=compression, tiffinfo={262: photometric})
    assert (as_shown(data)[..., 0] == np.asarray(page) * 255).all()
    assert (as_shown(data) == expected(data, 1)).all()


@pytest.mark.parametrize("extra", ["", "unassalpha", "unspecified"])
@pytest.mark.parametrize("compression", [None, "lzw"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_every_layout_of_inks(planar: str, compression: str, extra: str):
    inks = np.asarray(cat(50, 40).convert("CMYK"))
    numbers = np.concatenate([inks, np.full((40, 50, 1), 200, np.uint8)], axis=-1) if extra else inks
    numbers = np.moveaxis(numbers, -1, 0) if planar == "separate" else numbers
    data = tiff(numbers, extra, photometric="separated", planarconfig=planar, compression=compression)
    assert np.abs(as_shown(data) - np.asarray(Image.fromarray(inks, "CMYK").convert("RGB"))).max() <= 1


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite", "rgb", "ycbcr"])
def test_jpeg_in_tiff_has_the_colours_of_its_tags(photometric: str, tile: tuple[int, int]):
    levels = PHOTOMETRICS.get(photometric, COLOURS)
    options = {"compression": "jpeg", "compressionargs": {"level": 95}, "tile": tile}
    data = tiff(levels[..., 0] if levels.shape[-1] == 1 else levels, photometric=photometric, **options)
    assert np.abs(as_shown(data) - expected(data, levels.shape[-1])).max() <= 3


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_ycbcr_of_full_size_is_read_without_jpeg(compression: str):
    numbers = np.asarray(cat(50, 40).convert("YCbCr"))
    data = tiff(numbers, photometric="ycbcr", compression=compression, subsampling=(1, 1))
    assert np.abs(as_shown(data) - np.asarray(cat(50, 40))).max() <= 3


def packed(levels: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Write numbers of some bits each, one after the other, and each row in whole bytes."""
    spread = np.unpackbits(levels.astype(">u2").view(np.uint8).reshape(*levels.shape, 2), axis=-1)[..., 16 - bits :]
    return np.packbits(spread.reshape(len(levels), -1), axis=1).tobytes()


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        ({"compression": 50001}, "WebP compression"),
        ({"compression": 50002}, "JPEG XL compression"),
        ({"compression": 34712}, "JPEG 2000 compression"),
        ({"compression": 33005}, "JPEG 2000 compression"),
        ({"compression": 34887}, "LERC compression"),
        ({"compression": 34661}, "JBIG compression"),
        ({"compression": 34676}, "SGI LogLuv compression"),
        ({"compression": 4711}, "compression of number 4711"),
        ({"compression": 7, "bits": 12}, "JPEG with 12 bits a sample"),
        ({"photometric": 4}, "a transparency mask"),
        ({"photometric": 9}, "ICC Lab colours"),
        ({"photometric": 32845}, "LogLuv colours"),
        ({"photometric": 3, "bits": 16}, "a palette with 16 bits a sample"),
        ({"photometric": 8, "bits": 16, "samples": 3}, "YCbCr or Lab colours in numbers of this kind"),
        ({"photometric": 6, "samples": 3, "t284": 2}, "YCbCr colours of reduced size without JPEG"),
        ({"photometric": 6, "samples": 3}, "YCbCr colours of reduced size without JPEG"),
        ({"t339": 5, "bits": 64}, "complex numbers"),
        ({"t339": 6, "bits": 64}, "complex numbers"),
        ({"t339": 3, "bits": 24}, "numbers of 24 bits"),
        ({"bits": 128}, "numbers of 128 bits"),
        ({"compression": 5, "t317": 2, "bits": 12}, "a predictor with 12 bits a sample"),
        ({"compression": 5, "t317": 3, "bits": 16}, "predictor 3"),
    ],
)
def test_what_is_not_supported_is_named(change: dict[str, int], feature: str):
    data = raw_tiff(bytes(64), **({"bits": 8, "samples": 1, "photometric": 1} | change))
    for read in (decode, examine):
        with pytest.raises(UnsupportedImage) as refusal:
            read(data, max_pixels=MAX_PIXELS)
        assert (
            refusal.value.detail == f"This kind of TIFF is not supported: {feature}. Save it as a usual JPEG or PNG."
        )


@pytest.mark.parametrize("bits", [(8, 8, 16), (5, 6, 5)])
def test_samples_of_different_sizes_are_named(bits: tuple[int, int, int]):
    data = tiff(COLOURS, photometric="rgb")
    place = data.index(struct.pack("<HHH", 8, 8, 8))
    changed = data[:place] + struct.pack("<HHH", *bits) + data[place + 6 :]
    with pytest.raises(UnsupportedImage, match="samples of different sizes"):
        decode(changed, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("dtype", ["u4", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_converted_kind_cut_short_is_damaged(compression: str, dtype: str):
    data = tiff(as_numbers(COLOURS, dtype), photometric="rgb", compression=compression, rowsperstrip=7)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        last = file.pages[0].dataoffsets[-1]
    moved = data.replace(struct.pack("<I", last), struct.pack("<I", len(data) - 100))
    with pytest.raises(BrokenImage):
        decode(moved[: len(data) - 10], max_pixels=MAX_PIXELS)


def test_the_estimate_covers_what_a_converted_kind_takes():
    numbers = np.zeros((1000, 1000, 3), np.float64)
    plain = examine(tiff(numbers.astype(np.uint8), photometric="rgb"), max_pixels=MAX_PIXELS)
    found = examine(tiff(numbers, photometric="rgb"), max_pixels=MAX_PIXELS)
    assert found.memory_bytes > plain.memory_bytes + 1000 * 1000 * 24
    assert found.seconds > plain.seconds + 3_000_000 * 20e-9


def test_many_overlapping_planes_are_too_costly():
    data = tiff(np.zeros((3, 64, 64), np.uint32), photometric="rgb", planarconfig="separate", rowsperstrip=1)
    lengths = struct.pack("<192H", *[256] * 192)
    assert lengths in data
    with pytest.raises(TooCostly, match="its parts lie over each other"):
        examine(data.replace(lengths, struct.pack("<192H", *[60_000] * 192)), max_pixels=MAX_PIXELS)

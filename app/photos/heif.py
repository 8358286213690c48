"""How AVIF and HEIC are decoded: in the thread that asks, and without their metadata.

pillow-heif copies the metadata of each image to Python as soon as a file is opened, wanted or not. Many items may
name the same bytes of the file, so that one megabyte became two gigabytes. libheif finds the metadata of an image by
references of the type `cdsc` (ISO/IEC 14496-12 and 23008-12), so a file without that type has none copied. We have no
use for any: orientation is a property of the image, not part of its metadata. libavif finds metadata in the same way,
and rejects the photo if it is broken. So it does with a gain map, which it looks for only if a brand announces one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import pillow_heif
from PIL import AvifImagePlugin, Image

from .isobmff import cropped_box

# The main brands that libavif and pillow-heif accept. A file may name another, and these among its compatible brands.
_AVIF_BRANDS = (b"avif", b"avis")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
_GAIN_MAP_BRAND, _ANY_PICTURE = b"tmap", b"mif1"
_REFERENCE = b"cdsc"
_UNKNOWN = b"free"  # a type that no reference has

# Photos run in parallel, not the parts of one. For libheif 0 means the calling thread, and 1 another one. libde265
# still starts one thread for each tile, one after the other. Pillow's number is for the whole process.
pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=0)
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def open_avif(data: bytes, max_pixels: int) -> Image.Image:
    """Open an AVIF with any main brand, without its metadata and gain map; cut out its clean aperture, if it has one.

    libavif only reports the clean aperture, libheif cuts it out itself.
    """
    image = Image.open(io.BytesIO(_with_main_brand(without_metadata(data), _AVIF_BRANDS)), formats=["AVIF"])
    box = cropped_box(data, "AVIF", image.size)
    return image if box is None else image.crop(box)


def open_heic(data: bytes, max_pixels: int) -> Image.Image:
    """Open a HEIC with any main brand, without its metadata."""
    return Image.open(io.BytesIO(_with_main_brand(without_metadata(data), _HEIC_BRANDS)), formats=["HEIF"])


def _with_main_brand(data: bytes, brands: tuple[bytes, ...]) -> bytes:
    """Return the file with one of these as its main brand, the first if it has none, and no brand of gain maps.

    Other brands are replaced by that of any picture, since the libraries do not know all of them.
    """
    end = min(len(data), int.from_bytes(data[:4], "big"))
    listed = [data[place : place + 4] for place in (8, *range(16, end - 3, 4))]
    main = listed[0] if listed[0] in brands else next((brand for brand in brands if brand in listed), brands[0])
    kept = b"".join(brand if brand in brands else _ANY_PICTURE for brand in listed[1:])
    return b"".join([data[:8], main, data[12:16], kept, memoryview(data)[16 + len(kept) :]])


def without_metadata(data: bytes) -> bytes:
    """Return a file whose images refer to no metadata; nothing else changes, and no byte moves."""
    if _REFERENCE not in data:
        return data
    return b"".join(
        part if is_pixels else part.replace(_REFERENCE, _UNKNOWN) for part, is_pixels in _top_level_boxes(data)
    )


def _top_level_boxes(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the file in pieces, each with whether it is media data, which may contain the same bytes by chance.

    A piece that cannot be a box is not media data, nor is anything behind it.
    """
    start = 0
    while start < len(data):
        end = _end_of_box(data, start)
        is_pixels = end is not None and data[start + 4 : start + 8] == b"mdat"
        yield data[start:end], is_pixels
        start = len(data) if end is None else end


def _end_of_box(data: bytes, start: int) -> int | None:
    """Find where a box ends (ISO/IEC 14496-12, section 4.2); None if its size is impossible."""
    size, header = int.from_bytes(data[start : start + 4], "big"), 8
    if size == 0:
        return len(data)
    if size == 1:
        size, header = int.from_bytes(data[start + 8 : start + 16], "big"), 16
    return start + size if header <= size <= len(data) - start else None

"""Why a file is rejected: not supported, damaged, too large, or too costly. Each text is for its sender."""

from __future__ import annotations

from ..errors import BrokenImage, TooCostly, TooManyPixels, UnsupportedImage

# No camera's panorama comes near it. One column of 64 million pixels, a file of 0.5 MB, would cost 10 seconds and
# 0.5 GB, since Pillow keeps account of each row; and it holds a resize's box in single precision.
MAX_SIDE = 1_000_000


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise TooManyPixels for more pixels than `max_pixels`, or for a side over `MAX_SIDE`."""
    if width * height > max_pixels:
        raise too_many_pixels(max_pixels)
    if max(width, height) > MAX_SIDE:
        raise TooManyPixels(f"The photo has a side of more than {MAX_SIDE:,} pixels. Send a smaller copy.")


def too_many_pixels(max_pixels: int) -> TooManyPixels:
    """Return the error for a photo with more than `max_pixels`."""
    return TooManyPixels(f"The photo has more than {max_pixels:,} pixels. Send a smaller copy.")


# An unfinished download leaves zeros, and flash memory that was erased or never written holds ones.
_FILLINGS = (0x00, 0xFF)


def damaged(name: str) -> BrokenImage:
    """Return the error for a photo of a supported format that cannot be decoded."""
    return BrokenImage(f"This {name} file is damaged or incomplete.")


def ends_in_filling(data: bytes | memoryview, end: int, count: int) -> bool:
    """Return whether the `count` bytes before `end` are all 0x00, or all 0xFF.

    A download that was never finished, or a file that was rescued from a damaged card, has its full size and such
    bytes where the rest should be. Several decoders paint something there without an error.
    """
    last = bytes(data[max(0, end - count) : end])
    return count <= end <= len(data) and any(last == bytes([filling]) * count for filling in _FILLINGS)


def unsupported_kind(name: str, feature: str) -> UnsupportedImage:
    """Return the error for a good photo that uses an unsupported feature of its format."""
    return UnsupportedImage(f"This kind of {name} is not supported: {feature}. Save it as a usual JPEG or PNG.")


def camera_raw() -> UnsupportedImage:
    """Return the error for a camera's raw file, which only a raw converter turns into a photo."""
    return UnsupportedImage(
        "This is a camera's raw file, not a finished photo. Export it as JPEG, in the camera or with a raw converter, "
        "and send that."
    )


def out_of_memory() -> TooCostly:
    """Return the error for a photo whose decoder reached its memory limit."""
    return TooCostly("Decoding this photo takes more memory than its header promised.")


def too_costly(name: str, why: str) -> TooCostly:
    """Return the error for a photo whose structure would take far too long to decode."""
    return TooCostly(f"Decoding this {name} would take too long: {why}. Save the photo again and send that.")

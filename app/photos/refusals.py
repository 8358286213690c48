"""The refusals of files that are no photos, damaged, too large, or too costly; each is a sentence for the sender."""

from __future__ import annotations

from ..errors import BrokenImage, TooCostly, TooManyPixels, UnsupportedImage

# No camera's panorama comes near it. One column of 64 million pixels, a file of 0.5 MB, would cost 10 seconds and
# 0.5 GB, since Pillow keeps account of each row; and it holds a resize's box in single precision.
LONGEST_SIDE = 1_000_000


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise TooManyPixels for more pixels than `max_pixels`, or for a side longer than any photo's."""
    if width * height > max_pixels:
        raise too_many_pixels(max_pixels)
    if max(width, height) > LONGEST_SIDE:
        raise TooManyPixels(f"The photo has a side of more than {LONGEST_SIDE:,} pixels. Send a smaller copy.")


def too_many_pixels(max_pixels: int) -> TooManyPixels:
    """Build the refusal of a photo with more than `max_pixels`."""
    return TooManyPixels(f"The photo has more than {max_pixels:,} pixels. Send a smaller copy.")


def damaged(name: str) -> BrokenImage:
    """Build the refusal of a photo whose format is known, but which cannot be decoded."""
    return BrokenImage(f"This {name} file is damaged or incomplete.")


def unsupported_kind(name: str, feature: str) -> UnsupportedImage:
    """Build the refusal of a good photo that uses a feature of its format which is not supported."""
    return UnsupportedImage(f"This kind of {name} is not supported: {feature}. Save it as a usual JPEG or PNG.")


def camera_raw() -> UnsupportedImage:
    """Build the refusal of what a camera's sensor saw, which only raw converters turn into a photo."""
    return UnsupportedImage(
        "This is a camera's raw file, not a finished photo. Export it as JPEG, in the camera or with a raw converter, "
        "and send that."
    )


def out_of_memory() -> TooCostly:
    """Build the refusal of a photo whose decoder met the limit of its memory."""
    return TooCostly("Decoding this photo takes more memory than its header promised.")


def too_costly(name: str, why: str) -> TooCostly:
    """Build the refusal of a photo whose shape makes decoding it absurdly long."""
    return TooCostly(f"Decoding this {name} would take too long: {why}. Save the photo again and send that.")

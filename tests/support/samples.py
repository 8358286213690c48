"""Good photos of every format and mode, which tests decode, examine or damage."""

from __future__ import annotations

import numpy as np
from fakes import encode
from pictures import DATA, cat
from PIL import Image

SMALL = cat(90, 60)
EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "maker"})

SAMPLES = {
    "JPEG": encode(SMALL, "JPEG", exif=EXIF, comment=b"note"),
    "progressive JPEG": encode(SMALL, "JPEG", progressive=True),
    "CMYK JPEG": encode(SMALL.convert("CMYK"), "JPEG"),
    "PNG": encode(SMALL, exif=EXIF),
    "palette PNG": encode(SMALL.convert("P"), transparency=3),
    "16-bit PNG": encode(Image.fromarray(np.asarray(SMALL.convert("L")).astype(np.uint16) * 257)),
    "WebP": encode(SMALL, "WEBP", exif=EXIF),
    "lossless WebP": encode(SMALL.convert("RGBA"), "WEBP", lossless=True),
    "GIF": encode(SMALL, "GIF"),
    "BMP": encode(SMALL, "BMP"),
    "TIFF": encode(SMALL, "TIFF", exif=EXIF),
    "packed TIFF": encode(SMALL, "TIFF", compression="tiff_lzw"),
    "float TIFF": encode(SMALL.convert("F"), "TIFF"),
    "AVIF": encode(SMALL, "AVIF", exif=EXIF),
    "HEIC": (DATA / "drawn.heic").read_bytes(),
}
ANIMATIONS = {
    "MPO": encode(SMALL, "MPO", save_all=True, append_images=[SMALL.rotate(180)]),
    "animated PNG": encode(SMALL, save_all=True, append_images=[SMALL.rotate(180)]),
    "animated GIF": encode(SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(180)]),
    "animated WebP": encode(SMALL, "WEBP", save_all=True, append_images=[SMALL.rotate(180)]),
}

GREY = cat().convert("L")
GREY_16 = np.asarray(GREY).astype(np.uint16) * 257
PALETTE = cat().convert("P", palette=Image.Palette.ADAPTIVE)
PALETTE_WITH_HOLE = PALETTE.copy()
PALETTE_WITH_HOLE.info["transparency"] = 3
FADING = cat().convert("RGBA")
FADING.putalpha(Image.linear_gradient("L").resize(FADING.size))


def over_white(picture: Image.Image) -> Image.Image:
    """Blend by the definition of alpha, in floating point."""
    pixels = np.asarray(picture.convert("RGBA"), dtype=np.float64)
    alpha = pixels[..., 3:] / 255
    return Image.fromarray(np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))


MODES: dict[str, tuple[bytes, Image.Image]] = {
    "grey": (encode(GREY), GREY),
    "grey JPEG": (encode(GREY, "JPEG", quality=100), GREY),
    "1-bit": (encode(GREY.convert("1")), GREY.convert("1")),
    "palette": (encode(PALETTE), PALETTE),
    "palette with transparency": (encode(PALETTE, transparency=3), over_white(PALETTE_WITH_HOLE)),
    "palette GIF": (encode(PALETTE, "GIF"), PALETTE),
    "palette BMP": (encode(PALETTE, "BMP"), PALETTE),
    "alpha": (encode(FADING), over_white(FADING)),
    "alpha WebP": (encode(FADING, "WEBP", lossless=True, exact=True), over_white(FADING)),
    "alpha TIFF": (encode(FADING, "TIFF"), over_white(FADING)),
    "grey and alpha": (encode(FADING.convert("LA")), over_white(FADING.convert("LA"))),
    "transparent grey": (encode(GREY, transparency=0), GREY.point(lambda value: 255 if value == 0 else value)),
    "CMYK": (encode(cat().convert("CMYK"), "TIFF"), cat().convert("CMYK")),
    "16-bit grey": (encode(Image.fromarray(GREY_16)), GREY),
    "16-bit grey TIFF": (encode(Image.fromarray(GREY_16), "TIFF"), GREY),
    "YCbCr": (encode(cat().convert("YCbCr"), "TIFF"), cat().convert("YCbCr")),
}

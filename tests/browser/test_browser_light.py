"""What leaves the device: small, upright, and without metadata."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
from collections.abc import Callable

import numpy as np
import pytest
from cards import Cards, expect_state, payload
from PIL import ExifTags, Image, PngImagePlugin
from playwright.sync_api import expect

SECRET = b"SECRET-PLACE"
SPOTS = [(0.2, 0.7), (0.8, 0.7), (0.5, 0.1)]  # of a picture in three colours, in its width and height


# The browser's protocol does not tell what a blob holds; the digest in the answer proves that this is what arrived.
KEEP_SENT = """() => {
  const { send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.send = function keep(body) {
    window.sentBody = body;
    return send.call(this, body);
  };
}"""
READ_SENT = """async () => {
  const bytes = new Uint8Array(await window.sentBody.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}"""


@pytest.fixture
def sent(cards: Cards) -> Callable[..., bytes]:
    """Give the page a photo; returns the bytes that it sends."""
    cards.page.evaluate(KEEP_SENT)

    def send(data: bytes, name: str = "photo.jpg") -> bytes:
        with cards.page.expect_response("**/api/v1/predict*") as response:
            card = cards.choose_files(payload(name, data))
        expect_state(card, "done")
        body = base64.b64decode(cards.page.evaluate(READ_SENT))
        assert response.value.json()["image"]["sha256"] == hashlib.sha256(body).hexdigest()
        return body

    return send


def exif(orientation: int = 1) -> Image.Exif:
    data = Image.Exif()
    data[ExifTags.Base.Orientation] = orientation
    data[ExifTags.Base.Artist] = SECRET.decode()
    data.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSMapDatum] = SECRET.decode()
    return data


def two_halves(width: int = 400, height: int = 300) -> Image.Image:
    """Draw a picture with a red left and a blue right half."""
    image = Image.new("RGB", (width, height), (220, 30, 30))
    image.paste((30, 30, 220), (width // 2, 0, width, height))
    return image


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    (image or two_halves()).save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def png_with_text() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", SECRET.decode())
    text.add_itxt("Author", SECRET.decode(), zip=False)
    return saved("PNG", pnginfo=text, exif=exif())


FILES = {
    "JPEG with EXIF": lambda: saved("JPEG", exif=exif(), comment=SECRET, quality=90),
    "JPEG with XMP and a profile": lambda: saved("JPEG", xmp=b"<x>" + SECRET + b"</x>", icc_profile=SECRET * 9),
    "progressive JPEG": lambda: saved("JPEG", exif=exif(), progressive=True),
    "grey JPEG": lambda: saved("JPEG", two_halves().convert("L"), exif=exif()),
    "CMYK JPEG": lambda: saved("JPEG", two_halves().convert("CMYK"), exif=exif()),
    "JPEG with something after its end": lambda: saved("JPEG") + b"ftypmp42" + SECRET,
    "PNG with text": png_with_text,
    "palette PNG": lambda: saved("PNG", two_halves().convert("P"), exif=exif()),
    "WebP": lambda: saved("WEBP", exif=exif(), xmp=SECRET, icc_profile=SECRET * 9),
    "lossless WebP": lambda: saved("WEBP", lossless=True, exif=exif()),
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_a_small_photo_is_sent_as_it_is_without_its_metadata(sent: Callable[..., bytes], make: Callable) -> None:
    original = make()
    assert SECRET in original
    data = sent(original)
    assert SECRET not in data
    assert len(data) < len(original)
    assert np.array_equal(pixels(data), pixels(original))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_all_that_stays(sent: Callable[..., bytes], kind: str, orientation: int) -> None:
    data = sent(saved(kind, exif=exif(orientation)))
    with Image.open(io.BytesIO(data)) as image:
        left = dict(image.getexif())
    assert left == ({} if orientation == 1 else {ExifTags.Base.Orientation: orientation})


def turned(upright: Image.Image, orientation: int) -> Image.Image:
    """Turn a picture to how it is stored in an orientation."""
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # each undoes its orientation
    return upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_photo_is_scaled_down_upright(sent: Callable[..., bytes], orientation: int) -> None:
    data = sent(saved("JPEG", turned(two_halves(1600, 1200), orientation), exif=exif(orientation)))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size, dict(image.getexif())) == ("WEBP", (682, 512), {})
    red, blue = pixels(data)[256, 80], pixels(data)[256, 600]
    assert red[0] > 180 > blue[0]
    assert blue[2] > 180 > red[2]


@pytest.mark.parametrize("size", [(400, 300), (1600, 1200)])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_webp_is_turned_upright_which_browsers_do_not(
    cards: Cards, sent: Callable[..., bytes], size: tuple[int, int], orientation: int
) -> None:
    upright = two_halves(*size)
    upright.paste((240, 240, 240), (0, 0, size[0], size[1] // 4))
    data = sent(saved("WEBP", turned(upright, orientation), exif=exif(orientation), lossless=True), "photo.webp")
    with Image.open(io.BytesIO(data)) as image:
        assert dict(image.getexif()) == {}
    scale = min(1, 512 / size[1])
    red, blue, white = (pixels(data)[int(y * scale * size[1]), int(x * scale * size[0])] for x, y in SPOTS)
    assert np.abs([red - (220, 30, 30), blue - (30, 30, 220), white - (240, 240, 240)]).max() <= 2
    expect(cards.all.first.locator("[data-part=original]")).to_contain_text(f"{size[0]} × {size[1]} pixels, WebP")


def test_a_panorama_too_long_for_webp_is_sent_whole(sent: Callable[..., bytes]) -> None:
    with Image.open(io.BytesIO(sent(saved("JPEG", two_halves(20_000, 600))))) as image:
        assert (image.format, image.size) == ("PNG", (17_066, 512))


def test_a_panorama_too_long_for_a_canvas_is_sent_in_its_size(sent: Callable[..., bytes]) -> None:
    original = saved("PNG", two_halves(70_000, 520))
    data = sent(original, "panorama.png")
    assert np.array_equal(pixels(data), pixels(original))


# As where a browser guards against fingerprinting.
READ_WHITE = """() => {
  const { getImageData } = CanvasRenderingContext2D.prototype;
  CanvasRenderingContext2D.prototype.getImageData = function read(...place) {
    const image = getImageData.apply(this, place);
    image.data.fill(255);
    return image;
  };
}"""


def test_without_readable_canvas_a_large_photo_keeps_its_size(cards: Cards, sent: Callable[..., bytes]) -> None:
    cards.page.evaluate(READ_WHITE)
    original = saved("JPEG", two_halves(1600, 1200), exif=exif())
    data = sent(original)
    assert SECRET not in data
    assert np.array_equal(pixels(data), pixels(original))
    expect(cards.all.first.get_by_role("img", name="Your photo photo.jpg")).to_be_visible()


def test_without_readable_canvas_other_kinds_need_consent(cards: Cards) -> None:
    cards.page.evaluate(READ_WHITE)
    expect_state(cards.choose_files(payload("photo.bmp", saved("BMP"), "image/bmp")), "asking")


@pytest.mark.parametrize(
    ("size", "expected"), [((4000, 3000), (682, 512)), ((700, 2800), (512, 2048)), ((513, 513), (512, 512))]
)
def test_the_short_side_is_what_the_model_needs(
    sent: Callable[..., bytes], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    with Image.open(io.BytesIO(sent(saved("JPEG", two_halves(*size))))) as image:
        assert image.size == expected


def test_colours_are_not_converted(sent: Callable[..., bytes]) -> None:
    # A profile that swaps red and blue: a page that applies it sends other numbers than the server would read.
    swapping = rgb_profile(primaries=[(0.15, 0.06), (0.30, 0.60), (0.64, 0.33)])
    image = Image.new("RGB", (1400, 1000), (200, 60, 20))
    data = sent(saved("PNG", image, icc_profile=swapping), "photo.png")
    assert np.abs(pixels(data)[300, 300] - (200, 60, 20)).max() == 0


def test_what_is_transparent_becomes_white_as_on_the_server(sent: Callable[..., bytes]) -> None:
    data = sent(saved("PNG", Image.new("RGBA", (900, 700), (255, 0, 0, 0))), "photo.png")
    assert pixels(data).min() == 255


def masked_bmp(bits: int, opaque: int) -> bytes:
    """Write a BMP of version 5, 20 by 10 pixels of (204, 102, 51), of which the first `opaque` are opaque."""
    shift = bits // 4  # from one channel to the next; alpha is the highest
    masks = [((1 << shift) - 1) << shift * place for place in (2, 1, 0, 3)]
    colour = sum((level >> (8 - shift)) << shift * place for place, level in enumerate((51, 102, 204)))
    values = np.full(200, colour, np.uint32)
    values[:opaque] |= masks[3]
    rows = values.astype(np.uint16 if bits == 16 else np.uint32).tobytes()
    start = 14 + 124
    info = struct.pack("<IiiHHIIiiII4I", 124, 20, 10, 1, bits, 3, len(rows), 0, 0, 0, 0, *masks)
    return b"BM" + struct.pack("<III", start + len(rows), 0, start) + info.ljust(124, b"\0") + rows


@pytest.mark.parametrize("bits", [16, 32])
def test_transparency_of_a_bmp_counts_only_if_a_pixel_has_it(sent: Callable[..., bytes], bits: int) -> None:
    blank = pixels(sent(masked_bmp(bits, 0), "screen.bmp"))
    assert np.abs(blank - (204, 102, 51)).max() <= 1


def test_transparency_of_a_bmp_counts_if_a_pixel_has_it(sent: Callable[..., bytes]) -> None:
    partly = pixels(sent(masked_bmp(32, 20), "drawing.bmp"))
    assert np.abs(partly[-1] - (204, 102, 51)).max() <= 1  # BMP begins with the lowest row
    assert partly[0].min() == 255


@pytest.mark.parametrize("kind", ["GIF", "BMP", "AVIF"])
def test_other_kinds_the_browser_reads_are_sent_as_pixels(sent: Callable[..., bytes], kind: str) -> None:
    original = saved(kind)
    data = sent(original, f"photo.{kind.lower()}")
    assert data[8:12] == b"WEBP"
    assert np.abs(pixels(data) - pixels(original)).max() <= 2


def test_details_name_the_original_and_what_was_sent(cards: Cards) -> None:
    data = saved("JPEG", two_halves(1600, 1200), quality=95)
    card = cards.choose_files(payload("large.jpg", data))
    expect_state(card, "done")
    expect(card.locator("[data-part=original]")).to_contain_text("1600 × 1200 pixels, JPEG")
    expect(card.locator("[data-part=sent]")).to_contain_text("682 × 512 pixels")


def test_details_of_a_photo_only_the_server_reads_name_its_size(cards: Cards) -> None:
    cards.page.evaluate("() => { window.createImageBitmap = () => Promise.reject(new DOMException('No')); }")
    card = cards.choose_files(payload("photo.jpg", saved("JPEG")))
    expect_state(card, "done")
    expect(card.locator("[data-part=original]")).to_contain_text("400 × 300 pixels, JPEG")


@pytest.fixture
def tiff() -> bytes:
    """A photo of a kind that this browser cannot read."""
    return saved("TIFF", compression="tiff_lzw")


def test_photo_the_browser_cannot_read_needs_consent(cards: Cards, tiff: bytes) -> None:
    requests: list[str] = []
    cards.page.on("request", lambda request: requests.append(request.url))
    card = cards.choose_files(payload("scan.tiff", tiff, "image/tiff"))
    expect_state(card, "asking")
    expect(card.locator("[data-part=advice]")).to_contain_text(re.compile("TIFF photo.*metadata.*whole file"))
    assert not [url for url in requests if "predict" in url]
    card.get_by_role("button", name="Send the original file").click()
    expect_state(card, "done")
    expect(card.locator("[data-part=original]")).to_contain_text("400 × 300 pixels, TIFF")
    expect(card.locator("[data-part=sent]")).to_contain_text("the whole file")


def test_a_photo_that_may_not_be_sent_is_not(cards: Cards, tiff: bytes) -> None:
    requests: list[str] = []
    cards.page.on("request", lambda request: requests.append(request.url))
    card = cards.choose_files(payload("scan.tiff", tiff, "image/tiff"))
    card.get_by_role("button", name="Remove").click()
    expect(cards.all).to_have_count(0)
    assert not [url for url in requests if "predict" in url]


def rgb_profile(primaries: list[tuple[float, float]]) -> bytes:
    """Write a minimal ICC matrix profile (ICC.1:2010) with these chromaticities and a gamma of 2.2."""

    def fixed(value: float) -> bytes:
        return round(value * 65536).to_bytes(4, "big", signed=True)

    white = np.array([0.9642, 1.0, 0.8249])
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    matrix = columns * np.linalg.solve(columns, white)
    points = [white, *matrix.T]
    xyz = [b"XYZ \0\0\0\0" + b"".join(fixed(value) for value in point) for point in points]
    curve = b"curv\0\0\0\0\0\0\0\x01" + round(2.2 * 256).to_bytes(2, "big") + b"\0\0"
    tags = dict(zip([b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ"], xyz, strict=True)) | {b"rTRC": curve}
    tags |= {b"gTRC": curve, b"bTRC": curve}
    start = 128 + 4 + 12 * len(tags)
    table, body = len(tags).to_bytes(4, "big"), b""
    for name, data in tags.items():
        table += name + (start + len(body)).to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data
    header = (start + len(body)).to_bytes(4, "big") + b"\0\0\0\0\x02\x40\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + b"".join(fixed(value) for value in white)
    return header.ljust(128, b"\0") + table + body

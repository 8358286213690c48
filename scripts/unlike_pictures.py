"""Pictures that show nothing a model could know: blank ones, noise, pages of text, and drawings of lines."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = (640, 480)
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def blank(number: int) -> Image.Image:
    """Return a picture of one colour, or of a soft passage between two."""
    draw = np.random.default_rng(number)
    first, second = draw.integers(0, 256, (2, 3))
    if number % 2:
        return Image.new("RGB", SIZE, tuple(int(level) for level in first))
    slope = np.linspace(0, 1, SIZE[0])[None, :, None]
    row = first * (1 - slope) + second * slope
    return Image.fromarray(np.broadcast_to(row, (SIZE[1], SIZE[0], 3)).astype(np.uint8))


def noise(number: int) -> Image.Image:
    """Return independent pixels, uniform or normal, as squares of 1 to 16 pixels a side."""
    draw = np.random.default_rng(number)
    cell = (1, 2, 4, 8, 16)[number % 5]
    shape = (SIZE[1] // cell, SIZE[0] // cell, 3)
    levels = draw.integers(0, 256, shape) if number % 2 else np.clip(draw.normal(128, 50, shape), 0, 255)
    return Image.fromarray(levels.astype(np.uint8)).resize(SIZE, Image.Resampling.NEAREST)


def text_page(number: int) -> Image.Image:
    """Return a page of random words in dark letters on a light ground."""
    draw = random.Random(number)
    ground, ink = draw.randint(225, 255), draw.randint(0, 70)
    page = Image.new("RGB", SIZE, (ground,) * 3)
    pen, size = ImageDraw.Draw(page), draw.randint(10, 26)
    font = ImageFont.load_default(size)
    left, top = draw.randint(15, 60), draw.randint(15, 50)
    for y in range(top, SIZE[1] - top - size, round(1.5 * size)):
        line = ""
        while pen.textlength(line, font) < SIZE[0] - 2 * left - 4 * size:
            line += "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) + " "
        pen.text((left, y), line, (ink,) * 3, font)
    return page


def line_drawing(number: int) -> Image.Image:
    """Return thin straight lines, curves, boxes and ovals on white."""
    draw = random.Random(number)
    page = Image.new("RGB", SIZE, _WHITE)
    pen = ImageDraw.Draw(page)
    for _ in range(draw.randint(3, 14)):
        x0, x1 = sorted(draw.sample(range(SIZE[0]), 2))
        y0, y1 = sorted(draw.sample(range(SIZE[1]), 2))
        width = draw.randint(1, 4)
        kind = draw.randrange(4)
        if kind == 0:
            pen.line((x0, y0, x1, y1), _BLACK, width)
        elif kind == 1:
            pen.arc((x0, y0, x1, y1), draw.randrange(360), draw.randrange(360), _BLACK, width)
        elif kind == 2:
            pen.rectangle((x0, y0, x1, y1), None, _BLACK, width)
        else:
            pen.ellipse((x0, y0, x1, y1), None, _BLACK, width)
    return page


KINDS: dict[str, Callable[[int], Image.Image]] = {
    "blank pictures": blank,
    "noise": noise,
    "text pages": text_page,
    "line drawings": line_drawing,
}


def pictures(kind: str, count: int, *, first: int = 0) -> Iterator[Image.Image]:
    """Yield pictures of a kind; the same numbers give the same pictures."""
    for number in range(first, first + count):
        yield KINDS[kind](number)

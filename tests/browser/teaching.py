"""What a visitor does on the page of teaching and sees there, in a few words; and photos to teach with."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import skimage.data
from cards import MAKE_TRANSFER, encoded, payload
from conftest import open_page
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, expect
from server import Server

SIDE = 200
PICTURES = {"cat": "chelsea", "coffee": "coffee", "rocket": "rocket", "coins": "coins", "page": "page"}


@cache
def views(name: str, count: int, seed: int = 1) -> tuple[bytes, ...]:
    """Cut pieces out of a photo, each at another place and turned another way, as JPEG files."""
    with Image.fromarray(getattr(skimage.data, PICTURES[name])()) as picture:
        whole, chance = picture.convert("RGB"), np.random.default_rng(seed)
    return tuple(_view(whole, chance) for _ in range(count))


def _view(whole: Image.Image, chance: np.random.Generator) -> bytes:
    side = int(min(whole.size) * chance.uniform(0.5, 0.95))
    left, top = (int(chance.integers(0, length - side + 1)) for length in whole.size)
    piece = whole.crop((left, top, left + side, top + side)).rotate(float(chance.uniform(-35, 35)), expand=False)
    out = io.BytesIO()
    piece.resize((SIDE, SIDE)).save(out, "JPEG", quality=88)
    return out.getvalue()


def files(name: str, count: int, seed: int = 1) -> list[dict[str, object]]:
    """Describe views of a photo for a file dialog."""
    return [payload(f"{name}-{number}.jpg", data) for number, data in enumerate(views(name, count, seed), 1)]


def archive(**classes: Sequence[bytes]) -> bytes:
    """Pack photos in folders as a ZIP archive, one of them without compression."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, photos in classes.items():
            for number, data in enumerate(photos):
                packed.writestr(f"things/{name}/{number}.jpg", data, zipfile.ZIP_STORED if number == 0 else None)
            packed.writestr(f"__MACOSX/{name}/._0.jpg", b"no photo")
    return out.getvalue()


def damage(data: bytes, *names: str) -> bytes:
    """Change a byte in the middle of some entries of an archive."""
    damaged = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        for name in names:
            entry = packed.getinfo(name)
            damaged[entry.header_offset + 30 + len(name) + entry.compress_size // 2] ^= 0xFF
    return bytes(damaged)


def teaching_server(folder: Path, cache: Path) -> Server:
    """Make a real server with teaching on, whose projects and models lie in a folder."""
    return Server(folder, cache=cache, teach="on", projects=folder / "projects", models=folder / "models")


class Teaching:
    """The page of one project."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.score = page.locator("#score")
        self.selected = page.locator("#selected")
        self.undo_bar = page.locator("#undo-bar")

    @classmethod
    def begin(cls, context: BrowserContext, name: str) -> Teaching:
        """Make a project on a page of its own."""
        page = open_page(context, "teach")
        page.locator("#new-name").fill(name)
        page.get_by_role("button", name=re.compile("^(Start|开始)$")).click()
        page.locator("#project").wait_for()
        return cls(page)

    def card(self, place: int | str) -> Locator:
        """Find the card of a class by its place, from 0, or its name."""
        if isinstance(place, str):
            return self.page.locator(f'[data-drop="{place}"]')
        return self.page.locator("#cards > li").nth(place)

    def photos(self, place: int | str) -> Locator:
        """Find the photos of a class."""
        return self.card(place).locator("[data-part=photos] > [role=option]")

    def name(self, place: int | str, name: str, chinese: str = "") -> None:
        """Type the names of a class over those that it has."""
        card = self.card(place)
        if chinese:
            card.locator(".chinese-name").fill(chinese)
        card.locator(".class-name").fill(name)
        self.page.keyboard.press("Enter")
        expect(self.card(name)).to_be_visible()

    def add(self, place: int | str, *photos: dict[str, object]) -> None:
        """Choose photos for a class."""
        self.card(place).locator("input[type=file]").set_input_files(list(photos))

    def teach(self, *names: str, count: int = 8) -> None:
        """Name the first classes, and add so many photos to each."""
        for place, name in enumerate(names):
            self.name(place, name)
            self.add(name, *files(name, count))
        for name in names:
            expect(self.photos(name)).to_have_count(count)
        self.wait_for_report()

    def wait_for_report(self) -> None:
        """Wait until the accuracy is that of the photos which are shown."""
        expect(self.score).to_have_text(re.compile(r"\d"))
        expect(self.score).not_to_have_class(re.compile("outdated"))

    def drop(self, target: Locator, *dropped: dict[str, object]) -> None:
        """Drop files on an element."""
        transfer = self.page.evaluate_handle(MAKE_TRANSFER, [[encoded(file) for file in dropped], {}])
        for event in ("dragenter", "dragover", "drop"):
            target.dispatch_event(event, {"dataTransfer": transfer, "bubbles": True, "cancelable": True})

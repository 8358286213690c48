"""What a visitor does with the page and sees on it, in a few words."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from playwright.sync_api import APIResponse, BrowserContext, JSHandle, Locator, Page, Route, expect

Item = TypeVar("Item")

MAKE_TRANSFER = """([files, texts]) => {
  const transfer = new DataTransfer();
  for (const [type, text] of Object.entries(texts)) transfer.setData(type, text);
  for (const { name, type, base64 } of files) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type }));
  }
  return transfer;
}"""


class Cards:
    """The cards of a page."""

    def __init__(self, page: Page, photos: dict[str, bytes]) -> None:
        self.page = page
        self.photos = photos
        self.all = page.locator("#cards > li")

    def choose(self, *names: str) -> Locator:
        """Choose photos by the file dialog; returns the first card."""
        return self.choose_files(*[payload(f"{name}.jpg", self.photos[name]) for name in names])

    def choose_files(self, *files: dict[str, object]) -> Locator:
        """Choose files by the file dialog; returns the first card."""
        self.page.locator("#file").set_input_files(list(files))
        return self.all.first

    def drop(self, *files: dict[str, object], texts: dict[str, str] | None = None) -> None:
        """Drop files, or texts by their types, on the page."""
        self.drag(*files, texts=texts)
        self._dispatch("drop", self._dragged)

    def drag(self, *files: dict[str, object], texts: dict[str, str] | None = None) -> None:
        """Hold files, or texts by their types, over the page."""
        self._dragged = self.page.evaluate_handle(MAKE_TRANSFER, [[encoded(file) for file in files], texts or {}])
        for event in ("dragenter", "dragover"):
            self._dispatch(event, self._dragged)

    def _dispatch(self, event: str, transfer: JSHandle) -> None:
        self.page.locator("h1").dispatch_event(event, {"dataTransfer": transfer, "bubbles": True, "cancelable": True})

    def expect_names(self, *names: str) -> None:
        """Wait until the cards have these file names, from the top."""
        expect(self.all.locator("[data-part=file]")).to_have_text(names)


def payload(name: str, data: bytes, mimetype: str = "image/jpeg") -> dict[str, object]:
    """Describe a file for the file dialog."""
    return {"name": name, "mimeType": mimetype, "buffer": data}


def encoded(file: dict[str, object]) -> dict[str, str]:
    """Write a file so that a script of the page can be given it."""
    data = file["buffer"]
    assert isinstance(data, bytes)
    return {"name": str(file["name"]), "type": str(file["mimeType"]), "base64": base64.b64encode(data).decode()}


def expect_state(card: Locator, state: str, timeout: float = 15_000) -> None:
    """Wait until a card is in a state."""
    expect(card).to_have_attribute("data-state", state, timeout=timeout)


def expect_value(page: Page, expression: str, value: object = True) -> None:
    """Wait until an expression of JavaScript has a value.

    The page's own policy forbids what `wait_for_function` does, which is to evaluate text in the page.
    """
    deadline = time.monotonic() + 15
    while (found := page.evaluate(expression)) != value:
        assert time.monotonic() < deadline, f"{expression} is {found!r}, not {value!r}"
        page.wait_for_timeout(50)


def show_answers(cards: Cards) -> None:
    """Bring up one photo's answers, with all that can be unfolded."""
    card = cards.choose("coffee")
    expect_state(card, "done")
    card.locator(".eye").first.click()
    card.locator("summary").click()


def show_several(cards: Cards) -> None:
    """Bring up the answers of two photos."""
    cards.choose("coffee", "cat")
    expect(cards.page.locator("[data-state=done]")).to_have_count(2)


def serve_old_limit(context: BrowserContext) -> None:
    """Give out a page from before the server's limit was lowered to 100 bytes, which would not send otherwise."""

    def rewrite(route: Route) -> None:
        response = route.fetch()
        page = response.text()
        assert 'data-limit-bytes="100"' in page
        route.fulfill(response=response, body=page.replace('data-limit-bytes="100"', 'data-limit-bytes="10485760"'))

    context.route("**/", rewrite)


class Held(list[Item]):
    """Requests, or their answers, that are kept on their way."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page

    def wait_for(self, count: int) -> None:
        """Wait until `count` of them are held."""
        deadline = time.monotonic() + 10
        while len(self) < count and time.monotonic() < deadline:
            self._page.wait_for_timeout(20)  # in which the driver reports more
        assert len(self) == count


@contextmanager
def held_requests(page: Page, address: str | re.Pattern[str] = "**/api/v1/predict*") -> Iterator[Held[Route]]:
    """Keep all predictions, or other requests, on their way until the block ends or the test continues one."""
    held = Held[Route](page)
    is_open = False

    def hold(route: Route) -> None:
        if is_open:
            route.continue_()
        else:
            held.append(route)

    page.route(address, hold)
    yield held
    is_open = True
    for route in held:
        route.continue_()


def held_answers(page: Page, address: str) -> Held[tuple[Route, APIResponse]]:
    """Let requests reach the server from now on, but keep its answers until the test hands them to the page."""
    held = Held[tuple[Route, APIResponse]](page)
    page.route(address, lambda route: held.append((route, route.fetch())))
    return held

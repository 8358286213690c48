"""Screenshots of the page's main states for docs/screens; run by make screens.

With TOPTHREE_TEST_WEIGHTS the pictures show ResNet-18, else the packaged model and its notice.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import skimage.data
from cards import Cards, expect_state, payload
from conftest import ARGUMENTS, CHROMIUM, open_page
from film_strip import take_film_strip
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from server import ROOT, Server
from teaching import teaching_server
from unlike_pictures import text_page

from app.web.keys import Key, digest_of

FOLDER = ROOT / "docs" / "screens"
SIZES = {"phone": (360, 740), "desktop": (1280, 800)}
MAX_BYTES = 150 * 1024
SCROLL_TO = """(element) => {
  scrollTo({ top: element.getBoundingClientRect().top + scrollY - 12, behavior: 'instant' });
}"""


def first_view(cards: Cards) -> None:
    """The page before anything is given."""


def answers(cards: Cards) -> None:
    """One photo and its answers."""
    expect_state(cards.choose("coffee"), "done")


def heat_map(cards: Cards) -> None:
    """What the model looked at."""
    answers(cards)
    cards.all.first.locator(".eye").first.click()


def details(cards: Cards) -> None:
    """The details unfolded."""
    answers(cards)
    cards.all.first.locator("summary").click()


def history(cards: Cards) -> None:
    """Several photos, one still on its way."""
    cards.choose("rocket")
    cards.choose("cat", "coffee")
    expect(cards.page.locator("[data-state=done]")).to_have_count(3)


def on_its_way(cards: Cards) -> None:
    """A photo that is being sent, and others waiting."""
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 5_000}
    cards.page.context.new_cdp_session(cards.page).send("Network.emulateNetworkConditions", speed)
    cards.choose("cat", "coffee", "rocket", "cat")
    expect(cards.page.locator("[data-state=waiting]")).to_have_count(3)


def table(cards: Cards) -> None:
    """Many photos as a table."""
    history(cards)
    cards.choose_files(payload("report.pdf", b"%PDF-1.7"))
    cards.page.locator("#as-table").click()
    expect(cards.page.locator("#rows tr")).to_have_count(4)


def question(cards: Cards) -> None:
    """A photo that the browser cannot make smaller."""
    photo = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(2_000_000)
    expect_state(cards.choose_files(payload("IMG_2041.HEIC", photo, "image/heic")), "asking")


def not_a_photo(cards: Cards) -> None:
    """A file that is no photo."""
    expect_state(cards.choose_files(payload("report.pdf", b"%PDF-1.7")), "failed")


def offline(cards: Cards) -> None:
    """No connection."""
    cards.page.context.set_offline(True)
    expect(cards.page.locator("#connection")).to_be_visible()
    expect_state(cards.choose("cat"), "paused")


def key_entry(cards: Cards) -> None:
    """A server that asks for a key, and a wrong one."""
    expect_state(cards.choose("cat"), "paused")
    cards.page.locator("#access-key").fill("tt_wrong")
    cards.page.keyboard.press("Enter")
    expect(cards.page.locator("#access-error")).to_be_visible()


def sure(cards: Cards) -> None:
    """A cup of coffee, of which the packaged model is sure."""
    choose_worth(cards, "coffee", "sure")


def group(cards: Cards) -> None:
    """A cat, of which the packaged model does not know the breed."""
    choose_worth(cards, "cat", "group")


def unsure(cards: Cards) -> None:
    """A rocket from far away."""
    choose_worth(cards, "rocket", "unsure")


def unlike(cards: Cards) -> None:
    """A page of text."""
    choose_worth(cards, "text", "unlike")


def choose_worth(cards: Cards, name: str, certainty: str) -> None:
    """Choose a photo, and check that its answer is worth what the picture is to show."""
    with cards.page.expect_response("**/api/v1/predict*") as answered:
        card = cards.choose(name)
    expect_state(card, "done")
    found = answered.value.json()["certainty"]
    if found != certainty:
        raise SystemExit(f"The answer to {name} is {found}, not {certainty}.")


# Taken in both languages with the packaged model, on which all four were measured.
WORTHS: list[Callable[[Cards], None]] = [sure, group, unsure, unlike]

STATES: list[Callable[[Cards], None]] = [
    first_view,
    answers,
    heat_map,
    details,
    history,
    table,
    on_its_way,
    question,
    not_a_photo,
    offline,
]


def photos() -> dict[str, bytes]:
    """Read the CC0 photos that scikit-image ships."""
    found = {}
    for name, load in {
        "cat": skimage.data.chelsea,
        "coffee": skimage.data.coffee,
        "rocket": skimage.data.rocket,
    }.items():
        out = io.BytesIO()
        Image.fromarray(load()).save(out, "JPEG", quality=95)
        found[name] = out.getvalue()
    out = io.BytesIO()
    text_page(3).save(out, "JPEG", quality=95)
    return found | {"text": out.getvalue()}


def save(page: Page, name: str) -> None:
    """Write what is in the window as a small file."""
    with Image.open(io.BytesIO(page.screenshot(animations="disabled"))) as image:
        image.convert("RGB").save(FOLDER / f"{name}.webp", quality=86, method=6)
    size = (FOLDER / f"{name}.webp").stat().st_size
    if size > MAX_BYTES:
        raise SystemExit(f"{name}.webp has {size} bytes; the most is {MAX_BYTES}.")


def take(browser: Browser, server: Server, state: Callable[[Cards], None], options: dict[str, str]) -> None:
    """Photograph one state in one theme and language, at both sizes."""
    scheme, locale = options["color_scheme"], options["locale"]
    suffix = "" if locale == "en-GB" else "-chinese"
    for size_name, (width, height) in SIZES.items():
        window = {"width": width, "height": height}
        with browser.new_context(
            base_url=server.url, viewport=window, has_touch=size_name == "phone", **options
        ) as context:
            cards = Cards(open_page(context), photos())
            state(cards)
            cards.page.wait_for_timeout(400)
            if cards.all.count():
                target = ".answers" if state is details else "#connection:visible, #access:visible, #visit"
                place = cards.page.locator(target).first
                place.evaluate(SCROLL_TO)
            save(cards.page, f"{state.__name__.replace('_', '-')}-{size_name}-{scheme}{suffix}")


def main() -> None:
    """Take all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    weights = os.environ.get("TOPTHREE_TEST_WEIGHTS")
    with tempfile.TemporaryDirectory() as cache, sync_playwright() as playwright:
        (Path(cache) / "fallback-in-use").write_text("For screenshots.")
        settings = {"cache": cache} | ({"weights": weights} if weights else {})
        server = Server(Path(cache), **settings)
        keys = Path(cache) / "keys.txt"
        keys.write_text(f"{Key('screens', True, digest_of('tt_screens')).as_line()}\n", encoding="utf-8")
        packaged = Server(Path(cache), cache=cache)
        asking = Server(Path(cache), api_keys_file=keys, **settings)
        teaching = teaching_server(Path(cache), Path(cache))
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            teaching.start()
            for locale in ("en-GB", "zh-CN"):
                for name, (width, height) in SIZES.items():
                    take_film_strip(browser, teaching, (name, width, height), locale, save)
            server.start()
            asking.start()
            packaged.start()
            for state in WORTHS:
                for locale in ("en-GB", "zh-CN"):
                    take(browser, packaged, state, {"color_scheme": "light", "locale": locale})
            for scheme in ("light", "dark"):
                for state in STATES:
                    take(browser, server, state, {"color_scheme": scheme, "locale": "en-GB"})
                take(browser, asking, key_entry, {"color_scheme": scheme, "locale": "en-GB"})
                take(browser, server, heat_map, {"color_scheme": scheme, "locale": "zh-CN"})
        finally:
            browser.close()
            teaching.stop()
            server.stop()
            asking.stop()
            packaged.stop()
    print(f"{len(list(FOLDER.glob('*.webp')))} pictures in {FOLDER.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()

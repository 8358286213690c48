"""For everybody: keyboard, screen reader, any size, either theme, less motion, paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from cards import Cards, expect_state, expect_value, held_requests, payload, show_answers, show_several
from conftest import ARGUMENTS, CHROMIUM, open_page
from fakes import colour_png
from PIL import Image
from playwright.sync_api import BrowserContext, FileChooser, Page, Playwright, expect
from server import Server

BREAKS = """new Promise((resolve) => {
  let total = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) total += entry.value;
  }).observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => resolve(total), 500);
})"""


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}.")


def test_everything_can_be_done_with_the_keyboard(cards: Cards) -> None:
    page = cards.page
    tab_to(page, "[data-name='coffee.webp']")
    page.keyboard.press("Enter")
    expect_state(cards.all.first, "done")
    tab_to(page, ".eye")
    page.keyboard.press("Space")
    expect(cards.all.first.locator("canvas")).to_be_visible()
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    expect(cards.all.first.locator("dl")).to_be_visible()
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    expect(cards.all).to_have_count(0)
    expect(page.locator("#file")).to_be_focused()


def test_the_file_dialog_opens_from_the_keyboard(page: Page) -> None:
    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    for key in ("Enter", "Space"):
        page.locator("#file").focus()
        with page.expect_file_chooser():
            page.keyboard.press(key)
    assert [chooser.is_multiple() for chooser in choosers] == [True, True]


def test_the_first_tab_leads_past_the_header(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to choosing a photo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#file")).to_be_focused()


def test_focus_is_not_lost_when_a_button_goes(cards: Cards) -> None:
    with held_requests(cards.page):
        card = cards.choose("cat")
        card.locator("[data-part=cancel]").focus()
        cards.page.keyboard.press("Enter")
    expect_state(card, "cancelled")
    expect(card).to_be_focused()


def test_answers_and_failures_are_read_out(cards: Cards) -> None:
    expect_state(cards.choose("coffee"), "done")
    expect(
        cards.page.get_by_role("status").filter(has_text=re.compile(r"coffee\.jpg: This looks like: espresso, \d"))
    ).to_have_count(1)
    expect_state(cards.choose_files(payload("notes.txt", b"words")), "failed")
    expect(cards.page.get_by_role("status").filter(has_text="not a photo that topthree can read")).to_have_count(1)


def test_history_is_a_strip_of_thumbnails_that_one_button_clears(cards: Cards) -> None:
    cards.choose("cat", "coffee")
    expect(cards.page.locator("[data-state=done]")).to_have_count(2)
    cards.page.get_by_role("button", name=re.compile(r"^coffee\.jpg: espresso, \d")).click()
    expect(cards.all.nth(1)).to_be_focused()
    cards.page.get_by_role("button", name="Clear all").click()
    expect(cards.page.locator("#visit")).to_be_hidden()
    assert cards.page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0


def test_going_back_from_another_page_restores_the_visit(
    playwright: Playwright, server: Server, real_photos: dict[str, bytes]
) -> None:
    # Browsers keep a page that is left, unless it forbids that; Playwright turns it off.
    ignored = ["--disable-back-forward-cache"]
    with (
        playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, ignore_default_args=ignored) as browser,
        browser.new_context(base_url=server.url) as context,
    ):
        page = open_page(context)
        expect_state(Cards(page, real_photos).choose("cat"), "done")
        page.locator("a[href$=docs]").click()
        page.wait_for_url("**/docs")
        page.evaluate("history.back()")
        page.wait_for_url(server.url, wait_until="commit")  # a page that comes back does not load
        expect_value(page, "document.querySelectorAll('[data-state=done] meter').length", 3)


COUNT_ADDRESSES = """() => {
  const { createObjectURL, revokeObjectURL } = URL;
  window.addresses = new Set();
  URL.createObjectURL = (blob) => {
    const address = createObjectURL.call(URL, blob);
    addresses.add(address);
    return address;
  };
  URL.revokeObjectURL = (address) => {
    addresses.delete(address);
    revokeObjectURL.call(URL, address);
  };
}"""


def test_cleared_photos_leave_no_memory_even_if_just_prepared(cards: Cards) -> None:
    page = cards.page
    page.evaluate(COUNT_ADDRESSES)
    expect_state(cards.choose("cat"), "done")
    assert page.evaluate("addresses.size") == 1
    with held_requests(page, "**/scaler*.js") as held:
        card = cards.choose_files(payload("large.png", colour_png(8, size=(700, 600)), "image/png"))
        held.wait_for(1)
        expect_state(card, "preparing")
        page.locator("#clear").click()
    page.wait_for_timeout(500)
    assert page.evaluate("addresses.size") == 0
    expect_state(cards.choose_files(payload("large.png", colour_png(8, size=(700, 600)), "image/png")), "done")
    assert page.evaluate("addresses.size") == 1


def test_the_theme_follows_the_system_until_it_is_switched(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(ground)
    assert light != dark
    page.get_by_role("button", name="Use light colours").click()
    assert page.evaluate(ground) == light
    page.reload()
    assert page.evaluate(ground) == light
    expect(page.get_by_role("button", name="Use dark colours")).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(320, 568), (360, 740), (768, 1024), (1280, 800), (3840, 2160)])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_sticks_out_at_any_size(cards: Cards, width: int, height: int, language: str) -> None:
    cards.page.set_viewport_size({"width": width, "height": height})
    cards.page.goto(f"./?lang={language}")
    cards.page.locator("html[data-alive]").wait_for()
    show_answers(cards)
    expect_state(cards.choose_files(payload(f"{'IMG_20260314_' * 12}.txt", b"words")), "failed")
    assert cards.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    tops = "['.brand', '.tools'].map((part) => document.querySelector(part).offsetTop)"
    brand, tools = cards.page.evaluate(tops)
    assert tools == pytest.approx(brand, abs=2)  # one row


def test_a_long_name_is_cut_and_can_be_read_in_full(cards: Cards) -> None:
    name = f"{'IMG_20260314_' * 12}.jpg"
    caption = cards.choose_files(payload(name, cards.photos["cat"])).locator("[data-part=file]")
    expect(caption).to_have_attribute("title", name)
    box = caption.bounding_box()
    assert box
    assert box["height"] < 60  # two lines


def test_a_thumbnail_without_a_picture_says_why(cards: Cards) -> None:
    out = io.BytesIO()
    Image.new("RGB", (80, 60)).save(out, "TIFF")
    cards.choose_files(payload("notes.txt", b"words"), payload("scan.tiff", out.getvalue()))
    expect(cards.page.locator("#strip button")).to_have_text(["! Failed", "? Needs your consent"])
    cards.page.get_by_role("button", name="Send the original file").click()
    # A black picture is unlike all that the model knows.
    expect(cards.page.locator("#strip button")).to_have_text(["! Failed", re.compile(r"✓\s+Nothing known")])
    expect(cards.page.get_by_role("button", name="notes.txt: Failed")).to_be_visible()


def test_in_forced_colours_a_pressed_eye_looks_pressed(page: Page, cards: Cards) -> None:
    page.emulate_media(forced_colors="active")
    expect_state(cards.choose("coffee"), "done")
    cards.all.first.locator(".eye").first.click()
    page.mouse.move(0, 0)
    grounds = [
        eye.evaluate("(element) => getComputedStyle(element).backgroundColor")
        for eye in cards.all.first.locator(".eye").all()
    ]
    assert grounds[0] != grounds[1] == grounds[2]


def test_what_is_touched_is_large_enough(cards: Cards) -> None:
    cards.page.set_viewport_size({"width": 360, "height": 740})
    show_several(cards)
    for control in cards.page.locator("button:visible, nav a, label.button:visible, summary").all():
        box = control.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 40, control.evaluate("(element) => element.outerHTML")


def test_less_motion_means_none(context: BrowserContext, gated: Callable[..., Server]) -> None:
    page = open_page(context, gated().url)
    card = Cards(page, {}).choose_files(payload("red.png", colour_png(8), "image/png"))
    expect_state(card, "thinking")
    running = "document.getAnimations().filter(({ playState }) => playState === 'running').length"
    page.emulate_media(reduced_motion="no-preference")
    expect_value(page, f"{running} > 0")
    page.emulate_media(reduced_motion="reduce")
    expect_value(page, running, 0)


def test_paper_shows_photos_and_answers_only(cards: Cards) -> None:
    show_several(cards)
    cards.page.emulate_media(media="print")
    expect(cards.page.locator(".answers").first).to_be_visible()
    expect(cards.page.locator(".photo img").first).to_be_visible()
    expect(cards.page.locator("button:visible")).to_have_count(0)
    expect(cards.page.locator("#pick")).to_be_hidden()
    bar = cards.page.locator("meter").first.bounding_box()
    assert bar
    assert bar["width"] > 100


def test_paper_is_white_in_the_dark_theme_too(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Use dark colours").click()
    page.emulate_media(media="print")
    style = "(({ color, backgroundColor }) => [color, backgroundColor])(getComputedStyle(document.body))"
    assert page.evaluate(style) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]


def test_nothing_moves_while_the_page_appears_or_a_card_fills_in(context: BrowserContext, cards: Cards) -> None:
    assert cards.page.evaluate(BREAKS) < 0.01
    with held_requests(cards.page) as held:
        cards.choose("cat", "coffee")
        held.wait_for(1)
        cards.page.wait_for_timeout(700)  # what follows input at once would not count
    expect(cards.page.locator("[data-state=done]")).to_have_count(2)
    assert cards.page.evaluate(BREAKS) < 0.05

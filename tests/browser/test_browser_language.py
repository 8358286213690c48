"""The language switch: other words, and all else as it was."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cards import Cards, expect_state, held_requests, payload, show_answers
from conftest import open_page
from fakes import colour_png
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from server import Server
from test_browser_axe import STATES, problems, show_nothing, show_offline

PHOTO = payload("red.png", colour_png(8), "image/png")
# All that a reader meets, but for what differs from visit to visit.
READ_ALL = """() => {
  const page = document.body.cloneNode(true);
  page.querySelector('#page').removeAttribute('data-words');
  for (const part of page.querySelectorAll('#live, [data-part=time]')) part.textContent = '';
  return [document.title, document.documentElement.lang, page.outerHTML.replace(/blob:[^"]+/g, 'blob')];
}"""
TOP_OF_CARD = "document.querySelector('#cards > li:last-child').getBoundingClientRect().top"


def switch(page: Page, language: str) -> None:
    """Click on a language, and wait until the page speaks it."""
    page.get_by_role("link", name={"en": "English", "zh": "中文"}[language]).click()
    expect(page.locator("html")).to_have_attribute("lang", {"en": "en", "zh": "zh-Hans"}[language])


@pytest.fixture
def visit(browser: Browser, server: Server, real_photos: dict[str, bytes]) -> Iterator[Callable[[str], Cards]]:
    """Open the page for a visitor whose browser prefers a language."""
    contexts: list[BrowserContext] = []

    def open_in(locale: str) -> Cards:
        contexts.append(browser.new_context(base_url=server.url, locale=locale))
        return Cards(open_page(contexts[-1]), real_photos)

    yield open_in
    for context in contexts:
        context.close()


@pytest.mark.parametrize("show", [state for state in STATES if state is not show_offline])
def test_switched_page_equals_one_opened_in_that_language(
    visit: Callable[[str], Cards], show: Callable[[Cards], None]
) -> None:
    switched, opened = visit("en-GB"), visit("zh-CN")
    show(switched)
    switch(switched.page, "zh")
    show(opened)
    assert switched.page.evaluate(READ_ALL) == opened.page.evaluate(READ_ALL)


def test_there_and_back_nothing_has_changed(cards: Cards) -> None:
    show_answers(cards)
    before = cards.page.evaluate(READ_ALL)
    switch(cards.page, "zh")
    assert cards.page.evaluate(READ_ALL) != before
    switch(cards.page, "en")
    assert cards.page.evaluate(READ_ALL) == before


def test_a_card_that_comes_later_speaks_the_new_language(visit: Callable[[str], Cards]) -> None:
    switched, opened = visit("en-GB"), visit("zh-CN")
    show_nothing(switched)
    switch(switched.page, "zh")
    for cards in (switched, opened):
        show_answers(cards)
    assert switched.page.evaluate(READ_ALL) == opened.page.evaluate(READ_ALL)
    expect(switched.all.first.locator("h3")).to_have_text("这看起来是：意式浓缩咖啡")


def test_photos_on_their_way_arrive_in_the_new_language(cards: Cards) -> None:
    with held_requests(cards.page) as held:
        cards.choose("coffee", "cat", "rocket", "cat")
        held.wait_for(1)
        switch(cards.page, "zh")
        expect(cards.all.nth(3).locator("h3")).to_have_text("排队中…")
    expect(cards.page.locator("[data-state=done]")).to_have_count(4)
    expect(cards.all.first.locator("h3")).to_have_text("这看起来是：意式浓缩咖啡")
    expect(cards.page.locator("#count")).to_have_text("已完成 4 / 4。")


def test_the_address_stays_and_the_choice_is_remembered(cards: Cards) -> None:
    page = cards.page
    address = page.url
    switch(page, "zh")
    assert page.url == address
    assert page.evaluate("history.length") == 2  # the empty page, and this one
    page.reload()
    expect(page.locator("h1")).to_have_text("照片里是什么？")


def test_it_is_read_out_in_the_new_language(page: Page) -> None:
    switch(page, "zh")
    expect(page.locator("#live")).to_have_text("页面已切换为中文。")
    switch(page, "en")
    expect(page.locator("#live")).to_have_text("This page is in English now.")


def test_the_keyboard_stays_where_it_was(page: Page) -> None:
    link = page.get_by_role("link", name="中文")
    link.focus()
    page.keyboard.press("Enter")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(link).to_be_focused()
    expect(link).to_have_attribute("aria-current", "true")
    expect(page.locator("[aria-current]")).to_have_count(1)


def test_what_is_focused_unfolded_and_in_view_stays_so(cards: Cards) -> None:
    page = cards.page
    cards.choose("cat", "coffee")
    expect(page.locator("[data-state=done]")).to_have_count(2)
    last = cards.all.last
    last.locator("summary").click()
    last.locator(".eye").nth(1).click()
    last.get_by_label("Overlay strength").fill("40")
    last.locator(".eye").nth(1).focus()
    page.evaluate("document.querySelector('#cards > li:last-child').scrollIntoView({ behavior: 'instant' })")
    top = page.evaluate(TOP_OF_CARD)
    page.locator("a[hreflang=zh-Hans]").dispatch_event("click")  # a mouse would have to scroll up first
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    expect(last.locator(".eye").nth(1)).to_be_focused()
    expect(last.locator("[data-part=opacity]")).to_have_value("40")
    expect(last.locator("canvas")).to_have_attribute("aria-label", re.compile("热力图"))
    expect(last.locator("dl")).to_be_visible()
    assert page.evaluate(TOP_OF_CARD) == pytest.approx(top, abs=2)


def test_button_with_a_passing_message_returns_to_its_word(cards: Cards) -> None:
    show_answers(cards)
    button = cards.all.first.locator("[data-part=copyJson]")
    button.click()
    expect(button).to_have_attribute("aria-disabled", "true")
    switch(cards.page, "zh")
    expect(button).not_to_have_attribute("aria-disabled", "true")
    expect(button).to_have_text("复制 JSON")


def test_the_theme_switch_keeps_its_theme_and_changes_its_words(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Use dark colours").click()
    switch(page, "zh")
    page.get_by_role("button", name="改用浅色").click()
    page.get_by_role("button", name="改为跟随系统").click()
    expect(page.locator("html")).not_to_have_attribute("data-theme", re.compile(""))
    page.get_by_role("button", name="改用深色").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_last_click_wins(page: Page) -> None:
    with held_requests(page, re.compile(r"\?lang=")) as held:
        page.get_by_role("link", name="中文").click()
        page.get_by_role("link", name="English").click()
        held.wait_for(2)
        held.pop(1).continue_()
        expect(page.locator("#live")).to_have_text("This page is in English now.")
        with page.expect_response(re.compile(r"\?lang=zh")):
            held.pop(0).continue_()
    page.wait_for_timeout(200)
    expect(page.locator("h1")).to_have_text("What is in the photo?")


def test_a_link_still_opens_a_new_tab(context: BrowserContext, page: Page) -> None:
    with context.expect_page() as opened:
        page.get_by_role("link", name="中文").click(modifiers=["Control"])
    expect(opened.value.locator("h1")).to_have_text("照片里是什么？")
    expect(page.locator("h1")).to_have_text("What is in the photo?")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_after_a_switch(cards: Cards, scheme: str) -> None:
    cards.page.emulate_media(color_scheme=scheme)
    show_answers(cards)
    switch(cards.page, "zh")
    assert problems(cards.page) == []


def test_a_proxy_that_wants_the_visitor_to_log_in_can_say_so(page: Page) -> None:
    log_in = {"status": 403, "body": "<h1>Log in</h1>", "content_type": "text/html"}
    page.route("**/?lang=zh", lambda route: route.fulfill(**log_in))
    page.get_by_role("link", name="中文").click()
    expect(page.locator("h1")).to_have_text("Log in")


def test_while_a_proxy_misses_the_server_the_switch_waits(page: Page) -> None:
    statuses = iter([502, 503, 504])

    def miss(route: Route) -> None:
        status = next(statuses, None)
        if status:
            route.fulfill(status=status, body="Gone for a moment")
        else:
            route.continue_()

    page.route("**/?lang=zh", miss)
    page.get_by_role("link", name="中文").click()
    expect(page.locator("#connection")).to_contain_text("The server does not answer")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")


def test_while_the_server_is_gone_the_switch_waits_for_it(
    context: BrowserContext, gated: Callable[..., Server], gate: Path
) -> None:
    gate.touch()
    server = gated()
    cards = Cards(open_page(context, server.url), {})
    expect_state(cards.choose_files(PHOTO), "done")
    server.stop()
    cards.page.get_by_role("link", name="中文").click()
    expect(cards.page.locator("#connection")).to_contain_text("The server does not answer")
    server.start()
    expect(cards.page.locator("html")).to_have_attribute("lang", "zh-Hans", timeout=30_000)
    expect(cards.page.locator("#connection")).to_be_hidden()
    expect(cards.all.first.locator("h3")).to_contain_text(re.compile("母鸡|没有把握|难以确定|这看起来是"))

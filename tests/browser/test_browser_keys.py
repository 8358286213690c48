"""The page of a service that asks for keys: a key typed once, kept in memory only, with and without JavaScript."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cards import Cards, expect_state, held_requests, payload
from conftest import open_page
from fakes import colour_png
from playwright.sync_api import Browser, BrowserContext, expect
from server import Server
from test_browser_axe import problems

from app.web.keys import Key, digest_of

ALICE, MALLORY = "tt_alice-browser", "tt_mallory-browser"
PHOTO = payload("red.png", colour_png(8), "image/png")
STORED = "() => [localStorage, sessionStorage].flatMap((storage) => Object.values(storage)).join()"


@pytest.fixture
def server(gated: Callable[..., Server], gate: Path, tmp_path: Path) -> Server:
    """A server with Alice's key enabled and Mallory's disabled; its model is fake."""
    gate.touch()
    keys = [Key("alice", True, digest_of(ALICE)), Key("mallory", False, digest_of(MALLORY))]
    (tmp_path / "keys.txt").write_text("".join(f"{key.as_line()}\n" for key in keys), encoding="utf-8")
    return gated(api_keys_file=tmp_path / "keys.txt")


@pytest.fixture
def cards(context: BrowserContext) -> Cards:
    """The page, without samples of photos."""
    return Cards(open_page(context), {})


def enter(cards: Cards, key: str) -> None:
    """Type a key and press Enter."""
    cards.page.locator("#access-key").fill(key)
    cards.page.keyboard.press("Enter")


def test_a_photo_waits_for_a_key_and_goes_on_by_itself(cards: Cards) -> None:
    with held_requests(cards.page) as held:
        card = cards.choose_files(PHOTO)
        expect_state(card, "paused")
        expect(cards.page.locator("#access-key")).to_be_focused()
        assert list(held) == []
    enter(cards, ALICE)
    expect_state(card, "done")
    expect(cards.page.locator("#access")).to_be_hidden()
    expect(cards.page.locator("#file")).to_be_focused()


@pytest.mark.parametrize(
    ("key", "said"),
    [("tt_wrong", "not valid"), ("密钥", "not valid"), ("", "not valid"), (MALLORY, "disabled")],
)
def test_invalid_key_is_explained_and_can_be_replaced(cards: Cards, key: str, said: str) -> None:
    enter(cards, key)
    expect(cards.page.locator("#access-error")).to_contain_text(said)
    expect(cards.page.locator("#access-key")).to_be_focused()
    expect(cards.page.locator("#live")).to_contain_text(said)
    enter(cards, ALICE)
    expect(cards.page.locator("#access-used")).to_be_visible()
    expect_state(cards.choose_files(PHOTO), "done")


def test_a_photo_leaves_a_key_that_is_being_typed_alone(cards: Cards) -> None:
    cards.page.locator("#access-key").press_sequentially(ALICE[:5])
    card = cards.choose_files(PHOTO)
    expect_state(card, "paused")
    cards.page.keyboard.type(ALICE[5:])
    cards.page.keyboard.press("Enter")
    expect_state(card, "done")


def test_a_photo_leaves_what_was_said_of_a_key_in_place(cards: Cards) -> None:
    enter(cards, "tt_wrong")
    expect(cards.page.locator("#access-error")).to_contain_text("not valid")
    expect_state(cards.choose_files(PHOTO), "paused")
    cards.page.wait_for_timeout(300)  # in which it would be taken away
    expect(cards.page.locator("#access-error")).to_contain_text("not valid")


def test_a_key_is_kept_nowhere_but_in_memory(cards: Cards, context: BrowserContext) -> None:
    enter(cards, ALICE)
    card = cards.choose_files(PHOTO)
    expect_state(card, "done")
    card.locator("summary").click()
    assert ALICE not in cards.page.content()
    assert ALICE not in str(context.cookies()) + cards.page.url + cards.page.evaluate(STORED)
    cards.page.reload()
    expect(cards.page.locator("#access")).to_be_visible()


def test_a_key_can_be_pasted(context: BrowserContext, cards: Cards) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    cards.page.evaluate("(key) => navigator.clipboard.writeText(key)", ALICE)
    cards.page.locator("#access-key").focus()
    cards.page.keyboard.press("Control+V")
    expect(cards.page.locator("#access-key")).to_have_value(ALICE)
    expect(cards.page.locator("#message")).to_be_hidden()
    cards.page.locator("#access-use").focus()
    cards.page.keyboard.press("Control+V")
    expect(cards.page.locator("#message")).to_contain_text("No photo found there")


def test_a_key_can_be_forgotten(cards: Cards) -> None:
    enter(cards, ALICE)
    cards.page.get_by_role("button", name="Forget it").click()
    expect(cards.page.locator("#access")).to_be_visible()
    expect_state(cards.choose_files(PHOTO), "paused")


def test_a_key_outlives_a_change_of_the_language(cards: Cards) -> None:
    enter(cards, "tt_wrong")
    expect(cards.page.locator("#access-error")).to_contain_text("not valid")
    cards.page.get_by_role("link", name="中文").click()
    expect(cards.page.locator("#access-error")).to_contain_text("密钥无效")
    expect(cards.page.locator("#access-key")).to_have_value("tt_wrong")
    expect(cards.page.locator("#access-use")).to_have_text("使用此密钥")
    enter(cards, ALICE)
    expect(cards.page.locator("#access-used")).to_contain_text("正在使用你的密钥。")
    cards.page.get_by_role("link", name="English").click()
    expect(cards.page.locator("#access-used")).to_contain_text("Your key is in use.")
    expect_state(cards.choose_files(PHOTO), "done")


@pytest.fixture
def plain(browser: Browser, server: Server) -> Iterator[BrowserContext]:
    """A window that runs no script."""
    with browser.new_context(base_url=server.url, java_script_enabled=False) as context:
        yield context


@pytest.mark.parametrize(
    ("language", "key", "heading", "said"),
    [
        ("en", ALICE, "Most likely", ""),
        ("en", "tt_wrong", "This service needs a key.", "This key is not valid."),
        ("zh", "tt_wrong", "这里需要密钥。", "密钥无效"),
        ("zh", MALLORY, "该密钥已停用。", "请换一个密钥"),
    ],
)
def test_without_script_the_form_has_a_field_for_the_key(
    plain: BrowserContext, language: str, key: str, heading: str, said: str
) -> None:
    page = plain.new_page()
    page.goto(f"./?lang={language}")
    page.locator("#key").fill(key)
    page.locator("#file").set_input_files([PHOTO])
    page.locator("button.submit").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(heading)
    expect(page.locator("main")).to_contain_text(said)
    assert key not in page.content() + page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, server: Server, scheme: str) -> None:
    with browser.new_context(base_url=server.url, color_scheme=scheme, locale="zh-CN") as context:
        page = open_page(context)
        assert problems(page) == []
        page.locator("#access-key").fill("tt_wrong")
        page.locator("#access-use").click()
        expect(page.locator("#access-error")).to_be_visible()
        assert problems(page) == []
        page.locator("#access-key").fill(ALICE)
        page.locator("#access-use").click()
        expect(page.locator("#access-used")).to_be_visible()
        assert problems(page) == []

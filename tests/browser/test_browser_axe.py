"""axe finds no violation in any state of the page, in both languages and both themes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cards import (
    Cards,
    expect_state,
    held_requests,
    payload,
    serve_old_limit,
    show_answers,
    show_several,
)
from conftest import open_page
from fakes import colour_png
from playwright.sync_api import BrowserContext, Page, expect
from server import Server

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
FIND_PROBLEMS = """async () => {
  const { violations } = await axe.run(document, { resultTypes: ['violations'] });
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' | ')}`);
}"""
PHOTO = payload("red.png", colour_png(8), "image/png")
LARGE_PHOTO = payload("large.png", colour_png(8, size=(700, 600)), "image/png")

pytestmark = [
    pytest.mark.parametrize("scheme", ["light", "dark"]),
    pytest.mark.parametrize("locale", ["en-GB", "zh-CN"]),
]


@pytest.fixture
def context_options(locale: str, scheme: str) -> dict[str, object]:
    """A visitor's language and theme."""
    return {"locale": locale, "color_scheme": scheme}


def problems(page: Page) -> list[str]:
    """Let axe look at the page as it is."""
    page.evaluate(AXE)
    return page.evaluate(FIND_PROBLEMS)


def show_nothing(cards: Cards) -> None:
    expect(cards.page.locator("h1")).to_be_visible()


def show_nothing_in_a_drop(cards: Cards) -> None:
    cards.drop(texts={"text/uri-list": "https://example.com/"})
    expect(cards.page.locator("#message")).to_be_visible()


def show_failure(cards: Cards) -> None:
    expect_state(cards.choose_files(payload("notes.txt", b"words")), "failed")


def show_breakdown(cards: Cards) -> None:
    cards.page.route("**/api/v1/predict*", lambda route: route.fulfill(status=500, body="<h1>Oops</h1>"))
    expect(cards.choose("cat").locator("[data-part=retry]")).to_be_visible()


def show_overload(cards: Cards) -> None:
    problem = {"type": "/problems/overloaded", "title": "Overloaded", "status": 503, "detail": "…"}
    refusal = {"status": 503, "json": problem, "headers": {"Retry-After": "60"}}
    cards.page.route("**/api/v1/predict*", lambda route: route.fulfill(**refusal))
    expect_state(cards.choose("cat"), "paused")


def show_question(cards: Cards) -> None:
    expect_state(cards.choose_files(payload("scan.tiff", b"II*\0\x08\0\0\0" + bytes(100))), "asking")


def show_not_a_photo(cards: Cards) -> None:
    refuse_as_unknown(cards)
    expect_state(cards.choose("cat"), "failed")


def refuse_as_unknown(cards: Cards) -> None:
    """Have the server refuse what the page takes for a photo, as a newer page's server would."""
    problem = {"type": "/problems/unsupported-image", "title": "Unsupported file type", "status": 415, "detail": "…"}
    cards.page.route("**/api/v1/predict*", lambda route: route.fulfill(status=415, json=problem))


def show_cancelled(cards: Cards) -> None:
    with held_requests(cards.page):
        cards.choose("cat").locator("[data-part=cancel]").click()
    expect_state(cards.all.first, "cancelled")


def show_offline(cards: Cards) -> None:
    cards.page.context.set_offline(True)
    expect(cards.page.locator("#connection")).to_be_visible()
    expect_state(cards.choose("cat"), "paused")


def show_table(cards: Cards) -> None:
    """Bring up a table with a row of each outcome, sorted, and the question of consent above it."""
    scans = [payload(f"scan{number}.tiff", b"II*\0\x08\0\0\0" + bytes(100)) for number in (1, 2)]
    cards.choose_files(payload("coffee.jpg", cards.photos["coffee"]), payload("notes.txt", b"words"), *scans)
    expect(cards.page.locator("[data-state=done]")).to_have_count(1)
    expect(cards.page.locator("#consent")).to_be_visible()
    cards.page.locator("#as-table").click()
    expect(cards.page.locator("#rows tr")).to_have_count(4)  # before its script has come a click would be lost
    cards.page.locator("[data-sort=file]").click()
    expect(cards.page.locator("[aria-sort=ascending]")).to_have_count(1)


def show_part(cards: Cards) -> None:
    """Bring up the square of another part of a photo, all answers, and the names that the model knows."""
    card = cards.choose("coffee")
    expect_state(card, "done")
    card.locator("[data-part=more]").click()
    card.locator("[data-part=otherPart]").click()
    cards.page.locator("#classes summary").click()
    expect(cards.page.locator("#class-said")).to_contain_text("1000")
    cards.page.locator("#class-query").fill("owl")
    expect(cards.page.locator("#class-list li")).to_have_count(5)


STATES = [
    show_nothing,
    show_nothing_in_a_drop,
    show_answers,
    show_several,
    show_failure,
    show_breakdown,
    show_overload,
    show_question,
    show_not_a_photo,
    show_cancelled,
    show_table,
    show_part,
    show_offline,
]


@pytest.mark.parametrize("show", STATES)
def test_axe_finds_nothing(cards: Cards, show: Callable[[Cards], None]) -> None:
    show(cards)
    assert problems(cards.page) == []


def test_axe_finds_nothing_while_a_photo_is_made_ready(cards: Cards) -> None:
    with held_requests(cards.page, "**/scaler*.js") as held:
        card = cards.choose_files(LARGE_PHOTO)
        held.wait_for(1)
        expect_state(card, "preparing")
        assert problems(cards.page) == []


def test_axe_finds_nothing_while_photos_are_on_their_way(cards: Cards) -> None:
    with held_requests(cards.page) as held:
        cards.choose("cat", "coffee", "rocket", "cat")
        held.wait_for(1)
        expect(cards.page.locator("[data-state=sending]")).to_have_count(1)
        expect(cards.page.locator("[data-state=waiting]")).to_have_count(3)
        assert problems(cards.page) == []


def test_axe_finds_nothing_while_an_answer_takes_long(cards: Cards) -> None:
    cards.page.clock.install()
    with held_requests(cards.page) as held:
        card = cards.choose("cat")
        held.wait_for(1)
        cards.page.clock.run_for(7000)
        expect(card.locator("[data-part=advice]")).to_be_visible()
        cards.page.clock.resume()
        assert problems(cards.page) == []


def test_axe_finds_nothing_while_the_model_loads(context: BrowserContext, gated: Callable[..., Server]) -> None:
    cards = Cards(open_page(context, gated().url), {})
    card = cards.choose_files(PHOTO)
    expect_state(card, "thinking")
    expect(card.locator("[data-part=advice]")).to_be_visible()
    expect(cards.page.locator("#loading")).to_be_visible()
    assert problems(cards.page) == []


def test_axe_finds_nothing_while_the_server_is_gone(
    context: BrowserContext, gated: Callable[..., Server], gate: Path
) -> None:
    gate.touch()
    server = gated()
    cards = Cards(open_page(context, server.url), {})
    server.stop()
    expect_state(cards.choose_files(PHOTO), "paused")
    expect(cards.page.locator("#connection")).to_be_visible()
    assert problems(cards.page) == []


def test_axe_finds_nothing_when_the_server_refuses_a_large_photo(
    context: BrowserContext, gated: Callable[..., Server], gate: Path
) -> None:
    gate.touch()
    server = gated(max_upload_bytes=100)
    serve_old_limit(context)
    cards = Cards(open_page(context, server.url), {})
    with cards.page.expect_response("**/api/v1/predict*") as response:
        card = cards.choose_files(PHOTO)
    assert response.value.status == 413
    expect_state(card, "failed")
    assert problems(cards.page) == []


def test_axe_finds_nothing_on_the_plain_pages(context: BrowserContext, real_photos: dict[str, bytes]) -> None:
    page = context.new_page()
    for address in ("problems/too-large", "nothing/here"):
        page.goto(address)
        assert problems(page) == []
    page.locator("#file").set_input_files([payload("cat.jpg", real_photos["cat"])])
    page.locator(".submit").click()
    page.locator(".answers").wait_for()
    assert problems(page) == []

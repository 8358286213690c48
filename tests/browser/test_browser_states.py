"""What can go wrong, each with a card that says so and, where it can, goes on by itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cards import Cards, expect_state, held_requests, payload, serve_old_limit
from conftest import open_page
from fakes import colour_png, encode
from lacking import ended_early, lacking, large, whole
from pictures import cat, filled
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Route, expect
from server import Server
from test_browser_axe import refuse_as_unknown

PHOTO = payload("red.png", colour_png(8), "image/png")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[Server], Cards]]:
    """Open the page of a server."""
    contexts: list[BrowserContext] = []

    def open_at(server: Server) -> Cards:
        contexts.append(browser.new_context(base_url=server.url, locale="en-GB"))
        return Cards(open_page(contexts[-1]), {})

    yield open_at
    for context in contexts:
        context.close()


def test_page_says_that_the_model_loads_and_goes_on_by_itself(
    gated: Callable[..., Server], visit: Callable[[Server], Cards], gate: Path
) -> None:
    cards = visit(gated())
    expect(cards.page.locator("#loading")).to_contain_text("still loading")
    card = cards.choose_files(PHOTO)
    expect(card.locator("[data-part=advice]")).to_contain_text("The model is still loading")
    gate.touch()
    expect_state(card, "done")
    expect(cards.page.locator("#loading")).to_have_count(0)


def test_a_model_that_cannot_load_yet_is_asked_again(
    gated: Callable[..., Server], visit: Callable[[Server], Cards], gate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE_REFUSES", "1")
    cards = visit(gated())
    card = cards.choose_files(PHOTO)
    expect_state(card, "paused")
    expect(card.locator("h3")).to_contain_text("The model is still loading")
    gate.touch()
    expect_state(card, "done", timeout=30_000)


def test_a_server_that_goes_and_comes_back_is_waited_for(
    gated: Callable[..., Server], visit: Callable[[Server], Cards], gate: Path
) -> None:
    gate.touch()
    server = gated()
    cards = visit(server)
    server.stop()
    card = cards.choose_files(PHOTO)
    expect_state(card, "paused")
    expect(cards.page.locator("#connection")).to_contain_text("The server does not answer")
    server.start()
    expect_state(card, "done", timeout=30_000)
    expect(cards.page.locator("#connection")).to_be_hidden()


def test_a_visitor_who_is_offline_is_told_and_waited_for(context: BrowserContext, cards: Cards) -> None:
    context.set_offline(True)
    expect(cards.page.locator("#connection")).to_contain_text("You are offline")
    card = cards.choose("cat")
    expect_state(card, "paused")
    context.set_offline(False)
    expect_state(card, "done")
    expect(cards.page.locator("#connection")).to_be_hidden()


def test_an_answer_as_the_network_goes_down_is_not_the_last(context: BrowserContext, cards: Cards) -> None:
    late_answers = iter([200])

    def answer_once(route: Route) -> None:
        route.fulfill(status=status) if (status := next(late_answers, None)) else route.abort("internetdisconnected")

    cards.page.route("**/healthz", answer_once)
    context.set_offline(True)
    expect(cards.page.locator("#connection")).to_contain_text("You are offline")


def test_a_server_with_too_much_to_do_is_asked_again(cards: Cards) -> None:
    problem = {"type": "/problems/overloaded", "title": "Overloaded", "status": 503, "detail": "…"}
    refusals = iter([True])

    def refuse_once(route) -> None:
        if next(refusals, False):
            route.fulfill(status=503, json=problem, headers={"Retry-After": "1"})
        else:
            route.continue_()

    cards.page.route("**/api/v1/predict*", refuse_once)
    card = cards.choose("cat")
    expect(card.locator("h3")).to_contain_text("Trying again automatically")
    expect_state(card, "done")


def test_what_is_left_of_a_rate_limit_counts_down(cards: Cards) -> None:
    problem = {"type": "/problems/rate-limited", "title": "Rate limited", "status": 429, "detail": "…"}
    refusals = iter([True])

    def refuse_once(route) -> None:
        if next(refusals, False):
            route.fulfill(status=429, json=problem, headers={"Retry-After": "3"})
        else:
            route.continue_()

    cards.page.route("**/api/v1/predict*", refuse_once)
    card = cards.choose("cat")
    expect(card.locator("h3")).to_contain_text("Continues automatically in 3")
    expect(card.locator("h3")).to_contain_text("Continues automatically in 1")
    expect_state(card, "done")


def test_page_of_a_proxy_is_not_taken_for_an_answer(cards: Cards) -> None:
    cards.page.route("**/api/v1/predict*", lambda route: route.fulfill(status=500, body="<h1>Oops</h1>"))
    card = cards.choose("cat")
    expect(card.locator("h3")).to_have_text("Something went wrong on our side.")
    cards.page.unroute("**/api/v1/predict*")
    card.get_by_role("button", name="Try again").click()
    expect_state(card, "done")


def test_problem_that_is_new_to_the_page_is_a_failure_too(cards: Cards) -> None:
    problem = {"type": "/problems/of-a-newer-server", "title": "New", "status": 422, "detail": "…"}
    cards.page.route("**/api/v1/predict*", lambda route: route.fulfill(status=422, json=problem))
    card = cards.choose("cat")
    expect(card.locator("h3")).to_have_text("Something went wrong on our side.")
    expect_state(card, "failed")


def test_a_photo_that_arrived_too_slowly_can_be_sent_again(cards: Cards) -> None:
    problem = {"type": "/problems/request-timeout", "title": "Request timeout", "status": 408, "detail": "…"}
    cards.page.route("**/api/v1/predict*", lambda route: route.fulfill(status=408, json=problem))
    card = cards.choose("cat")
    expect(card.locator("h3")).to_have_text("The photo arrived too slowly.")
    cards.page.unroute("**/api/v1/predict*")
    card.get_by_role("button", name="Try again").click()
    expect_state(card, "done")


def noise_tiff() -> bytes:
    """Make a file over the limit that the browser cannot make smaller."""
    out = io.BytesIO()
    Image.effect_noise((3400, 3300), 80).save(out, "TIFF")
    return out.getvalue()


def test_a_file_over_the_limit_is_refused_before_it_is_sent(cards: Cards) -> None:
    card = cards.choose_files(payload("scan.tiff", noise_tiff(), "image/tiff"))
    expect(card.locator("h3")).to_have_text("The photo is too large.")
    expect(card.locator("[data-part=advice]")).to_contain_text("The limit is 10 MiB")


def test_the_servers_413_is_explained(gated: Callable[..., Server], browser: Browser, gate: Path) -> None:
    gate.touch()
    server = gated(max_upload_bytes=100)
    context = browser.new_context(base_url=server.url)
    serve_old_limit(context)
    cards = Cards(open_page(context), {})
    with cards.page.expect_response("**/api/v1/predict*") as response:
        card = cards.choose_files(PHOTO)
    assert response.value.status == 413
    expect(card.locator("h3")).to_have_text("The photo is too large.")
    context.close()


def test_over_the_limit_a_grey_edge_or_few_scans_are_refused(
    gated: Callable[..., Server], visit: Callable[[Server], Cards], gate: Path
) -> None:
    gate.touch()
    cards = visit(gated(max_upload_bytes=600_000))
    photo = cat(3000, 2400)
    grey_corner = photo.copy()
    grey_corner.paste("#808080", (0, 2000, 1500, 2400))
    files = {
        "early": ended_early(encode(photo, "JPEG", quality=98)),
        "few_scans": ended_early(encode(photo, "JPEG", quality=98, progressive=True)),
        "grey_corner": encode(grey_corner, "JPEG", quality=98),
        "whole": encode(photo, "JPEG", quality=98),
    }
    assert min(map(len, files.values())) > 600_000
    cards.choose_files(*[payload(name, data) for name, data in files.items()])
    expect(cards.page.locator("#cards > [data-state=done]")).to_have_count(2, timeout=60_000)
    refused = cards.all.filter(has=cards.page.get_by_role("heading", name="The photo is too large."))
    expect(refused.locator("[data-part=file]")).to_have_text(["early", "few_scans"])


@pytest.mark.parametrize(
    ("name", "data", "title"),
    [
        ("notes.jpg", b"These are words, not a photo.", "This file is not a photo that topthree can read."),
        ("paper.pdf", b"%PDF-1.7 and so on", "This file is not a photo that topthree can read."),
        ("empty.jpg", b"", "No photo found there."),
    ],
)
def test_what_is_no_photo_is_not_even_sent(cards: Cards, name: str, data: bytes, title: str) -> None:
    with held_requests(cards.page) as held:
        card = cards.choose_files(payload(name, data))
        expect_state(card, "failed")
        assert list(held) == []
    expect(card.locator("h3")).to_have_text(title)
    expect(card.get_by_role("button", name="Try again")).to_be_hidden()
    expect(card.get_by_role("button", name="Remove")).to_be_visible()


def test_the_servers_415_is_explained(cards: Cards) -> None:
    refuse_as_unknown(cards)
    card = cards.choose("cat")
    expect(card.locator("h3")).to_have_text("This kind of JPEG file cannot be read.")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_photo_that_was_cut_short_is_explained(cards: Cards, share: float) -> None:
    data = cards.photos["coffee"][: int(len(cards.photos["coffee"]) * share)]
    card = cards.choose_files(payload("cut.jpg", data))
    expect(card.locator("h3")).to_have_text("The photo is damaged.")


def test_photos_that_lack_pixels_are_damaged_and_no_others(cards: Cards) -> None:
    files = lacking() | {f"whole_{name}": data for name, data in whole().items()}
    cards.choose_files(*[payload(name, data) for name, data in files.items()])
    settled = cards.page.locator("#cards > :is([data-state=done], [data-state=failed])")
    expect(settled).to_have_count(len(files), timeout=60_000)
    damaged = cards.all.filter(has=cards.page.get_by_role("heading", name="The photo is damaged."))
    expect(damaged.locator("[data-part=file]")).to_have_text(list(lacking()))


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_an_avif_that_ends_in_filling_is_sent_only_as_it_is(cards: Cards, filling: bytes) -> None:
    card = cards.choose_files(payload("cut.avif", filled(large("AVIF"), 0.6, filling)))
    expect(card.locator("h3")).to_have_text("Send the original file?")
    card.get_by_role("button", name="Send").click()
    expect(card.locator("h3")).to_have_text("The photo is damaged.")


def test_photo_cut_short_in_its_first_bytes_is_explained(cards: Cards) -> None:
    card = cards.choose_files(payload("cut.jpg", cards.photos["coffee"][:12]))
    expect(card.locator("h3")).to_have_text("The photo is damaged.")


def test_a_slow_connection_is_named(cards: Cards, context: BrowserContext) -> None:
    cards.page.clock.install()
    with held_requests(cards.page) as held:
        card = cards.choose("cat")
        held.wait_for(1)
        cards.page.clock.run_for(7000)
        expect(card.locator("[data-part=advice]")).to_have_text(
            "This is taking longer than usual. Still working; nothing is lost."
        )


def test_one_bad_photo_does_not_hold_up_the_others(cards: Cards) -> None:
    cards.choose_files(
        payload("notes.txt", b"words"),
        payload("cat.jpg", cards.photos["cat"]),
        payload("cut.jpg", cards.photos["cat"][:3000]),
    )
    for index, state in enumerate(["failed", "done", "failed"]):
        expect_state(cards.all.nth(index), state)


def test_nothing_turns_once_all_is_settled(cards: Cards) -> None:
    cards.choose_files(payload("notes.txt", b"words"), payload("cat.jpg", cards.photos["cat"]))
    expect_state(cards.all.nth(1), "done")
    expect(cards.page.locator("progress:visible")).to_have_count(0)

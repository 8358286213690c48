"""Photos like this: those of the service's index, under an answer, by keyboard, on a phone, in both languages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cards import Cards, expect_state, expect_value
from conftest import open_page
from fakes import fake_model, make_classifier
from indexes import ColourEngine, index_photos
from playwright.sync_api import BrowserContext, Locator, expect
from server import Server
from test_browser_axe import problems

from app.web.keys import Key, digest_of

KEY = "tt_alike-browser"
SHOWN = "document.querySelectorAll('[data-part=alikeList] img')[%d].naturalWidth > 0"
IS_WIDE = "document.documentElement.scrollWidth > innerWidth"


@pytest.fixture(scope="module", params=[False, True], ids=["open", "keys"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_photos: dict[str, bytes]
) -> Iterator[Server]:
    """A server with an index of three photos, which asks for keys or does not."""
    folder = tmp_path_factory.mktemp("alike")
    classifier = make_classifier(lambda: fake_model(ColourEngine()))
    index_photos(folder / "lib", classifier, {f"trip/{name}.jpg": photo for name, photo in real_photos.items()})
    settings: dict[str, object] = {"index": folder / "lib"}
    if request.param:
        settings["api_keys_file"] = folder / "keys.txt"
        (folder / "keys.txt").write_text(f"{Key('ann', True, digest_of(KEY)).as_line()}\n", encoding="utf-8")
    server = Server(folder, "alike_app:create()", **settings)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def context_options() -> dict[str, object]:
    """A phone."""
    return {"viewport": {"width": 360, "height": 740}, "has_touch": True}


@pytest.fixture
def cards(context: BrowserContext, real_photos: dict[str, bytes]) -> Cards:
    """The page, with the key if it asks for one."""
    page = open_page(context)
    if page.locator("#access").is_visible():
        page.locator("#access-key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#access-used")).to_be_visible()
    return Cards(page, real_photos)


def answered(cards: Cards) -> Locator:
    """Choose the photo of a cup of coffee, and return the button of its card."""
    card = cards.choose("coffee")
    expect_state(card, "done")
    return card.locator("[data-part=alike]")


def test_the_nearest_photos_are_shown_first(cards: Cards) -> None:
    button, page = answered(cards), cards.page
    expect(button).to_have_attribute("aria-expanded", "false")
    button.focus()
    page.keyboard.press("Enter")
    found = page.locator("[data-part=alikeList] > li")
    expect(found).to_have_count(3)
    expect(found.first).to_contain_text("coffee.jpg")
    expect(found.first).to_contain_text("similarity 1.00")
    assert "trip" not in page.locator("[data-part=alikePanel]").inner_text()
    for place, image in enumerate(found.locator("img").all()):
        image.scroll_into_view_if_needed()
        expect_value(page, SHOWN % place)
    expect(button).to_have_attribute("aria-expanded", "true")
    assert not page.evaluate(IS_WIDE)
    assert problems(page) == []
    page.keyboard.press("Enter")
    expect(found.first).to_be_hidden()
    expect(button).to_have_attribute("aria-expanded", "false")


def test_its_words_follow_the_language(cards: Cards) -> None:
    button, page = answered(cards), cards.page
    button.click()
    expect(page.locator("[data-part=alikeSaid]")).to_have_text("3 photos, the most similar first")
    page.get_by_role("link", name="中文").click()
    expect(button).to_have_text("相似的照片")
    expect(page.locator("[data-part=alikeSaid]")).to_have_text("3 张照片，最相似的在前")
    expect(page.locator("[data-part=alikeList] > li").first).to_contain_text("相似度 1.00")


def test_a_failure_is_explained_and_can_be_tried_again(cards: Cards) -> None:
    button, page = answered(cards), cards.page
    problem = {"type": "/problems/index-unavailable", "title": "…", "status": 503, "detail": "…"}
    page.route("**/api/v1/search?*", lambda route: route.fulfill(status=503, json=problem))
    button.click()
    expect(page.locator("[data-part=alikeSaid]")).to_contain_text("cannot be searched right now")
    page.unroute("**/api/v1/search?*")
    button.click()
    button.click()
    expect(page.locator("[data-part=alikeList] > li")).to_have_count(3)

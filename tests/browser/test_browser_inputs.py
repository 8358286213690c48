"""Every way to give the page a photo, alone and several at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cards import Cards, expect_state, held_requests, payload
from conftest import open_page
from fakes import colour_png
from playwright.sync_api import BrowserContext, Page, expect
from server import Server

from app.photos import clutter


def test_a_chosen_photo_becomes_a_card_with_three_answers(cards: Cards) -> None:
    card = cards.choose("coffee")
    expect_state(card, "done")
    expect(card.locator(".answers > li")).to_have_count(3)
    expect(card.locator("h3")).to_have_text("This looks like: espresso")
    expect(card.get_by_role("img", name="Your photo coffee.jpg")).to_be_visible()


def test_the_same_photo_can_be_chosen_twice(cards: Cards) -> None:
    cards.choose("cat")
    cards.choose("cat")
    expect(cards.all).to_have_count(2)


def test_a_photo_can_be_dropped_anywhere(cards: Cards) -> None:
    cards.drop(payload("dropped.jpg", cards.photos["cat"]))
    expect_state(cards.all.first, "done")
    expect(cards.page.locator("#drop-now")).to_be_hidden()


def test_the_page_says_drop_while_a_photo_hovers(cards: Cards) -> None:
    cards.drag(payload("cat.jpg", cards.photos["cat"]))
    expect(cards.page.locator("#drop-now")).to_be_visible()
    cards.page.locator("h1").dispatch_event("dragleave")
    expect(cards.page.locator("#drop-now")).to_be_hidden()


def test_a_drag_that_ends_without_a_word_lifts_the_veil(cards: Cards) -> None:
    cards.drag(payload("cat.jpg", cards.photos["cat"]))
    expect(cards.page.locator("#drop-now")).to_be_visible()
    expect(cards.page.locator("#drop-now")).to_be_hidden()


def test_text_that_is_dragged_raises_no_veil(cards: Cards) -> None:
    cards.drag(texts={"text/plain": "words"})
    expect(cards.page.locator("#drop-now")).to_be_hidden()


@pytest.mark.parametrize(
    ("address", "said"),
    [("https://example.com/", "No photo found there"), ("file:///home/me/cat.jpg", "Use the button “Choose a photo”")],
)
def test_drop_without_a_file_is_answered_with_a_sentence(cards: Cards, address: str, said: str) -> None:
    cards.page.evaluate("scrollTo({ top: 9999, behavior: 'instant' })")
    cards.drop(texts={"text/uri-list": address})
    expect(cards.page.locator("#message")).to_contain_text(said)
    expect(cards.page.locator("#message")).to_be_in_viewport()
    cards.choose("cat")
    expect(cards.page.locator("#message")).to_be_hidden()


def test_a_folder_is_read_with_what_is_in_it(cards: Cards, tmp_path: Path) -> None:
    folders = clutter._FOLDERS | {"__MACOSX", "@eaDir"}
    clutter_in = [f"{folder}/c{number}.jpg" for number, folder in enumerate(sorted(folders))]
    for name in ("b.jpg", "a10.JPG", "a9.jpg", "day2/c.jpg", ".hidden.jpg", "notes.txt", *clutter_in):
        (tmp_path / "trip" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "trip" / name).write_bytes(cards.photos["cat"])
    drag_from_disk(cards.page, tmp_path / "trip")
    expect(cards.page.locator("[data-state=done]")).to_have_count(4)
    cards.expect_names("a9.jpg", "a10.JPG", "b.jpg", "c.jpg")


def drag_from_disk(page: Page, *paths: Path) -> None:
    """Drop files and folders as a file manager would."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})


def test_the_pages_own_picture_is_not_classified_again(cards: Cards) -> None:
    card = cards.choose("cat")
    expect_state(card, "done")
    box = card.locator(".photo img").bounding_box()
    assert box
    mouse, x, y = cards.page.mouse, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    mouse.move(x, y)
    mouse.down()
    mouse.move(x + 40, y + 30, steps=4)
    expect(cards.page.locator("#drop-now")).to_be_hidden()
    mouse.up()
    expect(cards.all).to_have_count(1)


def test_a_computers_camera_takes_a_photo(context: BrowserContext, page: Page, cards: Cards) -> None:
    context.grant_permissions(["camera"])
    page.get_by_role("button", name="Use the camera").click()
    expect(page.locator("#viewfinder")).not_to_have_js_property("videoWidth", 0)
    page.get_by_role("button", name="Take the photo").click()
    expect_state(cards.all.first, "done")
    assert page.evaluate("document.getElementById('viewfinder').srcObject") is None


@pytest.mark.parametrize(
    ("typed", "said", "first"),
    [
        ("tabby", "1 name matches.", "tabby"),
        ("猫头鹰", "No name matches", None),
        ("sieve", "1 name matches.", "strainer"),
        ("tabby cat", "names match.", "tabby"),
        ("shark", "names match.", "great white shark"),
        ("car", "names match.", "car mirror"),
    ],
)
def test_the_names_that_the_model_knows_can_be_searched(page: Page, typed: str, said: str, first: str | None) -> None:
    page.get_by_text("Does it know what I have in mind?").click()
    expect(page.locator("#class-said")).to_have_text("It knows 1000 names.")
    page.get_by_label("Search all names").fill(typed)
    expect(page.locator("#class-said")).to_contain_text(said)
    if first is not None:
        expect(page.locator("#class-list li").first).to_have_text(re.compile(f"^{first}\\b"))


COPY_PICTURE = """async () => {
  const canvas = Object.assign(document.createElement('canvas'), { width: 80, height: 60 });
  canvas.getContext('2d').fillRect(0, 0, 40, 60);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
  await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
}"""


def test_a_picture_on_the_clipboard_can_be_pasted(context: BrowserContext, cards: Cards) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    cards.page.evaluate(COPY_PICTURE)
    cards.page.keyboard.press("Control+V")
    expect_state(cards.all.first, "done")
    expect(cards.all.first.locator("[data-part=file]")).to_have_text("image.png")


def test_a_photo_chosen_before_the_script_arrives_is_not_lost(
    context: BrowserContext, real_photos: dict[str, bytes]
) -> None:
    page = context.new_page()
    with held_requests(page, re.compile(r"/js/")):
        page.goto("./", wait_until="commit")
        page.locator("#file").set_input_files([payload("early.jpg", real_photos["cat"])])
    expect_state(page.locator("#cards > li"), "done")


@pytest.mark.parametrize(("name", "answer"), [("cat", "Egyptian cat"), ("coffee", "espresso"), ("rocket", "missile")])
def test_a_sample_is_one_tap_away(cards: Cards, name: str, answer: str) -> None:
    cards.page.locator(f"[data-name='{name}.webp']").click()
    expect_state(cards.all.first, "done")
    expect(cards.all.first.locator(".name").first).to_contain_text(answer)


def test_sample_that_cannot_be_fetched_can_be_tried_again(page: Page, cards: Cards) -> None:
    page.route("**/coffee.webp", lambda route: route.fulfill(status=404))
    page.locator("[data-name='coffee.webp']").click()
    expect(page.locator("#message")).to_contain_text("Something went wrong on our side.")
    page.unroute("**/coffee.webp")
    page.locator("[data-name='coffee.webp']").click()
    expect_state(cards.all.first, "done")
    expect(page.locator("#message")).to_be_hidden()


def test_the_samples_are_credited(page: Page) -> None:
    expect(page.locator("footer")).to_contain_text("Stéfan van der Walt")


def test_several_photos_become_cards_in_order_newest_on_top(cards: Cards) -> None:
    cards.choose("rocket")
    cards.choose("cat", "coffee")
    cards.expect_names("cat.jpg", "coffee.jpg", "rocket.jpg")
    for index in range(3):
        expect_state(cards.all.nth(index), "done")


def test_photos_leave_one_after_another(cards: Cards) -> None:
    with held_requests(cards.page) as held:
        cards.choose("cat", "coffee", "rocket", "cat", "coffee")
        held.wait_for(1)
        expect(cards.page.locator("[data-state=sending]")).to_have_count(1)
        expect(cards.page.locator("[data-state=waiting]")).to_have_count(4)
        held.pop(0).continue_()  # of whichever card was scaled down first
        expect(cards.page.locator("[data-state=done]")).to_have_count(1)
        expect(cards.page.locator("#count")).to_have_text("1 of 5 done. ")
        held.wait_for(1)
    expect(cards.page.locator("[data-state=done]")).to_have_count(5)


def test_three_photos_at_most_wait_for_their_answers(context: BrowserContext, gated: Callable[..., Server]) -> None:
    cards = Cards(open_page(context, gated().url), {})
    photo = payload("red.png", colour_png(8), "image/png")
    cards.choose_files(*[photo] * 5)
    expect(cards.page.locator("[data-state=thinking]")).to_have_count(3)
    expect(cards.page.locator("[data-state=waiting]")).to_have_count(2)


def test_a_card_can_be_cancelled_and_tried_again(cards: Cards) -> None:
    with held_requests(cards.page):
        card = cards.choose("cat")
        card.get_by_role("button", name="Cancel").click()
        expect_state(card, "cancelled")
    card.get_by_role("button", name="Try again").click()
    expect_state(card, "done")


def test_cancelling_a_waiting_card_sends_nothing_for_it(cards: Cards) -> None:
    with held_requests(cards.page) as held:
        cards.choose("cat", "coffee")
        held.wait_for(1)
        last = cards.page.locator("[data-state=waiting]")
        expect(last).to_have_count(1)
        last.get_by_role("button", name="Cancel").click()
        expect(cards.page.locator("[data-state=cancelled]")).to_have_count(1)
        held.pop(0).continue_()
        expect(cards.page.locator("[data-state=done]")).to_have_count(1)
        assert list(held) == []


def test_cancelling_while_a_part_is_cut_out_frees_the_queue(cards: Cards) -> None:
    card = cards.choose("coffee")
    expect_state(card, "done")
    with held_requests(cards.page, "**/js/later/cut.js"):
        card.locator("[data-part=otherPart]").click()
        card.locator("[data-part=usePart]").click()
        for _ in range(2):  # as many photos as are worked on at once
            card.get_by_role("button", name="Cancel").click()
            card.get_by_role("button", name="Try again").click()
        card.get_by_role("button", name="Cancel").click()
    expect_state(card, "cancelled")
    expect_state(cards.choose("cat"), "done")


def test_a_removed_card_leaves_the_page(cards: Cards) -> None:
    cards.choose("cat", "coffee")
    expect(cards.page.locator("[data-state=done]")).to_have_count(2)
    cards.all.first.get_by_role("button", name="Remove").click()
    cards.expect_names("coffee.jpg")
    expect(cards.all.first).to_be_focused()


def test_a_slow_upload_shows_how_far_it_is(cards: Cards, context: BrowserContext) -> None:
    slow = context.new_cdp_session(cards.page)
    speed = {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 30_000}
    slow.send("Network.emulateNetworkConditions", speed)
    card = cards.choose("coffee")
    expect(card.locator("h3")).to_have_text(re.compile(r"^Sending… \d{1,2}%$"))
    expect(card.locator("progress")).to_be_visible()
    expect_state(card, "done", timeout=30_000)
    expect(card.locator("progress")).to_be_hidden()


@pytest.mark.parametrize(("has_touch", "shown"), [(True, True), (False, False)])
def test_a_phone_has_a_camera_button_beside_the_gallery(
    context: BrowserContext, page: Page, has_touch: bool, shown: bool
) -> None:
    if has_touch:
        touch = context.new_cdp_session(page)
        features = [{"name": "any-pointer", "value": "coarse"}]
        touch.send("Emulation.setEmulatedMedia", {"features": features})
        touch.send("Emulation.setTouchEmulationEnabled", {"enabled": True})
    expect(page.get_by_text("Take a photo")).to_be_visible(visible=shown)
    expect(page.locator("#camera")).to_have_attribute("capture", "environment")
    assert page.locator("#file").get_attribute("capture") is None


def test_a_kind_that_cannot_be_read_is_named(cards: Cards) -> None:
    lossless = b"\xff\xd8\xff\xf7\x00\x0b\x08\x00\x10\x00\x10\x01\x01\x11\x00" + bytes(200) + b"\xff\xd9"
    card = cards.choose_files(payload("scan.jls", lossless))
    expect_state(card, "failed")
    expect(card.locator("h3")).to_have_text("This kind of JPEG file cannot be read.")
    expect(card.locator("[data-part=advice]")).to_contain_text("save a copy as JPEG or PNG")

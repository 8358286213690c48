"""Many photos: the table, downloads, one consent for all; and what the server draws for the browser."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from cards import Cards, expect_state, payload
from pictures import DATA
from playwright.sync_api import Locator, Page, expect

HEIC = (DATA / "drawn.heic").read_bytes()


@pytest.fixture
def table(cards: Cards) -> Locator:
    """The rows of three photos that are answered and a file that is none, as a table."""
    files = [payload(f"{name}.jpg", cards.photos[name]) for name in ("coffee", "cat", "rocket")]
    cards.choose_files(*files, payload("=1+1.txt", b"words"))
    expect(cards.page.locator("#count")).to_have_text("4 of 4 done. ")
    cards.page.get_by_role("button", name="Table").click()
    rows = cards.page.locator("#rows tr")
    expect(rows).to_have_count(4)
    return rows


def expect_column(table: Locator, part: str, texts: list[str]) -> None:
    """Wait until a column reads so from the top."""
    expect(table.locator(f"[data-part={part}]")).to_have_text(texts)


def test_the_table_says_what_the_cards_say(page: Page, table: Locator) -> None:
    expect_column(table, "file", ["coffee.jpg", "cat.jpg", "rocket.jpg", "=1+1.txt"])
    expect(table.locator("[data-part=answer]").first).to_have_text("espresso")
    expect_column(table, "state", ["Done", "Done", "Done", "Failed"])
    expect(table.locator("[data-part=answer]").last).to_have_text("This file is not a photo that topthree can read.")
    expect(page.locator("#cards")).to_be_hidden()
    table.get_by_role("button", name="cat.jpg").click()
    expect(page.locator("#cards > li").nth(1)).to_be_focused()


def test_the_table_is_sorted_by_a_click_and_back_by_another(page: Page, table: Locator) -> None:
    sort = page.get_by_role("button", name="Probability")
    sort.click()
    expect(page.locator("[aria-sort=descending]")).to_have_text("Probability")
    falling = table.locator("[data-part=file]").all_text_contents()
    sort.click()
    *answered, failed = falling
    expect_column(table, "file", [*answered[::-1], failed])
    page.get_by_role("columnheader", name="Name").get_by_role("button").click()
    expect_column(table, "file", ["=1+1.txt", "cat.jpg", "coffee.jpg", "rocket.jpg"])


def test_no_heading_of_the_table_is_broken_within_a_word(page: Page, table: Locator) -> None:
    lines = "all => all.map((each) => each.firstElementChild.getClientRects().length)"
    assert page.locator("#table thead button").evaluate_all(lines) == [1] * 4


@pytest.mark.parametrize(
    ("typed", "left"),
    [
        ("espr", ["coffee.jpg"]),
        ("ROCK", ["rocket.jpg"]),
        ("failed", ["=1+1.txt"]),
        ("not a photo", ["=1+1.txt"]),
        ("浓缩", ["coffee.jpg"]),
    ],
)
def test_the_table_is_filtered_by_what_is_typed(page: Page, table: Locator, typed: str, left: list[str]) -> None:
    page.get_by_label("Filter").fill(typed)
    expect_column(table, "file", left)
    expect(page.locator("#filtered")).to_have_text("1 shown")


def test_all_answers_can_be_downloaded(page: Page, table: Locator, tmp_path: Path) -> None:
    for name in ("csv", "json"):
        with page.expect_download() as download:
            page.locator(f"#save-{name}").click()
        download.value.save_as(tmp_path / f"answers.{name}")
    with (tmp_path / "answers.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["coffee.jpg"] * 3 + ["cat.jpg"] * 3 + ["rocket.jpg"] * 3 + ["'=1+1.txt"]
    assert (rows[0]["label"], rows[0]["label_zh"], rows[-1]["error"]) == (
        "espresso",
        "意式浓缩咖啡",
        "unsupported-image",
    )
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert [len(result.get("predictions", [])) for result in answers["results"]] == [3, 3, 3, 0]
    assert answers["model"]["name"] == "efficientnet_lite0"


def test_twenty_photos_open_the_table(cards: Cards) -> None:
    cards.choose_files(*[payload(f"{number}.txt", b"words") for number in range(20)])
    expect(cards.page.locator("#table")).to_be_visible()


def test_one_consent_covers_all_that_the_browser_cannot_shrink(cards: Cards) -> None:
    cards.choose_files(payload("a.heic", HEIC, "image/heic"), payload("b.heic", HEIC, "image/heic"))
    expect(cards.page.locator("#consent")).to_contain_text("2 photos can only be sent as original files")
    cards.page.get_by_role("button", name="Send all originals").click()
    expect(cards.page.locator("[data-state=done]")).to_have_count(2)
    expect(cards.page.locator("#consent")).to_be_hidden()
    cards.choose_files(payload("later.heic", HEIC, "image/heic"))
    expect(cards.page.locator("[data-state=done]")).to_have_count(3)


def test_photo_only_the_server_reads_has_picture_and_heat_map(cards: Cards) -> None:
    card = cards.choose_files(payload("a.heic", HEIC, "image/heic"))
    expect(card.get_by_text("This browser cannot show this photo.")).to_be_hidden()
    card.get_by_role("button", name="Send the original file").click()
    expect(card.get_by_role("img", name="Your photo a.heic")).to_be_visible()
    card.locator(".eye").first.click()
    expect(card.locator("canvas")).to_be_visible()
    expect(cards.page.locator("#live")).to_contain_text("Heat map for")


def test_of_many_photos_their_number_is_read_out(cards: Cards) -> None:
    cards.choose_files(*[payload(f"{number}.txt", b"words") for number in range(6)])
    expect(cards.page.locator("#live")).to_contain_text("6 of 6 done.")


def test_small_photo_and_answers_fit_a_phone_in_landscape(cards: Cards) -> None:
    cards.page.set_viewport_size({"width": 667, "height": 375})
    card = cards.choose("cat")
    expect_state(card, "done")
    photo, title = card.locator(".photo").bounding_box(), card.locator("h3").bounding_box()
    assert photo
    assert title
    assert photo["height"] <= 0.75 * 375
    assert title["x"] > photo["x"] + photo["width"]

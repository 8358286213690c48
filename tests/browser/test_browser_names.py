"""What repeats from photo to photo is named with its photo, so that a list of buttons can be told apart by ear."""

from __future__ import annotations

from cards import Cards, expect_state, payload
from playwright.sync_api import expect

CONTROLS = """cards => cards.flatMap(card => [...card.querySelectorAll('button, input, summary')]
  .filter(control => control.checkVisibility())
  .map(control => [
    card.querySelector('figcaption').textContent,
    control.textContent.trim() || control.title || control.parentElement.textContent.trim(),
    control.getAttribute('aria-label'),
  ]))"""


def show_all(cards: Cards) -> None:
    """Bring up two answers with all that unfolds, and a photo that fails."""
    expect_state(cards.choose_files(payload("report.pdf", b"%PDF-1.7")), "failed")
    cards.choose("coffee", "cat")
    expect(cards.page.locator("[data-state=done]")).to_have_count(2)
    answered = cards.page.locator("[data-state=done]")
    for index, part in enumerate(("otherPart", "eye")):
        answered.nth(index).locator(f"[data-part={part}]:visible").first.click()
        answered.nth(index).locator("summary").click()


def test_each_control_of_a_card_names_its_photo(cards: Cards) -> None:
    show_all(cards)
    for language in ("English", "中文"):
        cards.page.get_by_role("link", name=language).click()
        expect(cards.page.locator("a[aria-current]")).to_have_text(language)
        controls = cards.all.evaluate_all(CONTROLS)
        assert len(controls) == len({name for _, _, name in controls}) > 20
        for file, visible, name in controls:
            assert file in name
            # Who says a button's words to a computer says those that are seen (WCAG 2.5.3).
            assert visible in name


def test_what_a_copy_button_says_in_passing_is_not_its_name(cards: Cards) -> None:
    card = cards.choose("coffee")
    expect_state(card, "done")
    card.locator("summary").click()
    button = card.locator("[data-part=copyCurl]")
    button.click()
    expect(button).to_have_text("Copied")
    cards.page.get_by_role("link", name="中文").click()
    expect(button).to_have_text("复制 curl 命令")
    expect(button).to_have_attribute("aria-label", "复制 curl 命令：coffee.jpg")


def test_details_name_the_model_as_people_write_it(cards: Cards) -> None:
    card = cards.choose("coffee")
    expect_state(card, "done")
    expect(card.locator("[data-part=model]")).to_have_text("EfficientNet-Lite0, fp32, OpenVINO")
    expect(cards.page.locator("footer")).to_contain_text("Model: EfficientNet-Lite0 (fp32).")

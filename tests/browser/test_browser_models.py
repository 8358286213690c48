"""The choice of a model: by keyboard, in both languages, kept for the visit, and shown with the answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cards import Cards
from playwright.sync_api import Page, expect
from server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a fake backbone and two heads."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELS_FOLDER", str(folder / "models"))
        server = Server(folder, "models_app:create()")
    server.start()
    yield server
    server.stop()


def test_a_model_is_chosen_with_the_keyboard(page: Page, cards: Cards) -> None:
    choice = page.get_by_label("Model")
    expect(choice).to_have_value("resnet18")
    choice.focus()
    page.keyboard.press("ArrowDown")
    expect(choice).to_have_value("pets")
    with page.expect_request("**/api/v1/predict?*") as asked:
        cards.choose("coffee")
    assert asked.value.url.endswith("&model=pets")
    expect(page.get_by_text("pets v1, fp32, fake")).to_have_count(1)


def test_the_choice_is_kept_for_the_visit(page: Page) -> None:
    page.get_by_label("Model").select_option("tools")
    page.reload()
    expect(page.get_by_label("Model")).to_have_value("tools")


def test_the_choice_has_its_name_in_chinese(page: Page) -> None:
    page.locator("a[hreflang^=zh]").first.click()
    expect(page.get_by_label("模型")).to_have_value("resnet18")

"""Screenshots of the page of teaching, from an empty project to a published model; `screens.py` takes them too."""

from __future__ import annotations

import re
from collections.abc import Callable

from conftest import open_page
from playwright.sync_api import Browser, BrowserContext, Page, expect
from server import Server
from teaching import Teaching, files

NAMES = {"cat": "猫", "coffee": "咖啡", "rocket": "火箭"}
TO_TOP = "(element) => scrollTo({ top: element.getBoundingClientRect().top + scrollY - 12, behavior: 'instant' })"


def take_film_strip(
    browser: Browser, server: Server, size: tuple[str, int, int], locale: str, save: Callable[[Page, str], None]
) -> None:
    """Teach three things in one language at one size, and `save` a picture of each step."""
    name, width, height = size
    suffix = "" if locale == "en-GB" else "-chinese"
    window = {"width": width, "height": height}
    with browser.new_context(
        base_url=server.url, viewport=window, has_touch=name == "phone", locale=locale, color_scheme="light"
    ) as context:

        def shoot(step: str, page: Page, target: str = "body") -> None:
            page.locator(target).first.evaluate(TO_TOP)
            page.wait_for_timeout(300)
            save(page, f"teach-{step}-{name}-light{suffix}")

        _walk(context, shoot, f"{name}{suffix}")


def _walk(context: BrowserContext, shoot: Callable[..., None], project: str) -> None:
    page = open_page(context, "teach")
    shoot("start", page)
    page.close()
    teaching = Teaching.begin(context, project)
    page = teaching.page
    shoot("empty", page)
    page.locator("#new-class").click()
    expect(page.locator("#cards > li")).to_have_count(4)
    for place, (english, chinese) in enumerate(NAMES.items()):
        teaching.name(place, english, chinese)
        teaching.add(english, *files(english, 12))
        expect(teaching.photos(english)).to_have_count(12)
    teaching.wait_for_report()
    page.locator("#file").set_input_files([files("cat", 1, seed=9)[0]])
    expect(page.locator("#verdict")).to_contain_text(re.compile("cat|猫"))
    page.locator("#undo-bar").wait_for(state="hidden", timeout=20_000)
    shoot("taught", page)
    shoot("classes", page, "#cards-title")
    teaching.photos("cat").nth(1).click()
    teaching.photos("cat").nth(4).click(modifiers=["Shift"])
    shoot("selected", page, '[data-drop="cat"]')
    page.keyboard.press("Escape")
    page.locator("#publish").click()
    expect(page.locator("#published")).to_be_visible()
    shoot("published", page)

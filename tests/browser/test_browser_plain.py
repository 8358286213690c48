"""The page with JavaScript switched off: one form, one answer."""

from __future__ import annotations

import re

import pytest
from cards import payload
from playwright.sync_api import Browser, BrowserContext, Page, expect
from server import Server


@pytest.fixture
def context_options() -> dict[str, object]:
    """A browser that runs no script."""
    return {"java_script_enabled": False}


@pytest.fixture
def plain(context: BrowserContext) -> Page:
    """The first page."""
    page = context.new_page()
    page.goto("./")
    return page


def test_the_form_works_where_the_script_does_not_arrive(browser: Browser, server: Server) -> None:
    with browser.new_context(base_url=server.url, locale="en-GB") as context:
        page = context.new_page()
        page.route(re.compile(r"/js/"), lambda route: route.abort())
        page.goto("./")
        page.locator("#file").set_input_files([payload("notes.jpg", b"These are words.")])
        page.get_by_role("button", name="Classify").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("This file is not a photo that topthree can read.")


def test_the_form_works(plain: Page, real_photos: dict[str, bytes]) -> None:
    plain.locator("#file").set_input_files([payload("coffee.jpg", real_photos["coffee"])])
    plain.get_by_role("button", name="Classify").click()
    expect(plain.locator(".name").first).to_contain_text("espresso")
    expect(plain.get_by_role("img", name="Your photo")).to_be_visible()


def test_nothing_is_shown_that_would_not_work(plain: Page) -> None:
    expect(plain.locator(".needs-script:visible")).to_have_count(0)
    expect(plain.locator("button:visible")).to_have_text(["Classify"])


def test_the_language_switch_works(plain: Page) -> None:
    plain.get_by_role("link", name="中文").click()
    expect(plain.get_by_role("heading", level=1)).to_have_text("照片里是什么？")


def test_a_bad_file_is_explained(plain: Page) -> None:
    plain.locator("#file").set_input_files([payload("notes.jpg", b"These are words.")])
    plain.get_by_role("button", name="Classify").click()
    expect(plain.get_by_role("heading", level=1)).to_have_text("This file is not a photo that topthree can read.")
    expect(plain.locator("#file")).to_be_visible()

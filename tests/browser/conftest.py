"""A real server and a real Chromium, once per run; a fresh page for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cards import Cards
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Request, sync_playwright
from server import Server

CHROMIUM = os.environ.get("TOPTHREE_TEST_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a camera
]


@pytest.fixture(scope="session")
def packaged_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the packaged model is prepared once; the marker keeps servers off the network."""
    cache = tmp_path_factory.mktemp("cache")
    (cache / "fallback-in-use").write_text("A test asked for it.")
    return cache


@pytest.fixture(scope="session")
def server(packaged_cache: Path) -> Iterator[Server]:
    """The real server with the real packaged model."""
    server = Server(packaged_cache, cache=packaged_cache)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The driver of the browser."""
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium of this machine; Playwright fetches none."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def context_options() -> dict[str, object]:
    """Options of the browser window; a test module may override them."""
    return {}


@pytest.fixture
def context(browser: Browser, server: Server, context_options: dict[str, object]) -> Iterator[BrowserContext]:
    """A window of its own; it fails the test for a request to another host or an error in a script."""
    foreign: list[str] = []
    broken: list[str] = []
    context = browser.new_context(**{"base_url": server.url, "locale": "en-GB"} | context_options)

    def watch_request(request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "blob:http://127.0.0.1:", "data:")):
            foreign.append(request.url)

    context.on("request", watch_request)
    context.on("weberror", lambda error: broken.append(str(error.error)))
    context.on("console", lambda message: broken.append(message.text) if "Content Security" in message.text else None)
    yield context
    context.close()
    assert foreign == []
    assert broken == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """The first page, alive."""
    return open_page(context)


@pytest.fixture
def cards(page: Page, real_photos: dict[str, bytes]) -> Cards:
    """The cards on `page`, and ways to add to them."""
    return Cards(page, real_photos)


def open_page(context: BrowserContext, address: str = "./") -> Page:
    """Open a page and wait until its script has run."""
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(address)
    page.locator("html[data-alive]").wait_for()
    return page


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that lets the model of a gated server load."""
    return tmp_path / "gate"


@pytest.fixture
def gated(tmp_path: Path, gate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start a server whose model loads when the gate opens."""
    started: list[Server] = []
    monkeypatch.setenv("GATE_FILE", str(gate))

    def start(**settings: object) -> Server:
        server = Server(tmp_path, "gated_app:create()", **settings)
        started.append(server)
        server.start(until="healthz")
        return server

    yield start
    gate.touch()
    for server in started:
        server.stop()

"""The main way through the page of teaching in Firefox; Chromium's is in `test_teach.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engines import ENTER, Visitor, firefox, is_installed
from server import Server
from teaching import teaching_server, views

PHOTOS = "document.querySelectorAll('[data-part=photos] > [role=option]').length"

pytestmark = pytest.mark.skipif(not is_installed("firefox"), reason="Firefox is not installed")


@pytest.fixture
def server(tmp_path: Path, packaged_cache: Path) -> Iterator[Server]:
    """A server with teaching on."""
    server = teaching_server(tmp_path, packaged_cache)
    server.start()
    yield server
    server.stop()


def choose(visitor: Visitor, folder: Path, selector: str, name: str, count: int) -> None:
    """Choose views of a photo through a file field."""
    paths = []
    for number, data in enumerate(views(name, count)):
        paths.append(folder / f"{name}{number}.jpg")
        paths[-1].write_bytes(data)
    visitor.type(selector, "\n".join(map(str, paths)))


def test_two_things_are_taught_and_published_in_firefox(server: Server, tmp_path: Path) -> None:
    with firefox(tmp_path) as visitor:
        visitor.open(f"{server.url}teach?lang=en")
        visitor.wait_for("document.documentElement.dataset.alive", "true")
        visitor.type("#new-name", "kitchen" + ENTER)
        visitor.wait_for("document.querySelectorAll('#cards > li').length", 3)
        choose(visitor, tmp_path, "#cards > li:nth-child(1) input[type=file]", "cat", 4)
        choose(visitor, tmp_path, "#cards > li:nth-child(2) input[type=file]", "coffee", 4)
        visitor.wait_for(PHOTOS, 8)
        visitor.wait_for("/named correctly/.test(document.querySelector('#score').textContent)")
        visitor.click("[data-part=photos] > [role=option]")
        visitor.click("#selected-delete")
        visitor.wait_for(PHOTOS, 7)
        visitor.click("#undo")
        visitor.wait_for(PHOTOS, 8)
        visitor.click("#publish")
        visitor.wait_for("document.querySelector('#published').hidden", False)
        assert "kitchen, version 1" in visitor.text("#published-text")

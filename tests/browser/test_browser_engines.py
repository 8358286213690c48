"""The main ways through the page in Firefox and WebKitGTK; Chromium's are in the other modules."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import pytest
from engines import ENGINES, ENTER, ESCAPE, Visitor, is_installed
from lacking import lacking, whole
from pictures import DATA, cat
from server import Server

FIRST_CARD = "#cards > li"
STATES = "[...document.querySelectorAll('#cards > li')].map((card) => card.dataset.state).join()"
# What sticks out of the page at the side, but for the strip of thumbnails, which scrolls by itself.
IS_TOO_WIDE = """
const isOutside = (element) => element.checkVisibility() && !element.closest('.strip, .unseen, .skip')
  && (element.getBoundingClientRect().right > innerWidth + 1 || element.getBoundingClientRect().left < -1);
const outside = [...document.body.querySelectorAll('*')].filter(isOutside);
const found = outside.map(({ outerHTML }) => outerHTML.slice(0, 99));
const { scrollWidth } = document.documentElement;
return scrollWidth > innerWidth ? [`The page is ${scrollWidth} pixels wide.`, ...found] : found;
"""
MAKE_DRAG = """
const transfer = new DataTransfer();
const bytes = Uint8Array.from(atob(arguments[0]), (character) => character.charCodeAt(0));
transfer.items.add(new File([bytes], 'dropped.jpg', { type: 'image/jpeg' }));
drag(transfer, ...arguments[1]);
"""
DRAG = """
function drag(dataTransfer, ...kinds) {
  for (const kind of kinds) {
    const event = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
    document.querySelector('h1').dispatchEvent(event);
  }
}
"""


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine that is on this machine."""
    if not is_installed(request.param):
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def browser_of_engine(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A browser with that engine."""
    with ENGINES[engine](tmp_path_factory.mktemp(engine)) as visitor:
        yield visitor


@pytest.fixture
def visitor(browser_of_engine: Visitor, server: Server) -> Visitor:
    """The first page, alive, in English."""
    browser_of_engine.open(f"{server.url}?lang=en")
    browser_of_engine.wait_for("document.documentElement.dataset.alive", "true")
    return browser_of_engine


@pytest.fixture(scope="module")
def large() -> bytes:
    """A photo whose shorter side is over 512 pixels, so that the page scales it."""
    return encoded("JPEG")


def encoded(kind: str) -> bytes:
    """Encode a photo of 1200 by 900 pixels."""
    out = io.BytesIO()
    cat(1200, 900).save(out, kind)
    return out.getvalue()


def test_a_chosen_photo_is_answered(visitor: Visitor, large: bytes) -> None:
    visitor.choose(cat_jpg=large)
    visitor.wait_for(STATES, "done")
    assert visitor.run("return document.querySelectorAll('.answers > li').length") == 3
    assert "682 × 512 pixels" in visitor.text("[data-part=sent]")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_a_photo_that_was_cut_is_not_answered(visitor: Visitor, kind: str) -> None:
    data = encoded(kind)
    visitor.choose(cut_jpg=data[: len(data) * 6 // 10])
    visitor.wait_for(STATES, "failed")
    assert visitor.text(f"{FIRST_CARD} h3") == "The photo is damaged."


def test_photos_that_lack_pixels_are_damaged_and_no_others(visitor: Visitor) -> None:
    files = lacking() | {f"whole_{name}": data for name, data in whole().items()}
    visitor.choose(**files)
    visitor.wait_for(STATES, ",".join(["failed"] * len(lacking()) + ["done"] * len(whole())), seconds=120)


def test_a_heic_is_asked_about_answered_and_shown(visitor: Visitor) -> None:
    visitor.choose(drawn_heic=(DATA / "drawn.heic").read_bytes())
    visitor.wait_for(STATES, "asking")
    visitor.click("[data-part=send]")
    visitor.wait_for(STATES, "done")
    visitor.wait_for("document.querySelector('.photo img').naturalWidth > 0")


def test_many_photos_become_a_table(visitor: Visitor, real_photos: dict[str, bytes]) -> None:
    visitor.choose(**{f"photo{number}_jpg": real_photos["cat"] for number in range(20)})
    visitor.wait_for(STATES, ",".join(["done"] * 20), seconds=120)
    visitor.wait_for("document.querySelectorAll('#rows tr').length", 20)
    assert visitor.text("#count") == "20 of 20 done. "
    visitor.type("#filter", "photo7")
    visitor.wait_for("document.querySelectorAll('#rows tr').length", 1)


def test_a_dropped_photo_is_answered(visitor: Visitor, real_photos: dict[str, bytes]) -> None:
    photo = base64.b64encode(real_photos["cat"]).decode()
    visitor.run(DRAG + MAKE_DRAG, photo, ["dragenter", "dragover", "drop"])
    visitor.wait_for(STATES, "done")
    assert visitor.run("return document.getElementById('drop-now').hidden")


def test_a_drag_that_is_cancelled_lifts_the_veil(visitor: Visitor) -> None:
    is_shown = "return !document.getElementById('drop-now').hidden"
    assert visitor.run(DRAG + MAKE_DRAG + is_shown, "", ["dragenter", "dragover"])
    visitor.wait_for("document.getElementById('drop-now').hidden")
    assert not visitor.run(DRAG + MAKE_DRAG + is_shown, "", ["dragenter", "dragover", "dragleave"])


def test_where_no_file_is_handed_over_the_button_is_named(visitor: Visitor) -> None:
    script = (
        "const transfer = new DataTransfer(); transfer.setData('text/uri-list', 'file:///cat.jpg');"
        "drag(transfer, 'dragenter', 'dragover', 'drop');"
    )
    visitor.run(DRAG + script)
    visitor.wait_for("document.getElementById('message').hidden", False)
    assert "Use the button" in visitor.text("#message-text")


def test_the_language_changes_in_place(visitor: Visitor, real_photos: dict[str, bytes]) -> None:
    visitor.choose(coffee_jpg=real_photos["coffee"])
    visitor.wait_for(STATES, "done")
    visitor.click("a[hreflang=zh-Hans]")
    visitor.wait_for("document.documentElement.lang", "zh-Hans")
    assert visitor.text(f"{FIRST_CARD} h3") == "这看起来是：意式浓缩咖啡"


def test_the_keyboard_opens_and_closes_a_heat_map(visitor: Visitor, real_photos: dict[str, bytes]) -> None:
    visitor.choose(coffee_jpg=real_photos["coffee"])
    visitor.wait_for(STATES, "done")
    visitor.type(".eye", ENTER)
    visitor.wait_for("document.querySelector('.photo canvas').hidden", False)
    visitor.type(".eye", ESCAPE)
    visitor.wait_for("document.querySelector('.photo canvas').hidden", True)


def test_a_phone_s_width_needs_no_scrolling_sideways(visitor: Visitor, real_photos: dict[str, bytes]) -> None:
    with visitor.popup(360, 740):
        visitor.wait_for("document.documentElement.dataset.alive", "true")
        assert visitor.run("return innerWidth") == 360
        for language in ("zh-Hans", "en"):
            visitor.click(f"a[hreflang={language}]")
            visitor.wait_for("document.documentElement.lang", language)
            assert visitor.run(IS_TOO_WIDE) == []
        visitor.choose(coffee_jpg=real_photos["coffee"], cat_jpg=real_photos["cat"])
        visitor.wait_for(STATES, "done,done")
        for selector in ("summary", "[data-part=otherPart]", ".eye", "#as-table", "#as-cards"):
            visitor.wait_for(f"document.querySelector('{selector}').offsetParent !== null", True)
            visitor.click(selector)
            assert visitor.run(IS_TOO_WIDE) == []


def test_the_form_works_without_script(
    engine: str, server: Server, tmp_path_factory: pytest.TempPathFactory, real_photos: dict[str, bytes]
) -> None:
    with ENGINES[engine](tmp_path_factory.mktemp("plain"), has_script=False) as plain:
        plain.open(f"{server.url}?lang=en")
        plain.choose(coffee_jpg=real_photos["coffee"])
        plain.click("button.submit")
        plain.wait_for("document.querySelectorAll('.answers > li').length", 3)
        assert "espresso" in plain.source()

"""What a card says: names, doubt, details, copies, and what the model looked at."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from cards import Cards, expect_state, payload, show_several
from fakes import encode
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

WHERE_IS_IT = "(canvas) => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"


@pytest.fixture
def coffee(cards: Cards) -> Locator:
    """A finished card of a cup of coffee."""
    card = cards.choose("coffee")
    expect_state(card, "done")
    return card


def test_an_answer_has_two_names_a_bar_and_a_number(coffee: Locator) -> None:
    best = coffee.locator(".answers > li").first
    expect(best.locator(".name")).to_have_text("espresso 意式浓缩咖啡")
    share = float(best.locator("meter").get_attribute("value") or 0)
    expect(best.locator(".percent")).to_have_text(f"{100 * share:.1f}%")
    expect(best.get_by_role("meter", name="espresso")).to_be_visible()


def test_in_chinese_the_chinese_name_comes_first(page: Page, cards: Cards) -> None:
    page.get_by_role("link", name="中文").click()
    page.locator("html[lang=zh-Hans][data-alive]").wait_for()
    card = cards.choose("coffee")
    expect(card.locator("h3")).to_have_text("这看起来是：意式浓缩咖啡")
    expect(card.locator(".name").first).to_have_text("意式浓缩咖啡 espresso")


CAT = {"wnid": "n02121808", "label": "cat", "label_zh": "猫", "probability": 0.93}
APE = {"wnid": "n02470325", "label": "ape", "label_zh": "猿", "probability": 0.93}


def answer_with(page: Page, certainty: str | None, group: dict[str, object] | None = None) -> None:
    """Let the server answer as it does, but for the certainty, and with a gloss of the first class."""

    def change(route: Route) -> None:
        response = route.fetch()
        body = response.json() | {"certainty": certainty} | ({"group": group} if group else {})
        body["predictions"][0]["label_gloss"] = "strong coffee"
        route.fulfill(response=response, json=body)

    page.route("**/api/v1/predict*", change)


@pytest.mark.parametrize(
    ("certainty", "group", "sentence"),
    [
        ("sure", None, "This looks like: espresso (strong coffee)"),
        ("group", CAT, "A cat, probably espresso"),
        ("group", APE, "An ape, probably espresso"),
        ("unsure", None, "Not sure, but probably: espresso (strong coffee)"),
        ("unlike", None, "It looks like nothing I know"),
        (None, None, "Most likely: espresso (strong coffee)"),
    ],
)
def test_the_heading_says_what_the_answer_is_worth(
    cards: Cards, certainty: str | None, group: dict[str, object] | None, sentence: str
) -> None:
    answer_with(cards.page, certainty, group)
    card = cards.choose("coffee")
    expect(card.locator("h3")).to_have_text(sentence)
    expect(cards.page.get_by_role("status").filter(has_text=f"coffee.jpg: {sentence}")).to_be_attached()
    card.locator("summary").click()
    detail = "93.0% ape" if group is APE else {"unlike": "unlike the photos", None: "not measured"}.get(certainty, "")
    expect(card.locator("[data-part=certainty]")).to_contain_text(detail)


def test_details_are_folded_away_until_asked_for(coffee: Locator) -> None:
    expect(coffee.locator("dl")).to_be_hidden()
    coffee.locator("summary").click()
    expect(coffee.locator("dl")).to_be_visible()
    details = coffee.locator("dl")
    for fact in ("600 × 400 pixels, JPEG", "n07920052", "EfficientNet-Lite0, fp32", "reading", "model"):
        expect(details).to_contain_text(fact)


def test_an_answer_that_was_known_already_says_so(cards: Cards) -> None:
    def answer_from_memory(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers=answer.headers | {"server-timing": "cache;desc=hit, total;dur=0.41"})

    cards.page.route("**/api/v1/predict*", answer_from_memory)
    card = cards.choose("coffee")
    expect_state(card, "done")
    card.locator("summary").click()
    expect(card.locator("dl")).to_contain_text("cached answer")


def test_the_answer_can_be_copied_as_json(context: BrowserContext, page: Page, coffee: Locator) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    coffee.locator("summary").click()
    coffee.get_by_role("button", name="Copy as JSON").click()
    expect(coffee.locator("[data-part=copyJson]")).to_have_text("Copied")
    expect(coffee.locator("[data-part=copyJson]")).to_be_focused()
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["predictions"][0]["label"] == "espresso"
    expect(coffee.locator("[data-part=copyJson]")).to_have_text("Copy as JSON")


@pytest.mark.parametrize("name", ["cup.jpg", 'it\'s a "cup"; $(touch x) .jpg', "-咖啡,杯.jpg", "back\\slash.jpg"])
def test_the_curl_line_gives_the_same_answer_in_a_shell(cards: Cards, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(cards.photos["coffee"])
    card = cards.choose_files(payload(name, cards.photos["coffee"]))
    expect_state(card, "done")
    line = card.locator("[data-part=curl]").text_content() or ""
    done = subprocess.run(["sh", "-c", f"{line} --silent --show-error"], cwd=tmp_path, capture_output=True, check=True)
    predictions = json.loads(done.stdout)["predictions"]
    assert [prediction["label"] for prediction in predictions[:1]] == ["espresso"]
    assert all("heatmap" in prediction for prediction in predictions)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("button", "runner", "suffix"), [("copyPython", sys.executable, "py"), ("copyScript", shutil.which("node"), "mjs")]
)
def test_the_scripts_that_can_be_copied_work(
    context: BrowserContext, page: Page, coffee: Locator, tmp_path: Path, button: str, runner: str | None, suffix: str
) -> None:
    if runner is None:
        pytest.skip("needs Node.js")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    coffee.locator("summary").click()
    coffee.locator(f"[data-part={button}]").click()
    expect(coffee.locator(f"[data-part={button}]")).to_have_text("Copied")
    script = tmp_path / f"ask.{suffix}"
    script.write_text(page.evaluate("navigator.clipboard.readText()"))
    encode_coffee(tmp_path / "coffee.jpg")
    done = subprocess.run([runner, script.name], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert done.stdout.startswith("espresso 0.9")


def encode_coffee(path: Path) -> None:
    """Write the photo of the card to a file."""
    Image.fromarray(skimage.data.coffee()).save(path, quality=95)


def test_more_answers_come_on_request(coffee: Locator) -> None:
    more = coffee.get_by_role("button", name="More answers")
    more.click()
    expect(coffee.locator(".answers > li")).to_have_count(10)
    coffee.locator(".eye").nth(9).click()
    expect(coffee.locator("canvas")).to_be_visible()
    coffee.get_by_role("button", name="Fewer answers").click()
    expect(coffee.locator(".answers > li")).to_have_count(3)


def test_a_riddle_has_a_gloss_for_english_readers_alone(page: Page, coffee: Locator) -> None:
    consomme = coffee.locator(".name", has_text="consomme")
    expect(consomme.locator(".gloss")).to_have_text("clear soup")
    page.get_by_role("link", name="中文").click()
    expect(consomme.locator(".gloss")).to_be_empty()


def test_another_part_of_the_photo_can_be_classified(cards: Cards) -> None:
    photo = Image.new("RGB", (1200, 500), "white")
    photo.paste(Image.fromarray(skimage.data.coffee()).resize((600, 400)), (0, 50))
    photo.paste(Image.fromarray(skimage.data.chelsea()).resize((600, 400)), (600, 50))
    card = cards.choose_files(payload("both.png", encode(photo), "image/png"))
    expect_state(card, "done")
    answers = []
    for place in ("0", "100"):
        card.get_by_role("button", name="Another part of the photo").click()
        expect(card.locator("canvas")).to_be_visible()
        card.locator("[data-part=place]").fill(place)
        with cards.page.expect_response("**/api/v1/predict*"):
            card.get_by_role("button", name="Classify this part").click()
        expect_state(card, "done")
        answers.append(card.locator(".name").first.text_content() or "")
    assert "espresso" in answers[0]
    assert "cat" in answers[1] or "tabby" in answers[1]
    expect(card.locator("[data-part=sent]")).to_contain_text("a part, 500 × 500 pixels")
    card.locator(".eye").first.click()
    left, right = (card.locator("canvas").evaluate(ALPHA_AT, share) for share in (0.25, 0.9))
    assert left == 158  # dark: outside of what was asked about
    assert right != 158


ALPHA_AT = """(canvas, share) => {
  return canvas.getContext('2d').getImageData(share * canvas.width, canvas.height / 2, 1, 1).data[3];
}"""


def test_a_click_on_the_photo_shows_the_map_and_escape_hides_it(page: Page, coffee: Locator) -> None:
    expect(coffee.locator("[data-part=hint]")).to_be_visible()
    coffee.locator(".photo").click()
    expect(coffee.locator("canvas")).to_be_visible()
    expect(page.locator("#live")).to_contain_text("Heat map for espresso. Strongest in the middle.")
    page.keyboard.press("Escape")
    expect(coffee.locator("canvas")).to_be_hidden()
    expect(coffee.locator("[data-part=hint]")).to_be_hidden()  # it is known now


def test_buttons_and_progress_are_named_with_their_photo(coffee: Locator) -> None:
    expect(coffee.get_by_role("button", name="Remove: coffee.jpg")).to_be_visible()
    expect(coffee.get_by_role("button", name="Show what led to espresso: coffee.jpg")).to_be_visible()
    expect(coffee.locator("progress")).to_have_attribute("aria-label", "Progress of coffee.jpg")


def test_one_tap_shows_what_it_looked_at_and_another_hides_it(coffee: Locator) -> None:
    eye = coffee.locator(".eye").first
    expect(eye).to_have_attribute("aria-pressed", "false")
    eye.click()
    expect(eye).to_have_attribute("aria-pressed", "true")
    expect(coffee.locator("canvas")).to_be_visible()
    expect(coffee.locator("canvas")).to_have_attribute("aria-label", "Heat map for espresso. Strongest in the middle.")
    eye.click()
    expect(coffee.locator("canvas")).to_be_hidden()


def test_each_answer_has_a_map_of_its_own_and_needs_no_request(page: Page, coffee: Locator) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    drawn = []
    for index in range(3):
        coffee.locator(".eye").nth(index).click()
        expect(coffee.locator("[aria-pressed=true]")).to_have_count(1)
        drawn.append(tuple(coffee.locator("canvas").evaluate(WHERE_IS_IT)))
    assert requests == []
    assert len(set(drawn)) == 3


def test_the_map_is_warm_in_the_middle_and_dark_outside_the_crop(coffee: Locator) -> None:
    coffee.locator(".eye").first.click()
    width = coffee.locator("canvas").evaluate("(canvas) => canvas.width")
    height = coffee.locator("canvas").evaluate("(canvas) => canvas.height")
    data = coffee.locator("canvas").evaluate(WHERE_IS_IT)

    def at(x: float, y: float) -> list[int]:
        start = 4 * (int(y * height) * width + int(x * width))
        return data[start : start + 4]

    red, green, blue, _ = at(0.5, 0.45)
    assert min(red, green) > blue
    assert at(0.02, 0.5) == at(0.98, 0.5) == [0, 0, 0, 158]
    expect(coffee.locator("[data-part=outside]")).to_contain_text("dark edges were not used")


def test_the_overlay_lies_exactly_on_the_photo(coffee: Locator) -> None:
    coffee.locator(".eye").first.click()
    assert coffee.locator("canvas").bounding_box() == coffee.locator(".photo img").bounding_box()
    ratios = [
        coffee.locator("canvas").evaluate("(canvas) => canvas.width / canvas.height"),
        coffee.locator(".photo img").evaluate("(image) => image.naturalWidth / image.naturalHeight"),
    ]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.005)


def test_the_strength_of_the_colours_can_be_set(coffee: Locator) -> None:
    coffee.locator(".eye").first.click()
    strong = coffee.locator("canvas").evaluate(WHERE_IS_IT)
    coffee.get_by_label("Overlay strength").fill("10")
    weak = coffee.locator("canvas").evaluate(WHERE_IS_IT)
    assert sum(weak[3::4]) < sum(strong[3::4])


def test_a_hostile_file_name_is_shown_as_text(cards: Cards) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    card = cards.choose_files(payload(name, cards.photos["cat"]))
    expect_state(card, "done")
    cards.expect_names(name)
    assert cards.page.locator("img[src=x]").count() == 0


def test_a_heat_map_stays_while_more_answers_are_shown(cards: Cards) -> None:
    card = cards.choose("coffee")
    expect_state(card, "done")
    card.locator(".eye").nth(1).click()
    card.locator("[data-part=more]").click()
    expect(card.locator(".answers > li")).to_have_count(10)
    expect(card.locator(".eye[aria-pressed=true]")).to_have_count(1)
    expect(card.locator("canvas")).to_be_visible()
    card.locator(".eye").nth(6).click()
    card.locator("[data-part=more]").click()
    expect(card.locator("canvas")).to_be_hidden()


def test_the_strip_names_an_answer_and_its_probability(cards: Cards) -> None:
    show_several(cards)
    first = cards.page.locator("#strip button").first
    expect(first.locator(".brief")).to_have_text("espresso")
    expect(first.locator(".number")).to_have_text(re.compile(r"^\d+\.\d%$"))

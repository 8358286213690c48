"""The page's languages: complete, in use, found as files, and chosen by the preference of the reader's browser."""

from __future__ import annotations

import html
import io
import json
import re
import shutil
import string
from pathlib import Path
from urllib.parse import urljoin

import flask
import pytest
from fakes import colour_png, fake_classifier
from flask.testing import FlaskClient

from app import create_app
from app.errors import PROBLEMS
from app.web.language import FOLDER, SCRIPT_PREFIXES, SEARCH_PREFIXES, TEACHING_PREFIXES, read_languages
from app.web.service import service_of

ROOT = Path(__file__).resolve().parents[2]
INLINE = r"(?:</?(?:a|code|span)\b[^>]*>)*"
HAN = re.compile(r"[\u4e00-\u9fff]")
WORDS = {path.stem: json.loads(path.read_bytes())["words"] for path in FOLDER.glob("*.json")}
ENGLISH = WORDS["en"]
OTHERS = sorted(WORDS.keys() - {"en"})
# The categories of plurals that CLDR has; a language uses some of them, and always `other`.
PLURAL_FORMS = {"zero", "one", "two", "few", "many", "other"}


def forms(word: str | dict[str, str]) -> dict[str, str]:
    """Return a word's plural forms, of which most words have one."""
    return word if isinstance(word, dict) else {"other": word}


def blanks(word: str | dict[str, str]) -> set[str]:
    """Return the names of the blanks of a word."""
    return {name for text in forms(word).values() for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("code", OTHERS)
def test_no_language_lacks_words_or_has_more(code: str) -> None:
    missing, unknown = ENGLISH.keys() - WORDS[code].keys(), WORDS[code].keys() - ENGLISH.keys()
    assert (sorted(missing), sorted(unknown)) == ([], [])


@pytest.mark.parametrize("code", OTHERS)
def test_every_language_has_the_same_blanks(code: str) -> None:
    assert {key: blanks(word) for key, word in WORDS[code].items()} == {
        key: blanks(word) for key, word in ENGLISH.items()
    }


@pytest.mark.parametrize("code", WORDS)
def test_plural_forms_are_the_scripts_and_have_a_count(code: str) -> None:
    plural = {key: word for key, word in WORDS[code].items() if isinstance(word, dict)}
    for key, word in plural.items():
        assert key.startswith("js.")
        assert {"other"} <= word.keys() <= PLURAL_FORMS
        assert "count" in blanks(word)


def test_english_has_no_chinese_and_chinese_some() -> None:
    texts = {key: ["".join(forms(WORDS[code][key]).values()) for code in ("en", "zh")] for key in ENGLISH}
    assert [key for key, (english, _) in texts.items() if not english.strip() or HAN.search(english)] == []
    words = {key: chinese for key, (english, chinese) in texts.items() if english.strip("{} ,·").isalpha()}
    assert [key for key, chinese in words.items() if not HAN.search(chinese)] == []


@pytest.fixture
def with_third_language(app: flask.Flask, tmp_path: Path) -> FlaskClient:
    """A client of an application that has one more file beside its languages, of an invented language."""
    folder = shutil.copytree(FOLDER, tmp_path / "languages")
    invented = {
        "label": "Blorp",
        "tag": "x-blorp",
        "names": ["label", "label_zh"],
        "space": " ",
        "alternatives": [", ", " blip "],
        "words": {
            "title": "Blorp blorp?",
            "problem.no-photo": "Nif blorp.",
            "js.added": {"one": "{count} blorp.", "few": "{count} blorpa.", "other": "{count} blorpim."},
        },
    }
    (folder / "x-blorp.json").write_text(json.dumps(invented))
    service_of(app).languages = read_languages(folder)
    return app.test_client()


def test_a_language_is_added_by_a_file_only(with_third_language: FlaskClient) -> None:
    page = with_third_language.get("/", headers={"Accept-Language": "x-blorp, zh;q=0.5"})
    assert page.headers["Content-Language"] == "x-blorp"
    assert '<html lang="x-blorp">' in page.text
    assert "Blorp blorp?" in page.text
    assert "AVIF blip HEIC" in page.text


def test_the_switch_offers_every_language(with_third_language: FlaskClient) -> None:
    page = with_third_language.get("/").text
    assert re.findall(r'hreflang="([\w-]+)"', page) == ["en", "x-blorp", "zh-Hans"]
    assert with_third_language.get("/?lang=x-blorp").status_code == 303
    assert ">Blorp</a>" in page


def test_missing_words_are_in_english(with_third_language: FlaskClient) -> None:
    page = with_third_language.get("/", headers={"Accept-Language": "x-blorp"}).text
    assert ENGLISH["lead"] in page
    assert ENGLISH["js.question"] in page


def test_the_script_gets_the_plural_forms(with_third_language: FlaskClient) -> None:
    page = with_third_language.get("/", headers={"Accept-Language": "x-blorp"}).text
    assert "{count} blorpa." in page


def test_a_third_language_shows_both_names_of_a_class(with_third_language: FlaskClient) -> None:
    photo = {"file": (io.BytesIO(colour_png(8)), "photo.png")}
    page = with_third_language.post("/", data=photo, headers={"Accept-Language": "x-blorp"}).text
    assert '<span lang="en">hen</span> <span class="other" lang="zh-Hans">母鸡</span>' in page


@pytest.mark.parametrize("address", ["/", "/docs", "/problems/too-large"])
def test_no_space_stands_between_chinese_sentences(client: FlaskClient, address: str) -> None:
    page = client.get(address, headers={"Accept-Language": "zh"}).text
    assert re.findall(rf"[。，：；？]{INLINE}\s+{INLINE}[^\s<·]", page) == []
    assert not re.search(r"[\u4e00-\u9fff](?:</span>)?[,:;?]", page)


def test_every_problem_has_a_heading_and_advice() -> None:
    assert {f"{kind}.{problem.slug}" for problem in PROBLEMS for kind in ("problem", "advice")} <= ENGLISH.keys()


def test_no_words_are_for_problems_that_do_not_exist() -> None:
    slugs = {problem.slug for problem in PROBLEMS}
    assert {key.split(".")[1] for key in ENGLISH if key.startswith(("problem.", "advice."))} == slugs


def used_keys(pattern: str, *folders: str) -> set[str]:
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".html", ".js")]
    return {key for path in paths for key in re.findall(pattern, path.read_text(encoding="utf-8"))}


def is_used(key: str, written: set[str]) -> bool:
    """Return whether a key is written out, or begins like one that is put together, such as `js.place.${…}`."""
    return key in written or any(start.endswith(".") and key.startswith(start) for start in written)


def test_every_word_is_used_by_a_template_or_the_script() -> None:
    templates = used_keys(r"\b(?:t|word)\('([\w.-]+)'", "templates")
    scripts = used_keys(r"[`']((?:js|problem|advice)\.[\w.-]*)", "static/js")
    assert [key for key in ENGLISH if not is_used(key, templates | scripts)] == []


def test_the_script_gets_its_words_and_no_others() -> None:
    words = read_languages()["zh"].for_script(is_teaching=True, has_index=True)["words"]
    assert set(words) == {key for key in ENGLISH if key.startswith(SCRIPT_PREFIXES)}


def test_the_first_page_does_not_carry_the_words_of_teaching_and_search() -> None:
    words = read_languages()["en"].for_script()["words"]
    left_out = TEACHING_PREFIXES + SEARCH_PREFIXES
    assert set(words) == {key for key in ENGLISH if key.startswith(SCRIPT_PREFIXES) and not key.startswith(left_out)}


def test_the_script_asks_for_no_word_that_is_missing() -> None:
    scripts = used_keys(r"[`']((?:js|problem|advice)\.[\w.-]*)", "static/js")
    assert [key for key in scripts if not key.endswith(".") and key not in ENGLISH] == []


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("zh", "zh"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("zh-Hans-CN", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.1", "en"),
        ("de, zh;q=0.5, en;q=0.4", "zh"),
        ("de, en;q=0.5, zh;q=0.4", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("zh;q=0, en", "en"),
        ("not a language;;;q=x", "en"),
    ],
)
def test_the_browsers_preference_chooses_the_language(client: FlaskClient, header: str | None, language: str) -> None:
    headers = {} if header is None else {"Accept-Language": header}
    assert client.get("/", headers=headers).headers["Content-Language"] == language


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_switch_wins_over_the_browser(client: FlaskClient, language: str) -> None:
    response = client.get(f"/?lang={language}", headers={"Accept-Language": "zh" if language == "en" else "en"})
    assert (response.status_code, response.headers["Location"]) == (303, "./")
    other = {"Accept-Language": "zh" if language == "en" else "en"}
    assert client.get("/", headers=other).headers["Content-Language"] == language


def test_the_switch_is_remembered_in_a_cookie_closed_to_scripts(client: FlaskClient) -> None:
    cookie = client.get("/?lang=zh").headers["Set-Cookie"]
    assert "lang=zh" in cookie
    assert "Max-Age=31536000" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie


@pytest.mark.parametrize("address", ["/docs", "/problems/too-large"])
def test_the_switch_leads_back_to_the_page_it_is_on(client: FlaskClient, address: str) -> None:
    page = client.get(address)
    link = re.search(r'href="([^"]+)\?lang=zh"', page.text)
    assert link
    response = client.get(urljoin(address, f"{link[1]}?lang=zh"))
    assert urljoin(address, response.headers["Location"]) == address
    assert client.get(address).headers["Content-Language"] == "zh"


def test_the_switch_keeps_what_the_address_names(client: FlaskClient) -> None:
    address = "/docs?project=a%26b%22%3E"
    link = re.search(r'href="([^"]+lang=zh[^"]*)"', client.get(address).text)
    assert link
    response = client.get(urljoin(address, html.unescape(link[1])))
    assert urljoin(address, response.headers["Location"]) == address


@pytest.mark.parametrize("address", ["/nothing/here", "/docs/"])
def test_the_switch_of_a_missing_page_leads_to_the_first(client: FlaskClient, address: str) -> None:
    link = re.search(r'href="([^"]+)\?lang=zh"', client.get(address).text)
    assert link
    assert urljoin(address, link[1]) == "/"


@pytest.mark.parametrize("language", ["de", "", "en%0d%0aX: y", "ZH"])
def test_a_language_we_do_not_have_changes_nothing(client: FlaskClient, language: str) -> None:
    response = client.get("/", query_string={"lang": language})
    assert response.status_code == 200
    assert "Set-Cookie" not in response.headers


def test_a_hostile_cookie_is_ignored(client: FlaskClient) -> None:
    client.set_cookie("lang", "<script>")
    response = client.get("/")
    assert response.headers["Content-Language"] == "en"
    assert b"<script>" not in response.data


def test_caches_keep_the_languages_apart(client: FlaskClient) -> None:
    assert {"accept-language", "cookie"} <= set(client.get("/").vary.as_set())


def test_the_document_says_which_language_it_is_in(client: FlaskClient) -> None:
    assert '<html lang="zh-Hans">' in client.get("/", headers={"Accept-Language": "zh"}).text
    assert '<html lang="en">' in client.get("/").text


def test_problems_of_some_pages_are_those_of_their_routes(make_settings, tmp_path: Path) -> None:
    client = create_app(make_settings(teach="on", projects=tmp_path), fake_classifier()).test_client()
    slugs: dict[str, set[str]] = {"projects": set(), "search": set(), "other": set()}
    for path, item in client.get("/api/v1/openapi.json").json["paths"].items():
        place = path.split("/")[3] if path.count("/") > 2 else ""
        for answer in (answer for each in item.values() for answer in each["responses"].values()):
            found = answer.get("content", {}).get("application/problem+json", {"examples": {}})["examples"]
            slugs[place if place in slugs else "other"] |= found.keys()
    for place, prefixes in (("projects", TEACHING_PREFIXES), ("search", SEARCH_PREFIXES)):
        listed = {prefix.partition(".")[2] for prefix in prefixes if prefix.startswith("problem.")}
        assert listed == slugs[place] - slugs["other"]

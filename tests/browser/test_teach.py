"""Teaching in the browser: from an empty project to a published model, with all that goes wrong on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cards import held_answers, payload
from conftest import open_page
from playwright.sync_api import BrowserContext, Route, expect
from server import Server
from teaching import Teaching, archive, damage, files, teaching_server, views
from test_browser_axe import problems
from test_browser_engines import IS_TOO_WIDE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, packaged_cache: Path) -> Iterator[Server]:
    """A server with teaching on."""
    server = teaching_server(tmp_path_factory.mktemp("teaching"), packaged_cache)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The name of a project of this test's own."""
    return re.sub(r"\W+", "-", request.node.name)[5:60].strip("-")


@pytest.fixture
def teaching(context: BrowserContext, name: str) -> Teaching:
    """A new project."""
    return Teaching.begin(context, name)


def test_two_things_are_taught_tested_and_published(teaching: Teaching, server: Server, name: str) -> None:
    teaching.teach("cat", "coffee")
    expect(teaching.score).to_have_text(
        re.compile(r"^1[0-6] of 1[0-6] photos it had not seen were named correctly\.$")
    )
    expect(teaching.card("cat").locator(".facts")).to_contain_text("8 photos")
    expect(teaching.card("cat").locator(".facts")).to_contain_text("% right")
    expect(teaching.card("cat").locator("[data-part=doubted] > [role=option]")).to_have_count(2)
    page = teaching.page
    page.locator("#file").set_input_files([files("cat", 1, seed=9)[0]])
    expect(page.locator("#verdict")).to_contain_text("cat")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#published-text")).to_have_text(f"Published as {name}, version 1")
    line = page.locator("#published-curl").inner_text()
    assert line == f"""curl -F 'file=@"photo.jpg"' '{server.url}api/v1/predict?model={name}'"""
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download the model").click()
    assert saved.value.path().stat().st_size > 1000


def test_a_wrong_answer_is_corrected_where_it_appears(teaching: Teaching) -> None:
    teaching.teach("cat", "coffee")
    page = teaching.page
    page.locator("#file").set_input_files([files("page", 1)[0]])
    page.locator("#correct").get_by_role("button", name="None of these").click()
    expect(teaching.photos("~none")).to_have_count(1)
    teaching.wait_for_report()
    expect(page.locator("#verdict")).to_have_text("None of these")
    page.get_by_role("button", name="Undo").click()
    expect(teaching.photos("~none")).to_have_count(0)


def test_an_unlike_photo_is_none_of_the_nearest_classes(teaching: Teaching) -> None:
    teaching.teach("cat", "coffee", count=12)
    page = teaching.page
    page.locator("#file").set_input_files([files("page", 1)[0]])
    expect(page.locator("#verdict")).to_have_text("None of these")
    expect(page.locator("#unlike")).to_have_text("It is unlike all photos of your classes. The nearest are:")
    teaching.add("~none", *files("page", 8, seed=3))
    expect(page.locator("#guesses li").first).to_contain_text("None of these")
    expect(page.locator("#unlike")).to_be_hidden()


def test_many_photos_are_selected_and_moved_at_once(teaching: Teaching) -> None:
    teaching.teach("cat", "coffee", count=4)
    page = teaching.page
    teaching.photos("cat").nth(0).click()
    teaching.photos("cat").nth(2).click(modifiers=["Shift"])
    expect(page.locator("#selected-count")).to_have_text("3 photos selected")
    page.locator("#selected-class").select_option("coffee")
    page.get_by_role("button", name="Move", exact=True).click()
    expect(teaching.photos("cat")).to_have_count(1)
    expect(teaching.photos("coffee")).to_have_count(7)
    page.keyboard.press("Control+z")
    expect(teaching.photos("cat")).to_have_count(4)


def test_the_keyboard_selects_and_deletes(teaching: Teaching) -> None:
    teaching.add(0, *files("cat", 4))
    expect(teaching.photos(0)).to_have_count(4)
    page = teaching.page
    teaching.photos(0).nth(0).focus()
    for key in ("Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    expect(page.locator("[data-part=photos] > [aria-selected=true]")).to_have_count(3)
    page.keyboard.press("Delete")
    expect(teaching.photos(0)).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(teaching.photos(0)).to_have_count(4)


def test_a_deletion_is_sent_when_the_page_is_left(teaching: Teaching) -> None:
    teaching.add(0, *files("cat", 3))
    expect(teaching.photos(0)).to_have_count(3)
    teaching.photos(0).nth(1).click()
    teaching.selected.get_by_role("button", name="Delete").click()
    expect(teaching.photos(0)).to_have_count(2)
    address = teaching.page.url
    for left in ("./", address):
        teaching.page.goto(left)
        teaching.page.locator("html[data-alive]").wait_for()
    expect(teaching.photos(0)).to_have_count(2)


def test_folders_in_an_archive_become_classes(teaching: Teaching) -> None:
    data = archive(cat=views("cat", 3), coffee=views("coffee", 3))
    teaching.drop(teaching.page.locator("#cards-title"), payload("things.zip", data, "application/zip"))
    expect(teaching.photos("cat")).to_have_count(3)
    expect(teaching.photos("coffee")).to_have_count(3)
    expect(teaching.page.locator("#refused > li")).to_have_count(0)
    expect(teaching.page.locator("#cards > li")).to_have_count(3)  # the classes of the beginning have these names now


def test_a_folder_leaves_a_class_with_a_name_of_its_own(teaching: Teaching) -> None:
    teaching.name(0, "cup")
    data = archive(cat=views("cat", 1), coffee=views("coffee", 1))
    teaching.drop(teaching.page.locator("#cards-title"), payload("things.zip", data, "application/zip"))
    for label in ("cat", "coffee"):
        expect(teaching.photos(label)).to_have_count(1)
    names = teaching.page.locator("#cards .class-name")
    assert [names.nth(place).input_value() for place in range(3)] == ["cup", "cat", "coffee"]


@pytest.mark.parametrize(("hreflang", "said"), [("en", "cannot be unpacked"), ("zh-Hans", "无法解压")])
def test_a_damaged_entry_of_an_archive_is_named(teaching: Teaching, hreflang: str, said: str) -> None:
    page, names = teaching.page, ("things/cat/0.jpg", "things/coffee/1.jpg")  # of which one is not compressed
    page.locator(f"a[hreflang={hreflang}]").click()
    data = damage(archive(cat=views("cat", 3), coffee=views("coffee", 3)), *names)
    teaching.drop(page.locator("#cards-title"), payload("things.zip", data, "application/zip"))
    for label in ("cat", "coffee"):
        expect(teaching.photos(label)).to_have_count(2)
    refused = page.locator("#refused > li")
    expect(refused).to_have_text([re.compile(f"{name}[:：].*{said}") for name in names])
    expect(page.locator("#message")).to_be_hidden()


@pytest.mark.parametrize("places", [3, 0], ids=["all damaged", "cut short"])
def test_an_archive_without_a_whole_photo_is_named(teaching: Teaching, places: int) -> None:
    data = archive(cat=views("cat", 3))
    broken = damage(data, *(f"things/cat/{place}.jpg" for place in range(places))) if places else data[:-100]
    teaching.drop(teaching.page.locator("#cards-title"), payload("things.zip", broken, "application/zip"))
    expect(teaching.page.locator("#message-text")).to_have_text(re.compile("^things.zip: The archive cannot be read"))
    expect(teaching.page.locator("#refused > li")).to_have_count(0)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_chinese_folders_in_an_archive_keep_their_names(teaching: Teaching, encoding: str) -> None:
    """Programs write such names without saying in which encoding, some with a backslash between folders."""
    label = "猫咪".encode(encoding)
    stand_in = "A" * len(label)
    data = archive(**{stand_in: views("cat", 2)}).replace(f"things/{stand_in}/".encode(), b"things\\" + label + b"\\")
    teaching.drop(teaching.page.locator("#cards-title"), payload("things.zip", data, "application/zip"))
    expect(teaching.photos("猫咪")).to_have_count(2)


def test_folders_in_a_chosen_folder_become_classes(teaching: Teaching, tmp_path: Path) -> None:
    for label in ("tea", "cup"):
        (tmp_path / "things" / label).mkdir(parents=True)
        for number, photo in enumerate(views("cat" if label == "tea" else "coffee", 3)):
            (tmp_path / "things" / label / f"{number}.jpg").write_bytes(photo)
    teaching.page.locator("#folder").set_input_files(tmp_path / "things")
    for label in ("tea", "cup"):
        expect(teaching.photos(label)).to_have_count(3)


def test_photos_wait_for_the_new_name_of_their_class(teaching: Teaching) -> None:
    """The server knows the new name before the page does, so photos under the old one are not found at first."""
    page = teaching.page
    held = held_answers(page, "**/classes/Class%201")
    teaching.card(0).locator(".class-name").fill("cat")
    with page.expect_response(lambda response: response.status == 404):
        page.keyboard.press("Enter")
        teaching.add(0, *files("cat", 2))
    held.wait_for(1)
    route, response = held[0]
    route.fulfill(response=response)
    expect(teaching.photos("cat")).to_have_count(2)


def test_an_answer_from_before_brings_no_old_name_back(teaching: Teaching, name: str) -> None:
    page = teaching.page
    page.wait_for_load_state("networkidle")
    held = held_answers(page, f"**/projects/{name}")
    teaching.add(1, *files("coffee", 1))
    held.wait_for(1)
    route, response = held[0]
    teaching.card(0).locator(".class-name").fill("cat")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Renamed to “cat”.").first).to_be_visible()
    with page.expect_request(f"**/projects/{name}"):
        route.fulfill(response=response)
    expect(teaching.card(0).locator(".class-name")).to_have_value("cat")


def test_a_refused_file_is_named_and_the_others_go_on(teaching: Teaching) -> None:
    dropped = [*files("cat", 2), payload("notes.txt", b"words"), payload("half.jpg", views("cat", 1)[0][:2000])]
    teaching.drop(teaching.card(0), *dropped)
    refused = teaching.page.locator("#refused > li")
    expect(refused).to_have_count(2)
    expect(refused.filter(has_text="notes.txt")).to_contain_text("not a photo that topthree can read")
    expect(refused.filter(has_text="half.jpg")).to_contain_text("damaged")
    expect(teaching.photos(0)).to_have_count(2)


def test_a_photo_on_its_way_when_stopped_is_shown(teaching: Teaching) -> None:
    held: list[Route] = []
    teaching.page.route("**/photos", lambda route, _: held.append(route))
    label = teaching.card(0).get_attribute("data-drop") or ""
    teaching.add(label, *files("cat", 5))
    expect(teaching.page.locator("#tray-progress")).to_be_visible()
    while len(held) < 2:  # as many are sent at once
        teaching.page.wait_for_timeout(20)
    teaching.page.locator("#stop").click()
    expect(teaching.page.locator("#tray")).to_be_hidden()
    for route in held:
        route.continue_()
    expect(teaching.photos(label)).to_have_count(2)
    teaching.page.unroute("**/photos")
    teaching.page.locator("#undo").click()
    expect(teaching.photos(label)).to_have_count(0)


def test_adding_many_photos_can_be_stopped(teaching: Teaching) -> None:
    teaching.add(0, *files("cat", 60))
    teaching.page.get_by_role("button", name="Stop", exact=True).click()
    expect(teaching.page.locator("#tray")).to_be_hidden()
    teaching.page.wait_for_load_state("networkidle")
    count = teaching.card(0).locator("[data-part=count]")
    expect(count).to_have_text(re.compile(r"photos?"))
    assert int(count.inner_text().split()[0]) < 60


def test_the_camera_takes_photos_while_a_button_is_held(teaching: Teaching, context: BrowserContext) -> None:
    context.grant_permissions(["camera"])
    shoot = teaching.card(0).locator("[data-part=shoot]")
    shoot.click()
    expect(shoot).to_have_text("Hold to take photos")
    shoot.focus()
    teaching.page.keyboard.down(" ")
    expect(shoot).to_have_text(re.compile("[2-9] photos taken"))
    teaching.page.keyboard.up(" ")
    expect(teaching.photos(0).nth(1)).to_be_visible()


def test_a_visit_goes_on_where_it_was(teaching: Teaching, context: BrowserContext, name: str) -> None:
    teaching.name(0, "cup", chinese="杯子")
    teaching.add("cup", *files("coffee", 2))
    expect(teaching.photos("cup")).to_have_count(2)
    again = Teaching(open_page(context, teaching.page.url))
    expect(again.photos("cup")).to_have_count(2)
    expect(again.card("cup").locator(".chinese-name")).to_have_value("杯子")
    again.page.get_by_role("link", name="All projects").first.click()
    expect(again.page.locator("#projects").get_by_role("link", name=name, exact=True)).to_be_visible()
    expect(again.page.locator("#space")).to_have_text(re.compile(r"[KM]iB of 1\.0\sGiB used\.$"))


def test_a_project_deleted_in_another_tab_says_so(teaching: Teaching, server: Server, name: str) -> None:
    headers = {"Origin": server.url.rstrip("/")}
    assert httpx.delete(f"{server.url}api/v1/projects/{name}", headers=headers).status_code == 204
    teaching.add(0, *files("cat", 1))
    expect(teaching.page.locator("#gone")).to_be_visible()


def test_a_class_deleted_in_another_tab_says_so(teaching: Teaching, server: Server, name: str) -> None:
    teaching.page.wait_for_load_state("networkidle")
    address = f"{server.url}/api/v1/projects/{name}/classes/Class%201"
    assert httpx.delete(address, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 204
    teaching.add(0, *files("cat", 1))
    expect(teaching.page.locator("#refused > li")).to_have_text(re.compile("cat-1.jpg: This is no longer here"))


def test_a_project_file_that_is_too_large_says_so(teaching: Teaching, tmp_path: Path) -> None:
    path = tmp_path / "large.topthree"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    teaching.page.get_by_role("link", name="All projects").first.click()
    teaching.page.locator("#open-file").set_input_files(path)
    expect(teaching.page.locator("#message-text")).to_contain_text("TOPTHREE_MAX_BATCH_BYTES")


def test_a_project_is_saved_and_opened_again(teaching: Teaching, tmp_path: Path) -> None:
    teaching.add(0, *files("cat", 2))
    expect(teaching.photos(0)).to_have_count(2)
    page = teaching.page
    page.locator(".menu summary").click()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the project as a file").click()
    path = tmp_path / "opened-again.topthree"
    saved.value.save_as(path)
    page.get_by_role("link", name="All projects").first.click()
    page.locator("#open-file").set_input_files(path)
    page.locator("#project").wait_for()
    expect(page.locator("#project-title")).to_have_text("opened-again")
    expect(teaching.photos(0)).to_have_count(2)


@pytest.mark.parametrize(("typed", "said"), [("a b", "Use Latin letters"), ("", "Use Latin letters")])
def test_a_bad_name_is_refused_in_words(context: BrowserContext, typed: str, said: str) -> None:
    page = open_page(context, "teach")
    page.locator("#new-name").fill(typed)
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#new-error")).to_contain_text(said)
    assert problems(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("language", "hreflang"), [("en", "en"), ("zh", "zh-Hans")])
def test_axe_and_a_phone_find_nothing_wrong(teaching: Teaching, scheme: str, language: str, hreflang: str) -> None:
    page = teaching.page
    page.emulate_media(color_scheme=scheme)
    page.locator(f"a[hreflang={hreflang}]").click()
    assert problems(page) == []
    teaching.add(0, *files("cat", 2), payload("notes.txt", b"words"))
    teaching.add(1, *files("coffee", 2))
    teaching.wait_for_report()
    page.locator("#file").set_input_files([files("cat", 1, seed=9)[0]])
    expect(page.locator("#verdict")).to_be_visible()
    teaching.photos(0).nth(0).click()
    page.locator(".menu summary").click()
    page.locator("#publish").click()
    expect(page.locator("#published")).to_be_visible()
    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate(f"() => {{ {IS_TOO_WIDE} }}") == []
        assert problems(page) == []
    page.locator("#delete-project").click()
    assert problems(page) == []


def test_the_first_page_leads_to_teaching(context: BrowserContext) -> None:
    page = open_page(context)
    page.get_by_role("link", name="Teach it your own things").click()
    expect(page.locator("#create")).to_be_visible()

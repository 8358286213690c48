"""`topthree predict`: every source, every form of output, and files that cannot be read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import colour_png, fake_model

from app.commands import cli
from app.model.served import Served

# The fake engine's likeliest class is the number that is the photo's red: 0 is tench, 2 great white shark.
RED = colour_png(0, 2, 1)
BLUE = colour_png(2, 1, 0, size=(40, 30))


@pytest.fixture(autouse=True)
def fake_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(fake_model()))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a red photo, a blue one below it, a text named .jpg and a file that is no photo by name."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(RED)
    (folder / "b.jpg").write_text("Just some words.")
    (folder / "notes.txt").write_text("Not looked at.")
    (folder / "sub" / "c.PNG").write_bytes(BLUE)
    return folder


def predict(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments)], input=stdin)


def best(result: Result) -> list[tuple[str, int]]:
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [(Path(line["file"]).name, line["predictions"][0]["class_id"]) for line in lines if "predictions" in line]


def test_json_is_one_document_with_results_and_model(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    result = predict(tmp_path / "a.png", "--json", "--top", 1)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "results": [
            {
                "file": str(tmp_path / "a.png"),
                "predictions": [
                    {
                        "rank": 1,
                        "class_id": 0,
                        "wnid": "n01440764",
                        "label": "tench",
                        "label_zh": "丁鱥",
                        "label_gloss": None,
                        "confidence": 0.665241,
                        "probability": None,
                    }
                ],
                "image": {"width": 300, "height": 260, "format": "PNG", "sha256": hashlib.sha256(RED).hexdigest()},
                "certainty": None,
            }
        ],
        "model": fake_model().identity,
    }


@pytest.mark.parametrize("form", ["--json", "--ndjson", "--csv", "--table"])
def test_chinese_names_are_not_escaped(photos: Path, form: str) -> None:
    assert "丁鱥" in predict(photos / "a.png", form).stdout


def test_ndjson_has_one_line_for_each_photo_in_order(photos: Path) -> None:
    result = predict(photos, "--ndjson")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.png", "b.jpg", "c.PNG"]
    assert best(result) == [("a.png", 0), ("c.PNG", 2)]


def test_several_sources_are_taken_in_the_order_given(photos: Path) -> None:
    assert best(predict(photos / "sub", photos / "a.png", "--ndjson")) == [("c.PNG", 2), ("a.png", 0)]


def test_csv_has_one_line_per_answer_and_per_bad_file(photos: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(predict(photos, "--csv", "--top", 2).stdout)))
    assert [(Path(row["file"]).name, row["rank"], row["label"]) for row in rows] == [
        ("a.png", "1", "tench"),
        ("a.png", "2", "great white shark"),
        ("b.jpg", "", ""),
        ("c.PNG", "1", "great white shark"),
        ("c.PNG", "2", "goldfish"),
    ]
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False]


@pytest.mark.parametrize("name", ['comma, and "quotes".png', "new\nline.png", "=1+1.png", "猫.png"])
def test_csv_quotes_every_file_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(RED)
    rows = list(csv.reader(io.StringIO(predict(tmp_path / name, "--csv", "--top", 1).stdout, newline="")))
    assert rows[1] == [str(tmp_path / name), "1", "0", "n01440764", "tench", "丁鱥", "0.665241", "", "", ""]


def test_table_names_the_file_once_and_shows_percentages(photos: Path) -> None:
    lines = predict(photos / "a.png").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["file", "confidence", "English", "中文", "certainty"],
        [str(photos / "a.png"), "66.5", "%", "tench", "丁鱥"],
        ["24.5", "%", "great", "white", "shark", "大白鲨"],
        ["9.0", "%", "goldfish", "金鱼"],
    ]


def test_table_folds_no_line_where_there_is_no_terminal(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 50) / ("path" * 50)
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(RED)
    assert str(folder / "a.png") in predict(folder).stdout


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("[red]x[/red].png", "[red]x[/red].png"),
        ("[x.png", "[x.png"),
        (":cat:.png", ":cat:.png"),
        ("new\nline.png", r"new\nline.png"),
        ("\x1b[31mred.png", r"\x1b[31mred.png"),
        ("猫 photo\u202f1.png", "猫 photo\u202f1.png"),
        (os.fsdecode(b"\xff\xfe.png"), r"\udcff\udcfe.png"),
    ],
)
def test_table_shows_file_names_literally_on_one_line(tmp_path: Path, name: str, shown: str) -> None:
    for file, data in ((name, RED), (f"bad {name}", b"")):
        (tmp_path / file).parent.mkdir(exist_ok=True)  # the slash of [/red] makes a folder
        (tmp_path / file).write_bytes(data)
    lines = predict(tmp_path, "--top", 1).stdout.splitlines()
    assert len(lines) == 3
    assert sum(f"{tmp_path}/{shown} " in line for line in lines) == 1
    assert sum(f"{tmp_path}/bad {shown} " in line for line in lines) == 1


@pytest.mark.parametrize("form", ["--json", "--ndjson"])
def test_json_keeps_a_file_name_that_is_no_utf_8(tmp_path: Path, form: str) -> None:
    file = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(file)).write_bytes(RED)
    answer = json.loads(predict(os.fsdecode(file), form).stdout)
    assert os.fsencode(answer["results"][0]["file"] if form == "--json" else answer["file"]) == file


@pytest.mark.parametrize("more", [["--csv"], ["--table"], ["--ndjson", "--csv"]])
def test_two_formats_are_refused(photos: Path, more: list[str]) -> None:
    result = predict(photos, "--json", *more)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Error: --json and {more[0]} exclude each other." in result.stderr


def test_files_that_cannot_be_read_load_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.classifier.load_served", lambda *_: pytest.fail("The model was loaded."))
    result = predict(tmp_path / "missing.jpg", "--json")
    assert result.exit_code == 1
    error = "The file cannot be read: No such file or directory."
    assert json.loads(result.stdout) == {"results": [{"file": str(tmp_path / "missing.jpg"), "error": error}]}


def test_labels_of_an_own_model_are_shown_literally(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fake_model()
    first, *others = model.labels
    own = type(model)(model.engine, (type(first)(0, None, "[b]tin[/b] :cat:", None), *others), model.weights)
    monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(own))
    assert "[b]tin[/b] :cat:" in predict(photos / "a.png").stdout


@pytest.mark.parametrize("form", ["--json", "--ndjson", "--csv", "--table"])
def test_a_bad_file_is_reported_in_its_place_and_the_status_is_1(photos: Path, form: str) -> None:
    result = predict(photos, form)
    assert result.exit_code == 1
    places = [result.stdout.index(text) for text in ("a.png", "b.jpg", "This looks like text", "c.PNG")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: path.write_bytes(b""), "The file is empty."),
        (lambda path: path.write_bytes(RED[:200]), "damaged or incomplete"),
        (lambda path: None, "The file cannot be read: No such file or directory."),
        (lambda path: path.symlink_to(path), "The file cannot be read: Too many levels of symbolic links."),
        (lambda path: path.symlink_to("gone.png"), "The link leads to gone.png, which does not exist."),
    ],
)
def test_each_bad_file_has_its_reason(tmp_path: Path, make, error: str) -> None:
    make(tmp_path / "x.png")
    result = predict(tmp_path / "x.png", "--ndjson")
    assert error in json.loads(result.stdout)["error"]
    assert result.exit_code == 1


def test_dead_link_in_a_folder_is_reported_in_its_place(photos: Path) -> None:
    (photos / "aa.jpg").symlink_to("gone.jpg")
    (photos / "._a.png").write_bytes(b"\0\5\26\7")
    result = predict(photos, "--ndjson")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.png", "aa.jpg", "b.jpg", "c.PNG"]
    assert (lines[1]["error"], result.exit_code) == ("The link leads to gone.jpg, which does not exist.", 1)


def test_a_name_too_long_for_the_file_system_is_a_bad_file() -> None:
    result = predict("x" * 300, "--ndjson")
    assert json.loads(result.stdout)["error"] == "The file cannot be read: File name too long."


def test_pixels_over_the_limit_are_a_bad_file(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPTHREE_MAX_PIXELS", "1200")
    result = predict(photos / "a.png", photos / "sub" / "c.PNG", "--ndjson")
    assert best(result) == [("c.PNG", 2)]
    assert "more than 1,200 pixels" in result.stdout


def test_standard_input_is_one_photo_named_by_its_dash() -> None:
    result = predict("-", "--ndjson", stdin=BLUE)
    assert best(result) == [("-", 2)]
    assert json.loads(result.stdout)["image"]["width"] == 40


def test_standard_input_without_a_byte_is_a_bad_file() -> None:
    assert json.loads(predict("-", "--ndjson", stdin=b"").stdout) == {"file": "-", "error": "The file is empty."}


def test_a_folder_without_a_photo_is_one_sentence(tmp_path: Path) -> None:
    result = predict(tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: There is no photo in {tmp_path}.\n"


def test_without_a_source_the_usage_is_shown() -> None:
    result = predict()
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr


@pytest.mark.parametrize("top", ["0", "1001", "three"])
def test_top_out_of_range_is_refused(top: str) -> None:
    result = predict("x.png", "--top", top)
    assert result.exit_code == 2
    assert "--top" in result.stderr


def test_more_photos_than_a_batch_keep_their_order(tmp_path: Path) -> None:
    for number in range(35):
        (tmp_path / f"{number:02}.png").write_bytes(BLUE if number % 3 else RED)
    assert [class_id for _, class_id in best(predict(tmp_path, "--ndjson"))] == [2 if n % 3 else 0 for n in range(35)]


def test_real_photos_are_named_by_the_real_model(tmp_path, monkeypatch, packaged_classifier, real_photos) -> None:
    monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(packaged_classifier.load_model()))
    for name, data in real_photos.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    rows = list(csv.DictReader(io.StringIO(predict(tmp_path, "--csv").stdout)))
    names = {Path(row["file"]).stem: row["label"] for row in reversed(rows) if row["rank"] == "1"}
    assert names["cat"] in ("tabby", "tiger cat", "Egyptian cat")
    assert (names["coffee"], names["rocket"]) == ("espresso", "missile")

"""`topthree evaluate`: how photos are labelled and counted, and the interval of the result."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import colour_png, fake_model, fallback_model

from app.commands import cli
from app.model.calibration import Calibration
from app.model.certainty import Judge
from app.model.labels import Label
from app.model.served import Served

# The fake engine answers with the photo's three colour values as classes, the likeliest first.
RED = colour_png(0, 1, 2)
GREEN = colour_png(1, 0, 2)
TENCH, GOLDFISH, SHARK = "n01440764", "n01443537", "n01484850"


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch):
    """Let the tests say which model is evaluated."""

    def choose(model) -> None:
        monkeypatch.setattr("app.classifier.load_served", lambda *_: Served(model))

    choose(fake_model())
    return choose


@pytest.fixture
def write(tmp_path: Path):
    """Write files below the folder under test, and return its path."""

    def write(**files: bytes) -> Path:
        for name, data in files.items():
            (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name).write_bytes(data)
        return tmp_path / "set"

    return write


def evaluate(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["evaluate", str(folder), *options])


def report(folder: Path) -> dict:
    result = evaluate(folder, "--json")
    assert result.stdout, result.stderr
    return json.loads(result.stdout)


def shares(folder: Path) -> list[float]:
    return [share["percent"] for share in report(folder)["top"].values()]


def test_json_has_every_count_and_the_model(write) -> None:
    folder = write(**{f"{TENCH}/a.png": RED, f"{TENCH}/b.png": GREEN, "other.png": RED})
    found = report(folder)
    assert found.pop("images_per_second") > 0
    assert found.pop("uncalibrated")["coverage"] == 0.0
    assert found == {
        "photos": 2,
        "unreadable": [],
        "unlabelled": [str(folder / "other.png")],
        "top": {
            "1": {"percent": 50.0, "low": 9.45, "high": 90.55, "count": 2},
            "3": {"percent": 100.0, "low": 34.24, "high": 100.0, "count": 2},
            "5": {"percent": 100.0, "low": 34.24, "high": 100.0, "count": 2},
        },
        "calibrated": None,
        "sure": None,
        "confusions": [{"label": "tench", "taken_for": "goldfish", "photos": 1}],
        "classes": [
            {
                "label": "tench",
                "photos": 2,
                "recall": {"percent": 50.0, "low": 9.45, "high": 90.55, "count": 2},
                "precision": {"percent": 100.0, "low": 20.65, "high": 100.0, "count": 1},
            },
            {
                "label": "goldfish",
                "photos": 0,
                "recall": None,
                "precision": {"percent": 0.0, "low": 0.0, "high": 79.35, "count": 1},
            },
        ],
        "model": fake_model().identity,
    }


@pytest.mark.parametrize(
    "name",
    [
        f"{TENCH}/a.png",
        f"{TENCH}/deeper/a.png",
        f"{GOLDFISH}/{TENCH}/a.png",
        "tench/a.png",
        "Tench/a.png",
        "N01440764/a.png",
        f"{TENCH}.png",
        f"{TENCH}_tench.png",
        f"{TENCH}-17.png",
        f"{TENCH} copy.png",
        f"{TENCH}-tench/a.png",
        f"unknown/{TENCH}_17.png",
        f"tench/{GOLDFISH}_17.png",
    ],
)
def test_the_class_is_the_nearest_folder_s_or_the_file_name_s(write, name: str) -> None:
    assert shares(write(**{name: RED})) == [100.0, 100.0, 100.0]


@pytest.mark.parametrize(
    "name",
    [
        "a.png",
        "tench_17.png",
        "tench.png",
        "unknown/a.png",
        f"{TENCH}9/a.png",
        f"{TENCH}9_a.png",
        f"my_{TENCH}.png",
        "cardigan/a.png",
    ],
)
def test_other_files_are_counted_as_unlabelled(write, name: str) -> None:
    folder = write(**{name: RED, f"{TENCH}_good.png": RED})
    assert report(folder)["unlabelled"] == [str(folder / name)]
    assert "Not labelled, left out: 1 file\n" in evaluate(folder).stdout


def test_names_above_the_folder_do_not_count(tmp_path: Path) -> None:
    folder = tmp_path / TENCH
    folder.mkdir()
    (folder / "a.png").write_bytes(RED)
    assert evaluate(folder).exit_code == 1


def test_an_own_model_s_labels_name_the_folders(write, model) -> None:
    own = (Label(0, None, "cat", None), Label(1, None, "harbour seal", None), *fake_model().labels[2:])
    model(dataclasses.replace(fake_model(), labels=own))
    folder = write(**{"cat/a.png": RED, "Harbour_Seal/a.png": GREEN, "cat/b.png": GREEN, "dog/cat_2.png": RED})
    found = report(folder)
    assert (found["photos"], found["unlabelled"]) == (3, [str(folder / "dog" / "cat_2.png")])
    assert found["confusions"] == [{"label": "cat", "taken_for": "harbour seal", "photos": 1}]


@pytest.mark.parametrize("name", ["empty.png", "[red]x[/red].png", "new\nline.png"])
def test_unreadable_files_are_listed_and_the_status_is_1(write, name: str) -> None:
    folder = write(**{f"{TENCH}/a.png": RED, f"{TENCH}/{name}": b""})
    found = report(folder)
    assert (found["photos"], found["top"]["1"]["percent"]) == (1, 100.0)
    assert found["unreadable"] == [f"{folder / TENCH / name}: The file is empty."]
    result = evaluate(folder)
    shown = name.replace("\n", r"\n")
    assert f"Not read: {folder / TENCH / shown}: The file is empty.\n" in result.stdout
    assert result.exit_code == 1


def test_dead_link_without_a_class_is_listed_too(write) -> None:
    folder = write(**{f"{TENCH}/a.png": RED})
    (folder / "b.png").symlink_to("gone.png")
    found = report(folder)
    assert (found["photos"], found["unlabelled"]) == (1, [])
    assert found["unreadable"] == [f"{folder / 'b.png'}: The link leads to gone.png, which does not exist."]
    assert evaluate(folder).exit_code == 1


def test_only_unreadable_files_give_the_whole_interval(write) -> None:
    found = report(write(**{f"{TENCH}/a.png": b""}))
    assert found["photos"] == 0
    assert found["top"]["1"] == {"percent": 0.0, "low": 0.0, "high": 100.0, "count": 0}


@pytest.mark.parametrize("files", [{}, {"a.png": RED}])
def test_no_labelled_photo_is_one_sentence(write, tmp_path: Path, files: dict[str, bytes]) -> None:
    (tmp_path / "set").mkdir(exist_ok=True)
    write(**files)
    result = evaluate(tmp_path / "set")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    result = evaluate(tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_the_worst_confused_classes_come_first(write) -> None:
    files = {f"{SHARK}/{number}.png": RED for number in range(3)} | {f"{TENCH}/{n}.png": GREEN for n in range(2)}
    found = report(write(**files, **{f"{GOLDFISH}/a.png": GREEN}))["confusions"]
    assert [(c["label"], c["taken_for"], c["photos"]) for c in found] == [
        ("great white shark", "tench", 3),
        ("tench", "goldfish", 2),
    ]


def test_at_most_ten_confusions_are_shown(write, model) -> None:
    found = report(write(**{f"{label.wnid}/a.png": RED for label in fake_model().labels[1:13]}))
    assert len(found["confusions"]) == 10


def test_the_report_reads_well(write) -> None:
    lines = evaluate(write(**{f"{TENCH}/a.png": RED, f"{TENCH}/b.png": GREEN})).stdout.splitlines()
    assert lines[:3] == [
        "resnet18 (fake, fp32) on 2 photos",
        "  top-1   50.00 %   95% interval 9.45 to 90.55 %",
        "  top-3  100.00 %   95% interval 34.24 to 100.00 %",
    ]
    assert lines[5] == "  published for ImageNet's validation set: top-1 69.758 %, top-5 89.078 %"
    assert lines[6].startswith("  calibration error of the confidences  ")
    assert lines[7:] == [
        "  coverage at 95 % accuracy by confidences  0.00 %",
        "  not calibrated: 'topthree calibrate' measures probabilities for your photos",
        "Most confused:",
        "    1  tench classified as goldfish",
    ]


def test_published_accuracy_is_shown_only_for_published_files(write, model) -> None:
    folder = write(**{f"{TENCH}/a.png": RED})
    assert "published" in evaluate(folder).stdout
    model(fallback_model_of_another_file())
    assert "published" not in evaluate(folder).stdout


def fallback_model_of_another_file():
    loaded = fallback_model()
    return dataclasses.replace(loaded, weights=dataclasses.replace(loaded.weights, sha256="0" * 64))


def test_a_real_model_names_real_photos(write, model, packaged_classifier, real_photos) -> None:
    model(packaged_classifier.load_model())
    names = {"espresso/a.jpg": "coffee", "missile/a.jpg": "rocket", "n02123045/cat.jpg": "cat"}
    found = report(write(**{name: real_photos[photo] for name, photo in names.items()}))
    assert found["photos"] == 3
    assert found["top"]["3"]["percent"] == 100.0


@pytest.fixture
def calibrated(model):
    """Calibrate the fake model: its first class, at a softmax of 0.67, gets 0.84."""
    known = Calibration(0.5, 0.8, None, "Made by the test.")
    model(dataclasses.replace(fake_model(), judge=Judge(known)))


def test_a_calibrated_model_is_judged_before_and_after(write, calibrated) -> None:
    folder = write(**{f"{TENCH}/{n}.png": RED for n in range(17)}, **{f"{TENCH}/w{n}.png": GREEN for n in range(3)})
    found = report(folder)
    assert found["uncalibrated"]["error"] == pytest.approx(85 - 66.52, abs=0.01)
    assert found["calibrated"]["error"] == pytest.approx(86.68 - 85, abs=0.01)
    assert found["calibrated"]["low"] == 0.0
    assert found["sure"] == {"photos": 20, "wrong": {"percent": 15.0, "low": 5.24, "high": 36.04, "count": 20}}
    assert "  sure of 20 photos, of which 15.0 % (5.2 to 36.0 %) wrong\n" in evaluate(folder).stdout


def test_per_class_prints_recall_and_precision(write) -> None:
    folder = write(**{f"{TENCH}/a.png": RED, f"{TENCH}/b.png": GREEN})
    assert "Classes" not in evaluate(folder).stdout
    lines = evaluate(folder, "--per-class").stdout.splitlines()
    first = lines.index("Classes (photos, recall, precision):")
    assert [" ".join(line.split()) for line in lines[first + 1 : first + 3]] == [
        "2 50.0 % (9.4 to 90.5 %) 100.0 % (20.6 to 100.0 %) tench",
        "0 - 0.0 % (0.0 to 79.3 %) goldfish",
    ]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_plot_draws_a_reliability_diagram(write, calibrated, tmp_path: Path, options: list[str]) -> None:
    folder = write(**{f"{TENCH}/a.png": RED, f"{TENCH}/b.png": GREEN})
    result = evaluate(folder, "--plot", str(tmp_path / "r.svg"), *options)
    assert result.exit_code == 0
    text = "".join(ET.parse(tmp_path / "r.svg").getroot().itertext())
    assert "resnet18 on 2 photos" in text
    assert "confidences: calibration error" in text
    assert "probabilities: calibration error" in text


def test_a_plot_of_another_format_is_a_mistake_in_use(write, tmp_path: Path) -> None:
    result = evaluate(write(**{f"{TENCH}/a.png": RED}), "--plot", str(tmp_path / "r.png"))
    assert result.exit_code == 2
    assert "must end in .svg" in result.stderr


def test_a_plot_that_cannot_be_written_is_one_sentence(write, tmp_path: Path) -> None:
    result = evaluate(write(**{f"{TENCH}/a.png": RED}), "--plot", str(tmp_path / "nowhere" / "r.svg"))
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'nowhere' / 'r.svg'} cannot be written: No such file or directory.\n"

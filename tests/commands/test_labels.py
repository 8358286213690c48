"""`topthree labels`: classes are found by number, id, part of a name or shared word, in both languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.commands import cli


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("tabby", [281]),
        ("TABBY", [281]),
        ("虎斑猫", [281]),
        ("n02123045", [281]),
        ("281", [281]),
        ("crane", [134, 517]),
        ("鼬鲨", [3]),
        ("虎", [92, 148, 281, 292, 300, 800]),
    ],
)
def test_labels_finds_classes_in_both_languages(query: str, ids: list[int]) -> None:
    result = invoke("labels", query, "--json")
    assert [label["class_id"] for label in json.loads(result.stdout)] == ids


def test_labels_prints_number_wordnet_id_and_both_names() -> None:
    assert invoke("labels", "tabby").stdout == " 281  n02123045  tabby  虎斑猫  (striped cat)\n"


def test_labels_json_holds_all_that_is_known() -> None:
    row = {"class_id": 281, "wnid": "n02123045", "label": "tabby", "label_zh": "虎斑猫", "label_gloss": "striped cat"}
    assert json.loads(invoke("labels", "tabby", "--json").stdout) == [row]


@pytest.mark.parametrize(("options", "stdout"), [((), ""), (("--json",), "[]\n")])
def test_labels_without_a_match_is_one_sentence_and_status_1(options, stdout: str) -> None:
    result = invoke("labels", "unicorn", *options)
    assert (result.exit_code, result.stdout) == (1, stdout)
    assert result.stderr == "Error: No class matches 'unicorn'.\n"


def test_labels_searches_an_own_model_s_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.txt").write_text("cat\ndog\n")
    monkeypatch.setenv("TOPTHREE_LABELS", str(tmp_path / "own.txt"))
    monkeypatch.setenv("TOPTHREE_WEIGHTS", str(tmp_path / "own.pth"))
    assert invoke("labels", "o").stdout == "   1    dog\n"


def test_the_number_of_further_matches_is_shown() -> None:
    every = invoke("labels", "dog", "--all")
    first = invoke("labels", "dog")
    count = len(every.stdout.splitlines())
    assert first.stdout.splitlines() == every.stdout.splitlines()[:20]
    assert (first.stderr, every.stderr) == (f"{count - 20} more matches: --all shows them.\n", "")
    assert len(json.loads(invoke("labels", "dog", "--json").stdout)) == count


@pytest.mark.parametrize(
    ("query", "name"),
    [("tabby cat", "tabby"), ("golden retriever puppy", "golden retriever"), ("cat", "tiger cat"), ("my cup", "cup")],
)
def test_the_nearest_name_comes_first(query: str, name: str) -> None:
    assert json.loads(invoke("labels", query, "--json").stdout)[0]["label"] == name

"""`topthree duplicates`: what it prints and writes, and what it says when it cannot."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from indexes import made_vectors, make_library

from app.commands import cli


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index in which 0.jpg and 1.jpg are the same picture, and 4.jpg is named like a formula."""
    folder = tmp_path / "lib"
    make_library(folder, made_vectors(6)[[0, 0, 3, 3, 4, 5]])
    rows = next(folder.glob("data-*/rows.ndjson"))
    rows.write_bytes(rows.read_bytes().replace(b'"3.jpg"', b'"=.jpg"'))
    hashes = np.fromfile(next(folder.glob("data-*/hashes.u64")), np.uint64)
    hashes[4:] = [2**40 - 1, 2**60 - 2**30]
    hashes.tofile(next(folder.glob("data-*/hashes.u64")))
    return folder


def test_groups_are_printed(runner: CliRunner, index: Path) -> None:
    done = runner.invoke(cli, ["duplicates", str(index)])
    assert done.exit_code == 0
    assert done.stdout.startswith("same picture:\n  0.jpg  (30 × 20, 1 kB)\n  1.jpg  (30 × 20, 1 kB)\nsame picture:\n")
    assert "6 photos compared, none changed: 0 groups of the same file, 2 of the same picture," in done.stderr


def test_a_table_escapes_names_like_formulas(runner: CliRunner, index: Path, tmp_path: Path) -> None:
    path = tmp_path / "found.csv"
    assert runner.invoke(cli, ["duplicates", str(index), "--output", str(path)]).exit_code == 0
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["kind"], row["group"], row["path"]) for row in rows[:4]] == [
        *(("same picture", "1", "0.jpg"), ("same picture", "1", "1.jpg")),
        *(("same picture", "2", "2.jpg"), ("same picture", "2", "'=.jpg")),
    ]
    assert rows[0] | {"sha256": ""} == {
        **{"kind": "same picture", "group": "1", "path": "0.jpg"},
        **{"width": "30", "height": "20", "bytes": "1000", "sha256": ""},
    }


def test_a_document_has_all_groups(runner: CliRunner, index: Path, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    assert runner.invoke(cli, ["duplicates", str(index), "--output", str(path)]).exit_code == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["photos"] == 6
    assert [photo["path"] for photo in document["groups"][1]["photos"]] == ["2.jpg", "=.jpg"]


def test_a_report_is_written(runner: CliRunner, index: Path, tmp_path: Path) -> None:
    path = tmp_path / "found.html"
    for options, has_thumbnails in (([], True), (["--no-thumbnails", "--language", "zh"], False)):
        done = runner.invoke(cli, ["duplicates", str(index), "--output", str(path), *options])
        assert (done.exit_code, done.stderr.splitlines()[-1]) == (0, f"Wrote {path}.")
        assert ("data:image/jpeg" in path.read_text(encoding="utf-8")) == has_thumbnails


@pytest.mark.parametrize(
    ("output", "status", "sentence"),
    [
        ("found.txt", 2, "must end in .html, .csv or .json"),
        ("missing/found.csv", 1, "cannot be written: No such file or directory."),
    ],
)
def test_an_output_that_cannot_be_written_is_said(
    runner: CliRunner, index: Path, tmp_path: Path, output: str, status: int, sentence: str
) -> None:
    done = runner.invoke(cli, ["duplicates", str(index), "--output", str(tmp_path / output)])
    assert (done.exit_code, sentence in done.stderr) == (status, True)


def test_a_folder_without_an_index_is_said(runner: CliRunner, tmp_path: Path) -> None:
    done = runner.invoke(cli, ["duplicates", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (1, f"Error: {tmp_path} is not an index: it has no index.json.\n")

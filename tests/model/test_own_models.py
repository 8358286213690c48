"""Models of one's own appear as a whole, keep their last versions, and are refused in one sentence when damaged."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from own_heads import own_model
from safetensors.numpy import load_file, save

from app.errors import OwnModelError
from app.model import own_models
from app.model.calibration import Calibration
from app.model.own_format import DESCRIPTION, FILES, HEAD, LABELS, MAX_BYTES, TRUNK
from app.model.own_models import (
    MAX_VERSIONS,
    PINNED,
    list_models,
    list_names,
    list_versions,
    read_version,
    remove,
    use_version,
    version_in_use,
    write_version,
)


def is_one_sentence(error: BaseException) -> bool:
    text = str(error)
    return text.endswith(".") and "\n" not in text


def describe(folder: Path, **changes: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_version_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = own_model(calibration=Calibration(1.5, 0.8, None, "Left-out photos.", 30, {"sure_at": (0.7, 0.9)}))
    assert write_version(tmp_path / "models", "pets", made) == 1
    found = read_version(tmp_path / "models", "pets")
    assert (found.name, found.version) == ("pets", 1)
    assert np.array_equal(found.weight, made.weight)
    assert np.array_equal(found.bias, made.bias)
    same = dataclasses.replace(found, weight=made.weight, bias=made.bias, name="", version=0, sha256="")
    assert vars(same) == vars(made)  # unlike the objects, it takes one array for equal to itself in Python 3.13 too


def test_the_same_model_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_version(tmp_path, name, own_model())
    heads = [(tmp_path / name / "1" / HEAD).read_bytes() for name in ("one", "two")]
    assert heads[0] == heads[1]
    assert sorted(path.name for path in (tmp_path / "one" / "1").iterdir()) == sorted(FILES)


def test_the_newest_version_is_used_until_another_is(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        write_version(tmp_path, "pets", own_model(seed=seed))
    assert read_version(tmp_path, "pets").seed == 3
    assert use_version(tmp_path, "pets", 1).seed == 1
    assert read_version(tmp_path, "pets").seed == 1
    assert write_version(tmp_path, "pets", own_model(seed=4)) == 4
    assert read_version(tmp_path, "pets").seed == 4


def test_the_last_versions_are_kept(tmp_path: Path) -> None:
    for _ in range(MAX_VERSIONS + 2):
        write_version(tmp_path, "pets", own_model())
    assert list_versions(tmp_path, "pets") == [3, 4, 5, 6, 7]
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == ["3", "4", "5", "6", "7"]


def test_removing_a_version_leaves_the_others(tmp_path: Path) -> None:
    for _ in range(3):
        write_version(tmp_path, "pets", own_model())
    use_version(tmp_path, "pets", 2)
    remove(tmp_path, "pets", 1)
    assert version_in_use(tmp_path, "pets") == 2
    remove(tmp_path, "pets", 2)
    assert version_in_use(tmp_path, "pets") == 3
    remove(tmp_path, "pets", 3)
    assert list_names(tmp_path) == []
    assert not (tmp_path / "pets").exists()


def test_a_whole_model_can_be_removed(tmp_path: Path) -> None:
    for name in ("pets", "pets", "tools"):
        write_version(tmp_path, name, own_model())
    remove(tmp_path, "pets")
    assert list_names(tmp_path) == ["tools"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "tools"]


def test_a_renamed_folder_is_a_model_of_that_name(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    (tmp_path / "pets").rename(tmp_path / "animals")
    assert read_version(tmp_path, "animals").name == "animals"


@pytest.mark.parametrize(
    "name", ["", "a/b", "../up", "/etc", ".hidden", "-x", "猫", "a b", "a,b", "a\n", "x" * 65, "resnet18", "a\0b"]
)
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    for work in (write_version, use_version, remove, read_version):
        arguments = {write_version: (own_model(),), use_version: (1,)}.get(work, ())
        with pytest.raises(OwnModelError) as caught:
            work(tmp_path / "models", name, *arguments)
        assert is_one_sentence(caught.value)
    assert list_names(tmp_path / "models") == []
    assert [path.name for path in tmp_path.rglob("*") if path.name not in ("models", ".lock")] == []


def test_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    write_version(tmp_path, "Pets", own_model())
    with pytest.raises(OwnModelError, match="there is one named Pets"):
        write_version(tmp_path, "pets", own_model())


def with_tensors(**tensors: np.ndarray) -> bytes:
    return save(tensors)


GOOD, BIAS = np.zeros((3, 4), np.float32), np.zeros(3, np.float32)
DAMAGED = {
    "a head that is cut short": (HEAD, lambda data: data[:-1]),
    "a head that is a pickle": (HEAD, lambda data: b"\x80\x04N."),
    "an empty head": (HEAD, lambda data: b""),
    "a head of float64": (HEAD, lambda data: with_tensors(weight=GOOD.astype(np.float64), bias=BIAS)),
    "a head without a bias": (HEAD, lambda data: with_tensors(weight=GOOD)),
    "a bias that does not fit": (HEAD, lambda data: with_tensors(weight=GOOD, bias=BIAS[:2])),
    "a head of other classes": (HEAD, lambda data: with_tensors(weight=GOOD[:2], bias=BIAS[:2])),
    "a head that is not finite": (HEAD, lambda data: with_tensors(weight=GOOD + np.nan, bias=BIAS)),
    "labels that are not UTF-8": (LABELS, lambda data: b"label\n\xff\n"),
    "no labels": (LABELS, lambda data: b""),
    "a description that is no JSON": (DESCRIPTION, lambda data: data[:20]),
    "a description that is a list": (DESCRIPTION, lambda data: b"[]"),
    "a description without a backbone": (DESCRIPTION, lambda data: data.replace(b'"backbone"', b'"backbones"')),
    "a description of deep lists": (DESCRIPTION, lambda data: b"[" * 100_000),
    "a calibration that is not positive": (
        DESCRIPTION,
        lambda data: data.replace(b'"calibration": null', b'"calibration": {"temperature": -1, "source": ""}'),
    ),
    "a calibration with another member": (
        DESCRIPTION,
        lambda data: data.replace(b'"calibration": null', b'"calibration": {"heat": 1, "source": ""}'),
    ),
    "an accuracy that is a word": (DESCRIPTION, lambda data: data.replace(b"90.0", b'"good"')),
    "an accuracy of 400 digits": (DESCRIPTION, lambda data: data.replace(b"90.0", b"9" * 400)),
    "a list": (DESCRIPTION, lambda _: b"[]"),
    "half a character": (DESCRIPTION, lambda data: data.replace(b'"resnet18"', rb'"resnet\ud800"')),
    "a number that is not finite": (DESCRIPTION, lambda data: data.replace(b'"seed": 1', b'"seed": 1, "x": NaN')),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_version_is_refused_in_a_sentence(tmp_path: Path, damage: str) -> None:
    write_version(tmp_path, "pets", own_model())
    file, change = DAMAGED[damage]
    path = tmp_path / "pets" / "1" / file
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(OwnModelError) as caught:
        read_version(tmp_path, "pets")
    assert is_one_sentence(caught.value)
    assert str(tmp_path / "pets" / "1") in str(caught.value)


def test_centres_are_read_back_in_a_format_of_their_own(tmp_path: Path) -> None:
    centres = own_model().weight / 2
    write_version(tmp_path, "pets", own_model())
    write_version(tmp_path, "pets", own_model(centres=centres))
    formats = [json.loads((tmp_path / "pets" / f"{number}" / "model.json").read_text())["format"] for number in (1, 2)]
    assert formats == [1, 2]
    assert read_version(tmp_path, "pets", 1).centres is None
    assert np.array_equal(read_version(tmp_path, "pets", 2).centres, centres)


def test_a_newer_format_is_refused_with_advice(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    describe(tmp_path / "pets" / "1", format=4)
    with pytest.raises(OwnModelError, match="has format 4, and .* reads up to format 3: install"):
        read_version(tmp_path, "pets")


def trunk(**tensors: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "bn1.bias": np.ones(2, np.float32),
    } | (tensors)


def test_a_fine_tuned_version_holds_its_weights(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model(), trunk())
    write_version(tmp_path, "tools", own_model(), trunk())
    found, twin = read_version(tmp_path, "pets"), read_version(tmp_path, "tools")
    assert json.loads((tmp_path / "pets" / "1" / DESCRIPTION).read_text())["format"] == 3
    assert found.trunk.sha256 == twin.trunk.sha256 == found.features_sha256 != found.weights_sha256
    assert found.trunk.path == tmp_path / "pets" / "1" / TRUNK
    kept = load_file(found.trunk.path)
    assert {name: each.tolist() for name, each in kept.items()} == {n: each.tolist() for n, each in trunk().items()}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "it has .* bytes, and model.json names"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "its SHA-256 is not the one"),
        (lambda path: (path.unlink(), path.mkdir()), "is not a file"),
        (lambda path: describe(path.parent, weights=None), "has no valid weights"),
        (lambda path: describe(path.parent, weights={"sha256": "x", "bytes": 9}), "is not valid: .*sha256"),
        (lambda path: describe(path.parent, weights={"sha256": "a" * 64, "bytes": 2**60}), "is not valid: .*bytes"),
    ],
)
def test_damaged_fine_tuned_weights_are_refused(tmp_path: Path, damage: Callable[[Path], object], reason: str) -> None:
    write_version(tmp_path, "pets", own_model(), trunk())
    damage(tmp_path / "pets" / "1" / TRUNK)
    with pytest.raises(OwnModelError, match=reason) as caught:
        use_version(tmp_path, "pets", 1)
    assert is_one_sentence(caught.value)
    assert not (tmp_path / "pets" / PINNED).exists()


@pytest.mark.parametrize("values", [np.ones(2), np.full(2, np.nan, np.float32), None])
def test_a_trunk_that_could_not_be_loaded_is_not_written(tmp_path: Path, values: np.ndarray | None) -> None:
    with pytest.raises(OwnModelError, match="fine-tuned weights") as caught:
        write_version(tmp_path, "pets", own_model(), {} if values is None else trunk(wrong=values))
    assert is_one_sentence(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("file", [*FILES, PINNED])
def test_a_file_that_is_too_large_is_refused(tmp_path: Path, file: str) -> None:
    write_version(tmp_path, "pets", own_model())
    path = tmp_path / "pets" / file if file == PINNED else tmp_path / "pets" / "1" / file
    with path.open("ab") as out:
        out.truncate(MAX_BYTES.get(file, 100) + 1)
    with pytest.raises(OwnModelError, match="is larger than"):
        read_version(tmp_path, "pets")


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    (tmp_path / "pets" / "1" / HEAD).unlink()
    os.mkfifo(tmp_path / "pets" / "1" / HEAD)
    with pytest.raises(OwnModelError, match="is not a file"):
        read_version(tmp_path, "pets")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    (tmp_path / "pets" / "1" / LABELS).unlink()
    with pytest.raises(OwnModelError, match=r"labels\.csv: No such file"):
        read_version(tmp_path, "pets")


@pytest.mark.parametrize("text", ["7", "", "one", "../1"])
def test_a_pin_that_names_no_version_is_refused(tmp_path: Path, text: str) -> None:
    write_version(tmp_path, "pets", own_model())
    (tmp_path / "pets" / PINNED).write_text(text)
    with pytest.raises(OwnModelError, match="choose one with 'topthree models use pets VERSION'"):
        read_version(tmp_path, "pets")


def test_a_version_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    for work in (read_version, use_version, remove):
        with pytest.raises(OwnModelError, match="has no version 9"):
            work(tmp_path, "pets", 9)
    with pytest.raises(OwnModelError, match="There is no model named tools"):
        remove(tmp_path, "tools")


def test_a_list_shows_damaged_models_too(tmp_path: Path) -> None:
    for name in ("pets", "tools"):
        write_version(tmp_path, name, own_model())
    (tmp_path / "pets" / "1" / HEAD).write_bytes(b"")
    (tmp_path / "no versions").mkdir()
    (tmp_path / "empty").mkdir()
    pets, tools = list_models(tmp_path)
    assert (pets.name, pets.version, pets.versions) == ("pets", 1, (1,))
    assert isinstance(pets.found, OwnModelError)
    assert not isinstance(tools.found, OwnModelError)
    assert tools.found.photos == 30


def test_an_absent_folder_has_no_models(tmp_path: Path) -> None:
    assert list(list_models(tmp_path / "nothing")) == []


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("")
    for work in (
        lambda: list_models(tmp_path / "models"),
        lambda: write_version(tmp_path / "models", "a", own_model()),
    ):
        with pytest.raises(OwnModelError) as caught:
            work()
        assert is_one_sentence(caught.value)


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_version(tmp_path, "pets", own_model())
    with monkeypatch.context() as patch:
        patch.setattr(own_models.os, "fsync", full)
        for name in ("pets", "tools"):
            with pytest.raises(OwnModelError, match="cannot be written: No space left on device"):
                write_version(tmp_path, name, own_model())
        with pytest.raises(OwnModelError, match="cannot be written"):
            use_version(tmp_path, "pets", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "pets"]
    assert [path.name for path in (tmp_path / "pets").iterdir()] == ["1"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    (tmp_path / "pets" / ".unfinished-x").mkdir()
    (tmp_path / ".removed-y" / "1").mkdir(parents=True)
    assert list_names(tmp_path) == ["pets"]
    write_version(tmp_path, "pets", own_model())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "pets"]
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == ["1", "2"]


def test_writers_at_the_same_time_take_turns(tmp_path: Path) -> None:
    written: list[int] = []
    threads = [
        threading.Thread(target=lambda: written.append(write_version(tmp_path, "pets", own_model()))) for _ in "1234"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(written) == list_versions(tmp_path, "pets") == [1, 2, 3, 4]


def test_a_model_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(OwnModelError, match="not finite"):
        write_version(tmp_path, "pets", own_model(bias=np.full(3, np.inf, np.float32)))
    assert list_names(tmp_path) == []

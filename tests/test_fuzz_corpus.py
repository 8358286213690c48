"""What fuzzing found once is tried at every run of the tests, and the fuzzer would notice what it looks for."""

from __future__ import annotations

import random
import subprocess
import sys
import zlib
from pathlib import Path

import fuzz_images
import pytest
from fuzz_images import Find, confirm, try_one
from fuzz_mutations import KINDS, Mutate, mutate, scramble
from fuzz_seeds import seeds
from PIL import Image

from app import images

CORPUS = sorted(path for path in (Path(__file__).parent / "data" / "fuzz").iterdir() if path.suffix != ".md")
SEEDS = dict(seeds())


def unchanged(piece: bytes) -> bytes:
    """Stand in for libFuzzer's own mutation."""
    return piece


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_found_is_a_photo_or_a_problem_now(path: Path) -> None:
    assert confirm(path) is None


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_a_photo(name: str) -> None:
    kind = "tiff" if "tiff" in name else "jpeg" if "mpo" in name else name.split("-")[0]
    assert try_one(SEEDS[name]) == ("HEIC" if "drawn" in name else kind.upper())


@pytest.mark.parametrize("name", SEEDS)
def test_hostile_files_are_photos_or_problems(name: str) -> None:
    met = {try_one(mutate(SEEDS[name], random.Random(number), unchanged)) for number in range(25)}
    assert met <= {*(kind for kind, _ in images._SIGNATURES), "AVIF", "HEIC", "broken-image", "unsupported-image"} | {
        "too-many-pixels"
    }


@pytest.mark.parametrize("name", SEEDS)
def test_the_same_number_makes_the_same_file(name: str) -> None:
    twice = [mutate(SEEDS[name], random.Random(7), unchanged) for _ in range(2)]
    assert twice[0] == twice[1]


@pytest.mark.parametrize("change", [kind[2] for kind in KINDS], ids=lambda change: change.__name__)
def test_a_mutation_survives_bytes_that_are_not_of_its_kind(change) -> None:
    chance = random.Random(3)
    for size in range(60):
        change(chance.randbytes(size), chance, unchanged)


def test_a_changed_chunk_of_a_png_has_the_right_checksum() -> None:
    def flip(piece: bytes) -> bytes:
        return bytes(byte ^ 1 for byte in piece)

    changed = {mutated_by(flip, number) for number in range(40)} - {SEEDS["png-0"]}
    assert len(changed) > 10
    assert any(try_one(data) == "PNG" for data in changed)
    for data in changed:
        first_size = int.from_bytes(data[8:12], "big")
        body = data[12 : 16 + first_size]
        assert int.from_bytes(data[16 + first_size : 20 + first_size], "big") == zlib.crc32(body)


def mutated_by(raw: Mutate, number: int) -> bytes:
    return KINDS[0][2](SEEDS["png-0"], random.Random(number), raw)


def test_scrambling_reaches_every_byte() -> None:
    data, chance = bytes(64), random.Random(1)
    touched = {place for _ in range(3000) for place, byte in enumerate(scramble(data, chance)[:64]) if byte}
    assert touched == set(range(64))


def test_an_exception_that_is_no_problem_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.Photo, "thumbnail", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        try_one(SEEDS["png-0"])


def test_too_much_time_or_memory_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Find, match="MiB above the start"):
        try_one(SEEDS["png-0"], base_bytes=-fuzz_images.MEMORY_BUDGET_BYTES)
    monkeypatch.setattr(fuzz_images, "MOST_SECONDS", 0.0)
    with pytest.raises(Find, match="s of processor time"):
        try_one(SEEDS["png-0"])


def test_finds_are_tried_again_in_a_process_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(SEEDS["png-0"])
    assert confirm(tmp_path / "good.png") is None
    assert "No such file" in confirm(tmp_path / "gone.png")


def test_a_crash_of_the_process_is_told_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = [sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"]
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: run(crash, **options))
    assert confirm(tmp_path) == "signal 11"


def test_a_photo_over_the_fuzzers_limit_is_refused_by_its_header(tmp_path: Path) -> None:
    Image.new("1", (2001, 2000)).save(tmp_path / "large.png")
    assert try_one((tmp_path / "large.png").read_bytes()) == "too-many-pixels"

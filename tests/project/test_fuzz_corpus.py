"""What fuzzing found once is tried at every run of the tests, and the fuzzer would notice what it looks for."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fuzz_images
import pytest
from bomb_photos import hostile
from fakes import decoders, encode
from fuzz_images import Broken, Fuzzer, Tally, confirm, input_of, open_decoders, report, try_one
from fuzz_mutations import KINDS, Mutate, mutate, scramble
from fuzz_seeds import seeds
from PIL import Image

from app.photos import formats
from app.photos.decoders import Decoders

CORPUS = sorted(path for path in (Path(__file__).parent.parent / "data" / "fuzz").iterdir() if path.suffix != ".md")
SEEDS = dict(seeds())
PLUGIN = ("hostile_plugin",)


@pytest.fixture(scope="module")
def hostile_decoders() -> Iterator[Decoders]:
    """Decoders that do what a hostile GIF says, for half a second of processor time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz_images, "MAX_SECONDS", 0.5)
        opened = open_decoders(1, PLUGIN)
    with closing(opened):
        yield opened


def unchanged(piece: bytes) -> bytes:
    """Stand in for a mutation that knows nothing."""
    return piece


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_what_was_found_is_a_photo_or_a_problem_now(path: Path) -> None:
    assert confirm(path.read_bytes()) not in fuzz_images.ENDS


@pytest.mark.parametrize("name", SEEDS)
def test_every_seed_is_a_photo(name: str) -> None:
    named = next((word for word in ("tiff", "bmp", "mpo", "drawn") if word in name), name.split("-")[0])
    assert try_one(decoders(), SEEDS[name]) == {"mpo": "JPEG", "drawn": "HEIC"}.get(named, named.upper())


@pytest.mark.parametrize("name", SEEDS)
def test_hostile_files_are_photos_or_problems(name: str) -> None:
    met = {try_one(decoders(), mutate(SEEDS[name], random.Random(number), unchanged)) for number in range(25)}
    assert met <= {*formats.KEYS, "broken-image", "unsupported-image", "too-many-pixels", "too-costly"}


@pytest.mark.parametrize(
    ("deed", "end"), [("spins", "time"), ("allocates", "time"), ("waits", "time"), ("crashes", "crash")]
)
def test_the_end_of_a_decoder_is_told_by_its_kind(hostile_decoders: Decoders, deed: str, end: str) -> None:
    assert try_one(hostile_decoders, hostile(deed)) == end


def test_memory_beyond_the_promise_is_told_as_memory(hostile_decoders: Decoders) -> None:
    assert try_one(hostile_decoders, hostile("asks too much")) == "memory"


def test_a_find_is_tried_again_in_new_decoders() -> None:
    assert confirm(hostile("crashes"), PLUGIN) == "crash"
    assert confirm(hostile("crashes")) == "GIF"


def test_a_run_counts_inputs_and_keeps_no_file_without_a_find(tmp_path: Path) -> None:
    fuzzer = Fuzzer(decoders(), tmp_path / "finds", seed=1)
    fuzzer.run(60, inputs=200)
    assert fuzzer.tally.outcomes.total() == 200
    assert (tmp_path / "finds").exists() == bool(fuzzer.tally.finds)
    assert fuzzer.tally.resident_bytes > 2**20


def test_another_failure_than_a_problem_ends_the_run(tmp_path: Path) -> None:
    with closing(open_decoders(1)) as closed:
        fuzzer = Fuzzer(closed, tmp_path / "finds", seed=1)
    closed.attempt = lambda *_, **__: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(Broken, match="ZeroDivisionError"):
        fuzzer.run(60, inputs=10)
    assert [path.name.partition("-")[0] for path in (tmp_path / "finds").iterdir()] == ["broken"]


@pytest.mark.parametrize(
    ("tally", "status"),
    [
        (Tally(slowest_seconds=1.0, resident_bytes=2**20), 0),
        (Tally(slowest_seconds=60.0), 1),
        (Tally(resident_bytes=2**30), 1),
    ],
    ids=["all well", "an answer too late", "too much memory"],
)
def test_what_fails_a_run_is_a_promise_broken(tally: Tally, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(tally, 1.0) == status
    assert ("broken:" in capsys.readouterr().out) == bool(status)


def test_the_list_of_finds_names_their_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Tally(finds={"crash-1f": "crash", "time-2e": "time"}), 1.0) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["2 finds", "  crash   crash-1f", "  time    time-2e"]


@pytest.mark.parametrize("name", SEEDS)
def test_the_same_number_makes_the_same_file(name: str) -> None:
    twice = [input_of(7, 1, [SEEDS[name]]) for _ in range(2)]
    assert twice[0] == twice[1]
    assert input_of(8, 1, [SEEDS[name]]) != twice[0]


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
    assert any(try_one(decoders(), data) == "PNG" for data in changed)
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


def test_a_photo_over_the_fuzzers_limit_is_refused_by_its_header() -> None:
    assert try_one(decoders(), encode(Image.new("1", (2001, 2000)))) == "too-many-pixels"

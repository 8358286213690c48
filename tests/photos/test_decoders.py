"""A photo is decoded in a separate process, and what it does there affects only that photo."""

from __future__ import annotations

import functools
import io
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import bomb_photos
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from decoder_pools import MEBI, PATIENCE_SECONDS, PHOTO, WANTED, fork_server_of, replacing, settled
from fakes import encode
from pictures import cat
from PIL import Image
from service_watch import resident_bytes
from waiting import wait_until

from app.errors import (
    BrokenImage,
    ClientClosedRequest,
    DeadlineExceeded,
    Overloaded,
    Problem,
    TooCostly,
    TooManyPixels,
    UnsupportedImage,
)
from app.photos import decoder_process, supervisor
from app.photos.decoders import Decoded, Decoders
from app.photos.decoding import Geometry, decode
from app.photos.guards import Estimate, examine
from app.photos.protocol import Allowance, Wanted
from app.processes.sandbox import ALL_MEASURES
from app.queueing.scheduling import Deadline

# More than any good photo here takes, also on a busy machine.
SECONDS = 1.0


@pytest.fixture(scope="module")
def pool() -> Iterator[Decoders]:
    """Two decoders that know `hostile_plugin`."""
    hostile = ("hostile_plugin",)
    with closing(
        Decoders(2, max_bytes=8 * MEBI, memory_bytes=256 * MEBI, max_seconds=SECONDS, extra_modules=hostile)
    ) as pool:
        assert pool.start() == ALL_MEASURES
        yield pool


def deep_grey(name: str) -> bytes:
    """Encode 16 bits of grey."""
    return encode(Image.fromarray((np.arange(300 * 260).reshape(260, 300) % 65536).astype(np.uint16)), name)


def tiff_of(numbers: npt.NDArray[np.generic], **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, numbers, photometric="rgb" if len(numbers) == 3 else "minisblack", **options)
    return out.getvalue()


def masked_bmp() -> bytes:
    """Write a BMP whose colours have four bits each."""
    pixels = np.random.default_rng(1).integers(0, 1 << 16, 60 * 40, np.uint16).tobytes()
    sizes = struct.pack("<IiiHHI5I3I", 40, 60, 40, 1, 16, 3, len(pixels), 0, 0, 0, 0, 0xF00, 0xF0, 0xF)
    return b"BM" + struct.pack("<IHHI", 66 + len(pixels), 0, 0, 66) + sizes + pixels


# Made when they are wanted.
PHOTOS: dict[str, Callable[[], bytes]] = {
    **{kind: partial(encode, cat(), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")},
    "HEIC": lambda: encode(cat(), "HEIF"),
    "a large JPEG": lambda: encode(cat(2400, 1600), "JPEG"),
    "a progressive JPEG": lambda: encode(cat(), "JPEG", progressive=True),
    "a CMYK JPEG": lambda: encode(cat().convert("CMYK"), "JPEG"),
    "a palette PNG with transparency": lambda: encode(cat().quantize(16), "PNG", transparency=0),
    "a 16-bit PNG": lambda: deep_grey("PNG"),
    "a 16-bit TIFF": lambda: deep_grey("TIFF"),
    "a deflated TIFF": lambda: encode(cat(), "TIFF", compression="tiff_adobe_deflate"),
    "a TIFF of 32-bit floats": lambda: tiff_of(np.linspace(0, 1, 90_000, dtype=np.float32).reshape(300, 300)),
    "a TIFF in planes of 16 bits": lambda: tiff_of(np.zeros((3, 40, 50), np.uint16), planarconfig="separate"),
    "a BMP with colours in other bits": lambda: masked_bmp(),
    "a JPEG without its end": lambda: encode(cat(), "JPEG")[:-2],
    "a PNG with a broken profile": lambda: encode(cat(), "PNG", icc_profile=b"no profile"),
    "a lossless WebP with alpha": lambda: encode(cat().convert("RGBA"), "WEBP", lossless=True),
}
encoded = functools.cache(lambda name: PHOTOS[name]())


@pytest.mark.parametrize("name", PHOTOS)
def test_the_crop_is_that_of_the_same_code_in_process(pool: Decoders, name: str) -> None:
    found = pool.decode(encoded(name), WANTED)
    here = decode(encoded(name), max_pixels=WANTED.max_pixels)
    assert np.array_equal(found.crop, here.crop(Geometry()))
    assert (found.width, found.height, found.format) == (here.width, here.height, here.format)
    assert found.thumbnail is None


CONVERTED = {
    "planes of floats": tiff_of(np.ones((3, 700, 800), np.float32), planarconfig="separate"),
    "wide floats": tiff_of(np.ones((1000, 1000), np.float64)),
    "16 bits, white as zero": tiff_of(np.ones((1000, 1000), np.uint16)).replace(
        struct.pack("<HHIH", 262, 3, 1, 1), struct.pack("<HHIH", 262, 3, 1, 0)
    ),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_kinds_need_no_more_than_estimated(pool: Decoders, name: str) -> None:
    found = examine(CONVERTED[name], max_pixels=WANTED.max_pixels)
    assert found.memory_bytes < 64 * MEBI
    allowance = Allowance(found.memory_bytes, found.seconds)
    assert isinstance(pool.attempt(CONVERTED[name], WANTED, allowance), Decoded)


NOISY = {
    "TIFF": tiff_of(np.zeros((300, 300), np.uint8), compression="lzw")[:-60] + b"\xff" * 60,
    "TIFF with wrong tags": encode(cat(), "TIFF", tiffinfo={270: "x", 305: "y"}).replace(
        b"\x0e\x01\x02", b"\x0e\x01\x0c"
    ),
    "JPEG": encode(cat(), "JPEG").replace(b"\xff\xd9", b"\xff\xd0\xff\xd9"),
    "PNG": encode(cat(), "PNG", icc_profile=b"no profile")[:2000],
}


def test_decoders_write_nothing_to_the_log(pool: Decoders, capfd: pytest.CaptureFixture[str]) -> None:
    for data in NOISY.values():
        with suppress(Problem):
            pool.decode(data, WANTED)
    assert capfd.readouterr() == ("", "")


def test_a_thumbnail_comes_along_where_it_is_wanted(pool: Decoders) -> None:
    found = pool.decode(encoded("JPEG"), Wanted(Geometry(), WANTED.max_pixels, thumbnail_side=150))
    assert np.array_equal(found.thumbnail, decode(encoded("JPEG"), max_pixels=10**7).thumbnail(150))


@pytest.mark.parametrize(
    ("data", "problem", "detail"),
    [
        (b"%PDF-1.7", UnsupportedImage, "looks like a PDF document"),
        (encoded("PNG")[:600], BrokenImage, "damaged or incomplete"),
        (encode(Image.new("1", (4000, 3000)), "PNG"), TooManyPixels, "more than 10,000,000 pixels"),
        (b"\0" * (8 * MEBI + 1), TooCostly, "more than 8,388,608 bytes"),
    ],
)
def test_what_is_wrong_with_a_photo_is_said(pool: Decoders, data: bytes, problem: type[Problem], detail: str) -> None:
    with pytest.raises(problem, match=detail):
        pool.decode(data, WANTED)


@pytest.mark.parametrize(
    ("deed", "problem", "detail"),
    [
        ("spins", TooCostly, "more than 1 s of processor time"),
        ("allocates", TooCostly, "of processor time|of memory"),
        ("crashes", BrokenImage, "crashes its decoder"),
        ("waits", TooCostly, "standstill"),
    ],
)
def test_a_hostile_photo_costs_itself_only(pool: Decoders, deed: str, problem: type[Problem], detail: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        hostile = threads.submit(pool.decode, bomb_photos.hostile(deed), WANTED)
        for _ in range(20):
            assert pool.decode(PHOTO, WANTED).crop[112, 112].tolist() == [200, 100, 50]
        with pytest.raises(problem, match=detail):
            hostile.result(PATIENCE_SECONDS)
    wait_until(lambda: len(pool.pids) == 2)


def test_a_hoarder_gets_no_more_than_its_reservation(pool: Decoders) -> None:
    known, peaks = set(pool.pids), []
    with ThreadPoolExecutor(1) as threads:
        hostile = threads.submit(pool.attempt, bomb_photos.hostile("allocates"), WANTED, Allowance(32 * MEBI, SECONDS))
        while not hostile.done():
            peaks += [resident_bytes(pid) for pid in known]
            time.sleep(0.02)
    assert 20 * MEBI < max(peaks) < 160 * MEBI


def test_the_deadline_ends_a_decoder(pool: Decoders) -> None:
    with replacing(pool), pytest.raises(DeadlineExceeded):
        pool.decode(bomb_photos.hostile("waits"), WANTED, Deadline(time.monotonic() + 0.2))
    assert pool.decode(PHOTO, WANTED).width == 300


def test_a_client_that_disconnects_ends_a_decoder(pool: Decoders) -> None:
    gone = threading.Event()
    with replacing(pool), ThreadPoolExecutor(1) as threads:
        photo = threads.submit(pool.decode, bomb_photos.hostile("spins"), WANTED, Deadline(is_abandoned=gone.is_set))
        gone.set()
        with pytest.raises(ClientClosedRequest):
            photo.result(PATIENCE_SECONDS)


def test_a_photo_over_its_allowance_is_estimated_first(pool: Decoders) -> None:
    found = pool.attempt(PHOTO, WANTED, Allowance(memory_bytes=1, seconds=1.0))
    assert isinstance(found, Estimate)
    assert found.memory_bytes > 1
    assert (found.width, found.height) == (300, 260)
    assert pool.attempt(PHOTO, WANTED, Allowance(found.memory_bytes, found.seconds)).width == 300


def test_a_photo_that_takes_longer_than_promised_steps_aside(pool: Decoders) -> None:
    stepped = threading.Event()
    with replacing(pool):
        found = pool.attempt(bomb_photos.hostile("is slow"), WANTED, step_aside=stepped.set)
    assert found.format == "GIF"
    assert stepped.is_set()


def test_too_many_slow_photos_end_early(pool: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "MAX_ASIDE", 0)
    with replacing(pool), pytest.raises(Overloaded, match="longer to decode"):
        pool.attempt(bomb_photos.hostile("is slow"), WANTED)


def test_a_decoder_killed_while_idle_is_replaced(pool: Decoders) -> None:
    before = settled(pool)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(pool.pids) == 2 and not set(pool.pids) & set(before))
    assert pool.decode(PHOTO, WANTED).width == 300


def test_decoders_killed_while_idle_cost_no_photo(pool: Decoders) -> None:
    for _ in range(10):
        for pid in settled(pool):
            os.kill(pid, signal.SIGKILL)
        assert pool.decode(PHOTO, WANTED).width == 300


def test_a_photo_whose_decoder_is_killed_gets_another(pool: Decoders) -> None:
    started = threading.Event()
    settled(pool)
    with ThreadPoolExecutor(1) as threads:
        photo = threads.submit(pool.attempt, bomb_photos.hostile("is slow"), WANTED, step_aside=started.set)
        assert started.wait(PATIENCE_SECONDS)
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        assert photo.result(PATIENCE_SECONDS).format == "GIF"


def test_a_fork_server_that_is_killed_is_replaced(pool: Decoders) -> None:
    before = settled(pool)
    os.kill(fork_server_of(pool), signal.SIGKILL)
    wait_until(lambda: not set(pool.pids) & set(before))
    assert pool.decode(PHOTO, WANTED).width == 300


def test_a_decoder_that_has_grown_is_replaced(pool: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder_process, "MAX_RESIDENT_BYTES", 1)
    with replacing(pool):
        pool.decode(PHOTO, WANTED)


def test_the_fork_server_has_nothing_of_the_worker(pool: Decoders) -> None:
    server = fork_server_of(pool)
    environment = Path(f"/proc/{server}/environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment} - {b""} == {b"PYTHONPATH", b"OPENBLAS_NUM_THREADS"}
    libraries = Path(f"/proc/{server}/maps").read_text()
    assert not [name for name in ("openvino", "libtorch", "_ssl", "libcrypto") if name in libraries]


def test_closing_ends_every_process() -> None:
    pool = Decoders(2, max_bytes=MEBI, memory_bytes=64 * MEBI)
    pool.start()
    family = [*settled(pool), fork_server_of(pool)]
    pool.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
    with pytest.raises(Overloaded, match="can be started"):
        pool.decode(PHOTO, WANTED)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("no_such_module", "The process that starts the decoders has ended or hung"),
        ("forkless", "A process for decoding photos could not be started: Resource temporarily unavailable."),
    ],
)
def test_decoders_that_cannot_start_are_an_error_in_the_log(
    module: str, line: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "MAX_WAIT_SECONDS", 4.0)
    pool = Decoders(1, max_bytes=MEBI, memory_bytes=64 * MEBI, extra_modules=(module,))
    with closing(pool), pytest.raises(Overloaded, match="can be started"):
        pool.decode(PHOTO, WANTED)
    assert caplog.text.count(line) == 1


def test_a_decoder_deaf_to_the_kernel_s_limit_is_killed(pool: Decoders) -> None:
    with pytest.raises(TooCostly, match="more than 1 s of processor time"):
        pool.decode(bomb_photos.hostile("resists"), WANTED)
    assert pool.decode(PHOTO, WANTED).width == 300

"""Measure the costs of decoding and cropping, for the constants of app/photos/costs.py, beside its estimates.

usage: python scripts/measure_decoding.py [PHOTO ...]

Without photos it makes one of each format and mode, of 12 megapixels, with light noise as a camera adds. Each is
decoded and cropped in a fresh process: `seconds` is the least processor time of three runs, `memory` the growth of the
process's largest resident size (VmHWM), `address space` that of its virtual size (VmPeak), both in MiB and without the
file's own bytes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from app.errors import Problem
from app.photos.guards import examine

SIZE = (4000, 3000)
NOISE_LEVELS = 4.0
MAX_PIXELS = 64_000_000

MEASURE = """
import sys, time
from app.errors import Problem
from app.photos.decoding import Geometry, decode

def sizes():
    fields = dict(line.split(":") for line in open("/proc/self/status"))
    return [int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "VmPeak")]

def work():
    start = time.process_time()
    decode(data, max_pixels=10**9).crop(Geometry())
    return time.process_time() - start

data = open(sys.argv[1], "rb").read()
before = sizes()
try:
    seconds = work()
    after = sizes()
    if seconds < 3:
        seconds = min(seconds, work(), work())
    print(seconds, *(now - then for now, then in zip(after, before)))
except Problem as problem:
    print("refused", type(problem).__name__)
"""


def pictures() -> Iterator[tuple[str, Image.Image, str, dict[str, object]]]:
    """Yield a name, a picture, its encoder and that one's options."""
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    smooth = np.stack([x / SIZE[0], y / SIZE[1], np.sin(x / 90) * np.sin(y / 70) / 2 + 0.5], axis=-1) * 255
    noise = np.random.default_rng(0).normal(0.0, NOISE_LEVELS, smooth.shape)
    photo = Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))
    grey, rgba, palette = photo.convert("L"), photo.convert("RGBA"), photo.quantize(64)
    rgba.putalpha(grey)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for mode, picture in {"RGB": photo, "L": grey, "CMYK": photo.convert("CMYK")}.items():
        for progressive in (False, True):
            options = {"quality": 88, "progressive": progressive}
            yield f"JPEG {mode}{' progressive' * progressive}", picture, "JPEG", options
    yield "JPEG 4:4:4", photo, "JPEG", {"quality": 88, "subsampling": 0}
    for mode, picture in {"RGB": photo, "L": grey, "RGBA": rgba, "P": palette, "I16": deep}.items():
        yield f"PNG {mode}", picture, "PNG", {"compress_level": 6}
    for mode, picture in {"RGB": photo, "RGBA": rgba}.items():
        yield f"WEBP {mode}", picture, "WEBP", {"quality": 80, "method": 0}
        yield f"WEBP {mode} lossless", picture, "WEBP", {"lossless": True, "quality": 0, "method": 0}
        yield f"AVIF {mode}", picture, "AVIF", {"speed": 10}
    yield "AVIF 4:4:4", photo, "AVIF", {"speed": 10, "subsampling": "4:4:4"}
    yield "GIF", palette, "GIF", {}
    for mode, picture in {"RGB": photo, "L": grey, "P": palette}.items():
        yield f"BMP {mode}", picture, "BMP", {}
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "zstd", "lzma", "packbits", "jpeg", "webp"):
        yield f"TIFF RGB {compression}", photo, "TIFF", {"compression": compression}
    for mode, picture in {"RGBA": rgba, "I16": deep, "F": grey.convert("F"), "I": grey.convert("I")}.items():
        yield f"TIFF {mode}", picture, "TIFF", {"compression": "tiff_lzw"}
    yield "TIFF 1 group4", grey.convert("1", dither=Image.Dither.NONE), "TIFF", {"compression": "group4"}


def measure(path: Path) -> str:
    """Decode and crop one file in a new process, and return its costs beside the estimate."""
    command = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = done.stdout.split()
    try:
        estimate = examine(path.read_bytes(), max_pixels=MAX_PIXELS)
    except Problem as problem:
        return f"{' '.join(words[:2])}: {type(problem).__name__}: {problem.detail}"
    said = f"estimate {estimate.seconds:7.3f} s {estimate.memory_bytes / 2**20:6.0f} MiB"
    if len(words) != 3:
        return f"{' '.join(words) or done.stderr[-200:]}, {said}"
    seconds, resident, virtual = float(words[0]), int(words[1]), int(words[2])
    pixels = estimate.width * estimate.height
    return (
        f"{seconds:7.3f} s {resident / 2**20:6.0f} MiB ({virtual / 2**20:6.0f} address space), {said}, "
        f"{1e9 * seconds / pixels:6.1f} ns and {resident / pixels:5.1f} bytes a pixel"
    )


def main(photos: list[str]) -> None:
    """Print one line per photo."""
    for photo in photos:
        print(f"{Path(photo).name:32} {measure(Path(photo))}", flush=True)
    if photos:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, picture, encoder, options in pictures():
            path = Path(folder, name.replace(":", ""))
            picture.save(path, encoder, **options)
            print(f"{name:32} {measure(path)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Measure the time and the memory that a training needs after embedding, on made-up embeddings of many photos.

    python scripts/measure_many.py [--photos 100000] [--classes 50] [--copies 5] [--folder /tmp]

The embeddings lie in a file of the folder, as those of real photos do; --copies is the share of photos, in percent,
that are near-duplicates. Memory is that of the process itself, without the pages of the file.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.model.duplicates import group_duplicates
from app.training.fitting import Task, calibrate, choose_strength, fit, softmax_strength

CHANNELS = 1280
BLOCK = 1000
LOOK_SECONDS = 0.05


def memory_mb() -> float:
    """Return the memory of this process that no file backs, in 2^20 bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Print how long the block takes, and the most memory that was seen during it."""
    before, most, ended = memory_mb(), [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            most[0] = max(most[0], memory_mb())

    thread = threading.Thread(target=look)
    started = time.monotonic()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        seconds = time.monotonic() - started
        print(f"{name:20} {seconds:7.1f} s   memory {before:6.0f} MB before, {most[0]:6.0f} MB at most", flush=True)


def make_rows(rows: npt.NDArray[np.float16], classes: npt.NDArray[np.intp], copies: float) -> None:
    """Fill rows with vectors around the middle of their class, some of them near-duplicates of the one before."""
    random = np.random.default_rng(0)
    middles = np.abs(random.normal(size=(int(classes.max()) + 1, CHANNELS))).astype(np.float32)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        noise = np.abs(random.normal(size=(len(classes[part]), 1, CHANNELS))).astype(np.float32)
        views = np.repeat(middles[classes[part], None] + 3 * noise, 2, axis=1)
        is_copy = np.flatnonzero(random.random(len(views)) < copies)
        is_copy = is_copy[is_copy > 0]
        views[is_copy] = views[is_copy - 1]
        classes[start + is_copy] = classes[start + is_copy - 1]
        views += 0.5 * random.normal(size=views.shape).astype(np.float32)
        rows[part] = views / np.linalg.norm(views, axis=2, keepdims=True)


def quiet(done: int, total: int) -> None:
    """Show no progress."""


def main() -> None:
    """Run each step of a training on made-up embeddings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--copies", type=float, default=5.0, help="near-duplicates, in percent")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    classes = np.random.default_rng(1).integers(0, options.classes, options.photos)
    with tempfile.TemporaryFile(dir=options.folder) as file:
        rows = np.memmap(file, np.float16, "w+", shape=(options.photos, 2, CHANNELS))
    with measured("making embeddings"):
        make_rows(rows, classes, options.copies / 100)
    with measured("comparing photos"):
        groups = group_duplicates(rows, quiet)
    print(f"{len(groups) - len(np.unique(groups))} photos are nearly the same as another")
    task = Task(rows, classes, groups, options.classes)
    with measured("choosing a strength"):
        ridge, share, like = choose_strength(task)
    with measured("fitting"):
        fitted = fit(task, softmax_strength(ridge), like, 0, quiet)
    with measured("calibrating"):
        calibrate(fitted, task)
    print(f"right for {100 * np.mean(fitted.left_out.argmax(axis=1) == classes):.2f}% (ridge {100 * share:.2f}%)")


if __name__ == "__main__":
    main()

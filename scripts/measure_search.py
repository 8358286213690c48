"""Measure how quickly an index is searched, and how many of the nearest photos the quick search finds.

    python scripts/measure_search.py [PHOTOS…] --index lib/ [--copies 2] [--queries 500] [--rows 200000]

Adds the photos, and altered copies of each (cropped, smaller, grey; all compressed again), to the index, and compares
the quick search with the exact one. Then makes an index of many rows in a temporary folder, whose vectors are mixed of
two real ones and noise, and times both searches. The exit status is 1 if fewer than 99% of the ten nearest photos are
found, or a search takes more than 10 ms.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from app.classifier import Classifier
from app.photos.folders import find_photos
from app.search.embeddings import Embedding
from app.search.indexing import Indexer, Source
from app.search.library import MIN_CANDIDATES, Library, Row
from app.search.writer import Writer
from app.settings import Settings

NEIGHBOURS = 10
MIN_RECALL, MAX_MS = 0.99, 10.0
CANDIDATES = (100, 200, 1000)
LARGE_QUERIES = 40
BLOCK_ROWS = 4096


def altered(path: str, kind: str) -> bytes:
    """Return a copy of a photo that is cropped, grey, or smaller and compressed again; the same at each call."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    chance = random.Random(f"{path} {kind}")
    if kind == "crop":
        share = chance.uniform(0.4, 0.95)
        width, height = (round(side * share) for side in image.size)
        left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
        image = image.crop((left, top, left + width, top + height))
    elif kind == "grey":
        image = image.convert("L")
    else:
        image = image.reduce(2)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=chance.randint(30, 95))
    return out.getvalue()


def sources(folders: list[str], copies: int) -> Iterator[Source]:
    """Yield the photos of all folders, each followed by some altered copies."""
    for path in find_photos(folders):
        name = f"{Path(path).parent.name}/{Path(path).name}"
        yield Source(name, Path(path).read_bytes)
        for kind in ("crop", "small", "grey")[:copies]:
            yield Source(f"{name}#{kind}", functools.partial(altered, path, kind))


def make_index(folders: list[str], index: Path, copies: int) -> None:
    """Add the photos and their copies to an index, by the settings of the environment."""
    settings = Settings.from_environment(os.environ)
    with closing(Classifier.from_settings(settings)) as classifier:
        model = classifier.load_model()
        with closing(Writer(index, Embedding.of(model))) as writer:
            Indexer(classifier, model, writer, max_pixels=settings.max_pixels).run(sources(folders, copies), readers=2)


def print_recall(library: Library, queries: np.ndarray) -> float:
    """Print which share of the exact ten nearest rows the quick search finds with this number of candidates, or more.

    Return the share with the usual number.
    """
    exact = [{place for place, _ in library.nearest(library.vectors[row], NEIGHBOURS, exact=True)} for row in queries]
    shares = {}
    for number in sorted({*CANDIDATES, MIN_CANDIDATES}):
        quick = [library.nearest(library.vectors[row], NEIGHBOURS, candidates=number) for row in queries]
        found = sum(len(one & {place for place, _ in other}) for one, other in zip(exact, quick, strict=True))
        shares[number] = found / (NEIGHBOURS * len(queries))
        print(f"  recall@{NEIGHBOURS} with {number:4} candidates: {shares[number]:.4f}")
    return shares[MIN_CANDIDATES]


def enlarge(small: Library, rows: int, folder: Path) -> None:
    """Write an index of many rows: each is a real vector with a share of another one and noise, at length 1."""
    chance = np.random.default_rng(0)
    vectors = np.asarray(small.vectors, np.float32)
    noise = 0.3 * vectors.std(axis=0)
    with closing(Writer(folder, small.embedding)) as writer:
        for start in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - start)
            one, other = (vectors[chance.integers(len(vectors), size=count)] for _ in range(2))
            share = chance.uniform(0, 0.5, size=(count, 1))
            mixed = (1 - share) * one + share * other + noise * chance.standard_normal(one.shape, np.float32)
            for number, vector in enumerate(np.maximum(0, mixed), start):
                writer.add(Row(f"{number}.jpg", "", 1, 1, "JPEG", 1), vector, number, b"")
        writer.commit()


def print_time(name: str, library: Library, *, exact: bool, count: int) -> float:
    """Print how long a search takes, by the clock and in processor time, and return the median in ms."""
    walls, processors = [], []
    for row in np.random.default_rng(1).integers(len(library), size=count):
        wall, processor = time.perf_counter(), time.process_time()
        library.nearest(library.vectors[row], NEIGHBOURS, exact=exact)
        walls.append(1000 * (time.perf_counter() - wall))
        processors.append(1000 * (time.process_time() - processor))
    walls.sort()
    median, processor = statistics.median(walls), statistics.median(processors)
    print(
        f"  {name}: fastest {walls[0]:.1f} ms, median {median:.1f} ms, 95% below {walls[int(0.95 * count)]:.1f} ms; "
        f"processor time, median {processor:.1f} ms"
    )
    return median


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--copies", type=int, choices=range(4), default=2)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--rows", type=int, default=200_000)
    arguments = parser.parse_args()
    if arguments.photos:
        make_index(arguments.photos, arguments.index, arguments.copies)
    small = Library.open(arguments.index)
    queries = np.random.default_rng(0).permutation(len(small))[: arguments.queries]
    print(
        f"{len(small):,} real photos and altered copies, {small.embedding.channels} channels, {len(queries)} queries"
    )
    found = print_recall(small, queries)
    with tempfile.TemporaryDirectory() as folder:
        enlarge(small, arguments.rows, Path(folder))
        large = Library.open(folder)
        print(f"{len(large):,} rows, mixed of real ones; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        print_recall(large, queries[:LARGE_QUERIES])
        quick = print_time(f"quick, {MIN_CANDIDATES} candidates", large, exact=False, count=200)
        print_time("exact", large, exact=True, count=5)
    return int(found < MIN_RECALL or quick > MAX_MS)


if __name__ == "__main__":
    sys.exit(main())

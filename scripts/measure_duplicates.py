"""Measure how well `topthree duplicates` finds copies of pictures, and how long it takes for many photos.

    python scripts/measure_duplicates.py PHOTOS… --index lib/ [--originals 1000] [--table] [--rows 200000]

Takes photos from the folders, the same number from each if they have enough, and makes an index of them and of eight
altered copies of each, unless the folder of the index holds it already. The thresholds were chosen on the first half
of the originals, and are judged on the second one and on all photos together. --table prints what they were chosen by:
for each number of different bits, the cosines of copies and of others in the first half. --rows times made-up vectors.
The exit status is 1 if a precision is below 0.995 or a recall below 0.90.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from app.classifier import Classifier
from app.photos.folders import find_photos
from app.search.duplicates import ALIKE, MIN_COSINES, alike, same_pictures
from app.search.embeddings import Embedding
from app.search.indexing import Indexer, Source
from app.search.library import Library
from app.search.manifest import FILE
from app.search.writer import Writer
from app.settings import Settings

SEED = 7
MIN_PRECISION, MIN_RECALL = 0.995, 0.90
TURNS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
Altered = Callable[[Image.Image, bytes, random.Random], bytes]


def jpeg(image: Image.Image, quality: int = 92, **options: object) -> bytes:
    """Encode a picture as JPEG."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality, **options)
    return out.getvalue()


def tags(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Put other metadata before the same picture."""
    with Image.open(io.BytesIO(data)) as opened:
        exif = opened.getexif()
    exif[0x010E] = f"Copy {chance.randrange(10**9)}"
    block = exif.tobytes()
    return data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]


def resized(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Halve both sides."""
    return jpeg(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS), 85)


def compressed(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Compress far more."""
    return jpeg(image, 30)


def cropped(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Cut off 5% of both sides' lengths, at random edges."""
    width, height = round(image.width * 0.95), round(image.height * 0.95)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return jpeg(image.crop((left, top, left + width, top + height)))


def trimmed(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Cut off 5% at each edge."""
    left, top = round(image.width * 0.05), round(image.height * 0.05)
    return jpeg(image.crop((left, top, image.width - left, image.height - top)))


def grey(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Take the colours away."""
    return jpeg(image.convert("L"))


def rotated(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Turn the pixels, and have EXIF say so."""
    orientation = chance.choice(list(TURNS))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(image.transpose(TURNS[orientation]), exif=exif)


def text(image: Image.Image, data: bytes, chance: random.Random) -> bytes:
    """Write a date into a corner, a sixteenth of the height high."""
    image = image.copy()
    font, draw = ImageFont.load_default(max(10, image.height // 16)), ImageDraw.Draw(image)
    day, month = chance.randint(1, 28), chance.randint(1, 12)
    words = f"2024-{month:02}-{day:02} {chance.randint(0, 23):02}:{chance.randint(0, 59):02}"
    _, _, width, height = draw.textbbox((0, 0), words, font=font)
    place = (chance.choice([8, image.width - width - 8]), chance.choice([8, image.height - height - 8]))
    draw.text(place, words, font=font, fill=(255, 165, 0))
    return jpeg(image)


ALTERATIONS: list[Altered] = [tags, resized, compressed, cropped, trimmed, grey, rotated, text]
FAMILY = 1 + len(ALTERATIONS)


def choose(folders: list[str], count: int) -> list[Path]:
    """Choose photos from the folders, the smallest one first; the same at each call."""
    listed = sorted((sorted(map(Path, find_photos([folder]))) for folder in folders), key=len)
    chosen: list[Path] = []
    for place, photos in enumerate(listed):
        share = (count - len(chosen)) // (len(listed) - place)
        chosen += photos if len(photos) <= share else random.Random(SEED).sample(photos, share)
    return chosen


def altered(path: Path, number: int, kind: int) -> bytes:
    """Return an original as JPEG, or its copy of a kind, from 1; the same at each call."""
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    if not data.startswith(b"\xff\xd8"):
        data = jpeg(image, 95)
    return ALTERATIONS[kind - 1](image, data, random.Random(10 * number + kind)) if kind else data


def sources(photos: list[Path]) -> Iterator[Source]:
    """Yield each photo, followed by its altered copies."""
    for number, path in enumerate(photos):
        for kind in range(FAMILY):
            yield Source(f"{number:04}/{kind}", functools.partial(altered, path, number, kind))


def make_index(photos: list[Path], index: Path) -> None:
    """Make an index of photos and their copies, by the settings of the environment."""
    settings = Settings.from_environment(os.environ)
    with closing(Classifier.from_settings(settings)) as classifier:
        model = classifier.load_model()
        with closing(Writer(index, Embedding.of(model))) as writer:
            Indexer(classifier, model, writer, max_pixels=settings.max_pixels).run(sources(photos), readers=2)


class Part:
    """The photos of the even originals (0), the odd ones (1) or both: their rows, originals and alterations."""

    def __init__(self, library: Library, parities: tuple[int, ...]) -> None:
        names = [row.path.split("/") for row in library.rows]
        rows = [place for place, (number, _) in enumerate(names) if int(number) % 2 in parities]
        self.library, self.rows = library, np.array(rows)
        self.family = np.array([int(names[row][0]) for row in rows])
        self.kind = np.array([int(names[row][1]) for row in rows])

    def judge(self, title: str) -> tuple[float, float]:
        """Print and return precision and recall of pairs in groups of the same picture, and recall by alteration."""
        library = self.library
        groups = same_pictures(library.hashes[self.rows], library.vectors, self.rows, lambda done: None)
        found, right = pairs_in(groups), pairs_in(groups * (1 + self.family.max()) + self.family)
        precision, recall = right / max(1, found), right / pairs_in(self.family)
        photos = f"{len(set(self.family.tolist()))} originals, {len(self.rows)} photos"
        print(f"{title} ({photos}): precision {precision:.4f}, recall {recall:.4f} of {pairs_in(self.family)} pairs")
        originals = dict(zip(self.family[self.kind == 0].tolist(), groups[self.kind == 0].tolist(), strict=True))
        for kind, alteration in enumerate(ALTERATIONS, start=1):
            ours = self.kind == kind
            hits = [originals[family] == group for family, group in zip(self.family[ours], groups[ours], strict=True)]
            print(f"    {alteration.__name__:12} {np.mean(hits):.4f} are in the group of their original")
        for group in np.unique(groups):
            families = np.unique(self.family[groups == group])
            if len(families) > 1:
                print(f"    in one group: originals {', '.join(map(str, families))}")
        return precision, recall

    def table(self) -> None:
        """Print the cosines of copies and of others by the number of different bits."""
        hashes, vectors = self.library.hashes[self.rows], self.library.vectors[self.rows].astype(np.float32)
        distances = np.bitwise_count(hashes[:, None] ^ hashes[None])
        cosines, is_copy = vectors @ vectors.T, self.family[:, None] == self.family[None]
        is_pair = np.triu(np.ones(distances.shape, np.bool_), 1)
        print("bits   copies   least  1% below  5% below   others    most: cosines")
        for bits in range(0, len(MIN_COSINES) + 4):
            of = is_pair & (distances == bits)
            copies, others = cosines[of & is_copy], np.sort(cosines[of & ~is_copy])[::-1]
            low = np.percentile(copies, [0, 1, 5]) if len(copies) else np.zeros(3)
            shown = " ".join(f"{each:.3f}" for each in others[:8])
            print(
                f"{bits:4} {len(copies):8}   {low[0]:.3f}     {low[1]:.3f}     {low[2]:.3f} {len(others):8}    {shown}"
            )


def pairs_in(groups: npt.NDArray[np.intp]) -> int:
    """Count the pairs that are in the same group."""
    counts = np.unique(groups, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def made_vectors(library: Library, rows: int) -> npt.NDArray[np.float16]:
    """Make vectors as photos have them: each is mixed of two real ones and noise, and one in 20 is another's copy."""
    chance = np.random.default_rng(SEED)
    real = library.vectors.astype(np.float32)
    vectors = np.empty((rows, real.shape[1]), np.float16)
    for start in range(0, rows, 10_000):
        part = vectors[start : start + 10_000]
        share = chance.uniform(0, 1, (len(part), 1)).astype(np.float32)
        one, another = (real[chance.integers(0, len(real), len(part))] for _ in range(2))
        mixed = share * one + (1 - share) * another
        mixed = np.maximum(0, mixed + 0.01 * chance.standard_normal(mixed.shape, np.float32))
        part[:] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    copies = rows // 20
    vectors[chance.integers(0, rows, copies)] = vectors[chance.integers(0, rows, copies)]
    return vectors


def time_many(library: Library, count: int) -> None:
    """Print how long made-up vectors and hashes take, and how much memory beside them."""
    vectors, rows = made_vectors(library, count), np.arange(count)
    hashes = np.random.default_rng(SEED).integers(0, 2**64, count, np.uint64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, run in {
        "same picture": lambda: same_pictures(hashes, vectors, rows, lambda done: None),
        "alike": lambda: alike(vectors, rows, lambda done: None),
    }.items():
        began, used = time.monotonic(), time.process_time()
        groups = run()
        seconds, cpu = time.monotonic() - began, time.process_time() - used
        print(
            f"{count:,} photos, {name}: {seconds:.0f} s, {cpu:.0f} s of processors, {len(np.unique(groups)):,} groups"
        )
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{more:.0f} MB of memory beside the index")


def main() -> int:
    """Make the index if it is missing, judge both halves, and time many rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photos", nargs="*")
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--originals", type=int, default=1000)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rows", type=int, default=0)
    given = parser.parse_args()
    status = False
    if not (given.index / FILE).exists():
        make_index(choose(given.photos, given.originals), given.index)
    library = Library.open(given.index)
    print(f"{library.embedding.model}: alike from a cosine of {ALIKE}, same picture by different bits from")
    print("    " + " ".join(f"{bits}:{cosine:.2f}" for bits, cosine in enumerate(MIN_COSINES)))
    first = Part(library, (0,))
    if given.table:
        first.table()
    first.judge("Chosen on")
    for title, parities in {"Judged on": (1,), "All together": (0, 1)}.items():
        precision, recall = Part(library, parities).judge(title)
        status |= precision < MIN_PRECISION or recall < MIN_RECALL
    if given.rows:
        time_many(library, given.rows)
    return int(status)


if __name__ == "__main__":
    sys.exit(main())

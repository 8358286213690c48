"""Indexes of made vectors, a fake engine whose embeddings depend on the photo, and a full disk."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from fakes import FakeEngine

from app.classifier import Classifier
from app.model.engines import Inference, Pixels
from app.search.embeddings import Embedding
from app.search.indexing import Indexer, Source
from app.search.library import Library, Row
from app.search.writer import Failure, Writer

CHANNELS = 64
EMBEDDING = Embedding("resnet18", "f3", "256 to 224, bilinear", "floating point", CHANNELS)


class ColourEngine(FakeEngine):
    """Give each photo an embedding: the mean colours of 64 squares of the crop."""

    def infer(self, batch: Pixels, *, alone: bool = False) -> Inference:
        logits = super().infer(batch, alone=alone).logits
        side = batch.shape[1] // 8
        squares = batch[:, : 8 * side, : 8 * side].reshape(len(batch), 8, side, 8, side, 3).mean(axis=(2, 4))
        features = np.asarray(squares, np.float32).transpose(0, 3, 1, 2).reshape(len(batch), 3 * 64, 1, 1)
        return Inference(logits, 1 + features)


def made_vectors(count: int, channels: int = CHANNELS) -> np.ndarray:
    """Make vectors that are positive and in groups, as those of photos are: three in each."""
    chance = np.random.default_rng(3)
    centres = np.repeat(np.maximum(0, chance.standard_normal((-(-count // 3), channels))), 3, axis=0)[:count]
    return np.maximum(0, centres + 0.2 * chance.standard_normal(centres.shape)).astype(np.float32)


def row_of(name: str) -> Row:
    return Row(name, f"{hash(name) & 0xFFFF:064x}", 30, 20, "JPEG", 1000)


def add(writer: Writer, names: Iterable[str], vectors: Sequence[np.ndarray]) -> None:
    """Add photos to an index, whose hashes are their numbers and whose thumbnails are made of their names."""
    for number, (name, vector) in enumerate(zip(names, vectors, strict=True)):
        writer.add(row_of(name), vector, number, f"thumbnail of {name}".encode())


def make_library(folder: Path, vectors: np.ndarray, failed: Sequence[str] = ()) -> Library:
    """Make an index of vectors, whose photos are named 0.jpg, 1.jpg, …"""
    with closing(Writer(folder, EMBEDDING)) as writer:
        add(writer, (f"{number}.jpg" for number in range(len(vectors))), vectors)
        for name in failed:
            writer.fail(Failure(name, None, "no-photo", "The file is empty."))
        writer.commit()
    return Library.open(folder)


def index_photos(folder: Path, classifier: Classifier, photos: Mapping[str, bytes]) -> None:
    """Make an index of photos by their paths, with a classifier."""
    model = classifier.load_model()
    with closing(Writer(folder, Embedding.of(model))) as writer:
        sources = [Source(path, lambda photo=photo: photo) for path, photo in photos.items()]
        indexer = Indexer(classifier, model, writer, max_pixels=10**6)
        indexer.run(sources, readers=1)
    assert indexer.progress.failed == 0


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """Let no file grow beyond this size, which fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

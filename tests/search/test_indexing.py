"""Adding photos to an index: which are tried again, and what a stopped job keeps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from fakes import colour_png, fake_classifier
from indexes import ColourEngine, full_disk

from app.errors import BatchStopped, BrokenImage, Overloaded, TopthreeError
from app.queueing.scheduling import Counts
from app.search.embeddings import Embedding
from app.search.indexing import Indexer, Source
from app.search.library import Library
from app.search.writer import Writer

Content = bytes | TopthreeError
PHOTO = colour_png(9, size=(20, 20))


def index(folder: Path, photos: dict[str, Content | Callable[[], Content]], **options: bool) -> Counts:
    """Add photos to an index, whose contents are given, or are read by a function."""
    classifier = fake_classifier(ColourEngine())
    model = classifier.load_model()
    sources = [
        Source(name, content if callable(content) else lambda content=content: content)
        for name, content in photos.items()
    ]
    with closing(Writer(folder, Embedding.of(model))) as writer:
        indexer = Indexer(classifier, model, writer, max_pixels=10**6)
        indexer.progress.photos = len(sources)
        indexer.run(sources, readers=2, **options)
    return indexer.progress


def test_only_photos_that_failed_by_themselves_stay_so(tmp_path: Path) -> None:
    problems = {"a.png": Overloaded("Too many photos wait."), "b.png": BrokenImage("This PNG file is damaged.")}
    assert index(tmp_path / "lib", problems) == Counts(2, done=2, failed=2, computed=2)
    better = dict.fromkeys(problems, PHOTO)
    assert index(tmp_path / "lib", better) == Counts(2, done=2, failed=1, computed=1)
    assert index(tmp_path / "lib", better, retry_failed=True) == Counts(2, done=2, failed=0, computed=1)
    assert [row.path for row in Library.open(tmp_path / "lib").rows] == ["a.png", "b.png"]


def test_a_stopped_job_keeps_what_it_computed(tmp_path: Path) -> None:
    def stop() -> bytes:
        raise BatchStopped("The store does not answer.")

    photos: dict[str, Content | Callable[[], Content]] = {f"{number}.png": PHOTO for number in range(40)}
    with pytest.raises(BatchStopped, match="The store does not answer"):
        index(tmp_path / "lib", photos | {"x.png": stop})
    assert len(Library.open(tmp_path / "lib")) >= 1
    index(tmp_path / "lib", photos)
    assert sorted(row.path for row in Library.open(tmp_path / "lib").rows) == sorted(photos)


def test_a_full_disk_counts_only_what_is_in_the_index(tmp_path: Path) -> None:
    classifier = fake_classifier(ColourEngine())
    model = classifier.load_model()
    sources = [Source(f"{number}.png", lambda: PHOTO) for number in range(5)]
    with ExitStack() as stack, closing(Writer(tmp_path / "lib", Embedding.of(model))) as writer:
        indexer = Indexer(classifier, model, writer, max_pixels=10**6)

        def fill(progress: Counts) -> None:
            if progress.done == 5:
                stack.enter_context(full_disk(100))

        indexer.note = fill
        with pytest.raises(BatchStopped, match="cannot be written"):
            indexer.run(sources, readers=2)
    assert indexer.progress.done == len(Library.open(tmp_path / "lib")) == 0

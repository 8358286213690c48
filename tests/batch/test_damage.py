"""Files of a run that were damaged from outside: a job and the status say so in one sentence, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from batches import batch
from fakes import colour_png

from app.batch.status import read_status
from app.errors import BatchError

Change = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"shards": 1', b'"shards": 0'),
        lambda text: text.replace(b'"shards": 1', b'"shards": -1'),
        lambda text: text.replace(b'"shards": 1', b'"shards": 1' + b"0" * 30),
        lambda text: text.replace(b"engine", b"\xffngine"),
    ],
)
def test_a_damaged_run_is_one_sentence(tmp_path: Path, change: Change) -> None:
    expect_one_sentence(tmp_path, "ndjson", "_run.json", change, "it is damaged, or of a newer version")


@pytest.mark.parametrize(
    ("format_", "change"),
    [
        ("csv", lambda text: text + b"a.png" + b"," * 99 + b"\n"),
        ("csv", lambda text: text[:-20]),
        ("ndjson", lambda text: text.replace(b'"error":null', b'"error":{}')),
    ],
)
def test_a_part_with_odd_cells_is_one_sentence(tmp_path: Path, format_: str, change: Change) -> None:
    expect_one_sentence(tmp_path, format_, f"part-00000.{format_}", change, "cannot be read; move it away")


def expect_one_sentence(folder: Path, format_: str, name: str, change: Change, said: str) -> None:
    """Change a file of a run of one photo, and expect a sentence of a job and of the status; the part stays."""
    (folder / "a.png").write_bytes(colour_png(0, size=(30, 20)))
    batch([folder / "a.png"], folder / "out", format_=format_, shards=1)
    path = folder / "out" / name
    path.write_bytes(changed := change(path.read_bytes()))
    for use in (
        lambda: batch([folder / "a.png"], folder / "out", format_=format_),
        lambda: read_status(folder / "out"),
    ):
        with pytest.raises(BatchError, match=said):
            use()
    assert path.read_bytes() == changed

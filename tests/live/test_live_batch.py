"""Batches line by line, over the real server: each answer when it is ready, and no work for a client that has left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from fakes import colour_png
from gated_batch import FIRST_HELD_BACK
from servers import GUNICORN, PATIENCE_SECONDS, ROOT, Server, serving

pytestmark = pytest.mark.live

COMMAND = (*GUNICORN, "--pythonpath", str(ROOT / "tests" / "support"), "gated_batch:create()")
QUICK = 5
HELD_BACK = range(FIRST_HELD_BACK, FIRST_HELD_BACK + 20)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose engine holds photos back until there is a file `open`."""
    monkeypatch.setenv("GATE_FOLDER", str(tmp_path))
    with serving(tmp_path, tmp_path / "log", command=COMMAND, workers=1) as server:
        server.wait_until_accepting()
        yield server


@contextmanager
def batch(server: Server, *reds: int) -> Iterator[Iterator[dict]]:
    """Send photos of these colours and give the lines of the answer as they come; the end closes the connection."""
    files = [("file", (f"{red}.png", colour_png(red))) for red in reds]
    url, headers = f"{server.url}/api/v1/predict/batch", {"Accept": "application/x-ndjson"}
    with httpx.stream("POST", url, files=files, headers=headers, timeout=PATIENCE_SECONDS) as answer:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
        yield map(json.loads, answer.iter_lines())


def begun(folder: Path) -> set[int]:
    """Read of which colours the photos are whose computing has begun; the warm-up's are left out."""
    return {int(line) for line in (folder / "begun").read_text().splitlines()} & {QUICK, *HELD_BACK}


def test_an_answer_leaves_before_slower_photos_are_computed(server: Server, tmp_path: Path) -> None:
    with batch(server, HELD_BACK[0], QUICK) as lines:
        first = next(lines)
        assert (first["index"], first["predictions"][0]["class_id"]) == (1, QUICK)
        (tmp_path / "open").touch()
        second, last = lines
        assert (second["index"], second["predictions"][0]["class_id"]) == (0, HELD_BACK[0])
        assert last["model"]["name"] == "resnet18"


def test_nothing_more_is_computed_for_a_client_that_has_left(server: Server, tmp_path: Path) -> None:
    with batch(server, QUICK, *HELD_BACK) as lines:
        assert next(lines)["index"] == 0
    (tmp_path / "open").touch()
    # The server ends when it has done what it was asked for.
    server.process.terminate()
    assert server.process.wait(PATIENCE_SECONDS) == 0
    assert begun(tmp_path) <= {QUICK, *HELD_BACK[:2]}

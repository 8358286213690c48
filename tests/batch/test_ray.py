"""A batch on a cluster of Ray: two nodes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from batches import rows_of
from click.testing import CliRunner

from app.commands import cli
from app.model.artifact import ensure_prepared
from app.model.bundle_writer import write_bundle
from app.model.labels import imagenet_labels
from app.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "static" / "samples").glob("*.webp"))
PHOTOS = 120
# Two nodes and their actors are a dozen processes, each of which imports Ray.
PATIENCE_SECONDS = 600.0
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray Data, the extra ray")


@pytest.fixture
def bundle(packaged_settings: Settings, tmp_path: Path) -> Path:
    """A bundle of the packaged model."""
    return write_bundle(ensure_prepared(packaged_settings), imagenet_labels(), tmp_path / "model.tar").path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with links to real photos, and two that fail."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(PHOTOS):
        (folder / f"{number}.webp").symlink_to(SAMPLES[number % len(SAMPLES)])
    (folder / "empty.jpg").touch()
    (folder / "gone.jpg").symlink_to("nowhere")
    return folder


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    """A running cluster; `tests/support/ray_nodes.py` says how to use it."""
    command = [sys.executable, ROOT / "tests" / "support" / "ray_nodes.py"]
    variables = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True, env=variables) as nodes:
        yield nodes
        nodes.stdin.close()


@pytest.fixture
def start(bundle: Path, photos: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start jobs on the photos, in the folder above them."""

    def run(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "app", "batch", "photos", "--format", "ndjson", "--embeddings"]
        variables = os.environ | {"TOPTHREE_BUNDLE": str(bundle), "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*command, *map(str, arguments)], cwd=photos.parent, env=variables, stderr=subprocess.PIPE, text=True
        )

    return run


@pytest.mark.cluster
@needs_ray
def test_a_node_that_dies_changes_no_row(cluster, start, tmp_path: Path) -> None:
    address = cluster.stdout.readline().strip()
    job = start("--output", "far", "--shards", 20, "--ray", address)
    end = time.monotonic() + PATIENCE_SECONDS
    while not list((tmp_path / "far").glob("part-*")):
        assert job.poll() is None, job.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.1)
    cluster.stdin.write("kill\n")
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "killed\n"
    said = job.communicate()[1]
    assert job.returncode == 1, said
    assert said.splitlines()[-2].startswith(f"{PHOTOS + 2} photos in far, ")
    # On a busy machine decoders may have started too late for the first photos.
    again = start("--output", "far", "--retry-failed", "--ray", address)
    said = again.communicate()[1]
    assert (again.returncode, said.splitlines()[-2]) == (1, f"{PHOTOS + 2} photos in far, 2 failed."), said
    near = start("--output", "near")
    said = near.communicate()[1]  # which closes the pipe
    assert near.returncode == 1, said
    assert rows_of(tmp_path / "far") == rows_of(tmp_path / "near")


@needs_ray
def test_a_bundle_that_differs_stops_the_job(bundle: Path) -> None:
    from app.batch.ray import Classify
    from app.errors import ModelUnavailable

    with pytest.raises(ModelUnavailable, match="has SHA-256 .*, but TOPTHREE_BUNDLE_SHA256 demands 0000"):
        Classify(str(bundle), "0" * 64)


@needs_ray
def test_tasks_of_one_process_share_one_model(bundle: Path, photos: Path) -> None:
    import pyarrow

    from app.batch.ray import classify_here

    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    with closing(classify_here(str(bundle), digest)) as classify:
        assert classify is classify_here(str(bundle), digest)
        rows = classify(pyarrow.table({"path": [f"{photos}/0.webp", f"{photos}/gone.jpg"], "number": [1, 2]}))
    classify_here.cache_clear()
    assert rows["path"].to_pylist() == [f"{photos}/0.webp", f"{photos}/gone.jpg"]
    assert rows["error"].to_pylist() == [None, "unreadable-file"]
    assert rows["number"].to_pylist() == [1, 2]


@needs_ray
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("127.0.0.1:1", "The cluster of Ray at 127.0.0.1:1 cannot be used: Connection refused."),
        ("ray://127.0.0.1:1", "--ray is 'ray://127.0.0.1:1'; it must be auto or HOST:PORT."),
    ],
)
def test_no_cluster_is_one_sentence(
    bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, address: str, sentence: str
) -> None:
    monkeypatch.setenv("TOPTHREE_BUNDLE", str(bundle))
    result = CliRunner().invoke(cli, ["batch", str(photos), "--output", str(bundle.parent / "out"), "--ray", address])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {sentence}"


def test_ray_is_imported_only_if_asked_for() -> None:
    code = "import sys, app.commands.batch; sys.exit('ray' in sys.modules or 'pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)

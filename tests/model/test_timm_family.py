"""Models of timm: their rows, their weights from a file, and heads of which heat maps can be made."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
import typing
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from file_server import CONTENT, SHA256

from app.errors import WeightsError
from app.model.artifact import FILES, Manifest, prepared_timm
from app.model.artifact_writer import describe, publish
from app.model.backbones import any_record, find_weights_to_load, load_backbone
from app.model.backbones.head_reading import read_head_of
from app.model.heads import head_bytes, read_head
from app.model.records import as_json, from_json
from app.model.weights import Weights
from app.photos.decoding import Geometry
from app.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
HGNET = "timm/hgnetv2_b1.ssld_stage2_ft_in1k"
LACKING = "timm/hgnetv2_b0.ssld_stage2_ft_in1k"
BUSY = "timm/hgnetv2_b2.ssld_stage2_ft_in1k"


def test_row_is_what_timm_says() -> None:
    record = any_record(HGNET)
    assert record.geometry == Geometry(232, 224, "bicubic")  # 224 / 0.965
    assert record.source == "https://huggingface.co/timm/hgnetv2_b1.ssld_stage2_ft_in1k/model.safetensors"
    assert (record.licence, record.mean[0]) == ("apache-2.0", 0.485 * 255)
    assert from_json(as_json(record)) == record


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/hgnetv2_b1.nope", "no model named hgnetv2_b1.nope. Did you mean timm/hgnetv2_b1.ssld"),
        ("timm/tf_efficientnet_l2.ns_jft_in1k", "needs photos of another shape than RGB squares"),
    ],
)
def test_what_cannot_serve_is_refused(name: str, sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        any_record(name)


def test_missing_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match=r"needs timm to be prepared: pip install 'topthree\[timm\]'"):
        any_record(HGNET)


@pytest.fixture
def network() -> torch.nn.Module:
    """A network of timm with random weights, of which the block after the hidden layer does something."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("hgnetv2_b1", pretrained=False, num_classes=1000).eval()
    with torch.no_grad():
        network.head.last_conv[2].scale.fill_(1.3)
        network.head.last_conv[2].bias.fill_(-0.2)
    return network


@pytest.fixture
def own(network: torch.nn.Module, tmp_path: Path) -> Path:
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    return tmp_path / "own.safetensors"


def test_weights_of_a_file_compute_what_timm_does(
    make_settings: Callable[..., Settings], network: torch.nn.Module, own: Path
) -> None:
    weights = find_weights_to_load(make_settings(model=HGNET, weights=own))
    backbone = load_backbone(weights, 1000)
    pixels = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits, features = backbone(pixels)
        torch.testing.assert_close(logits, network(backbone.normalise(pixels)))
    head = read_head_of(backbone.head, features)
    assert head is not None
    assert (head.activation, head.weight.shape) == ("relu", (1000, 2049))
    kept = read_head(head_bytes(head))
    assert kept is not None
    expected = (logits - network.head.fc.bias.detach())[0].numpy()
    assert np.abs(kept.logits(features[0].numpy()) - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


def fill(weights: Weights, folder: Path) -> Manifest:
    """Write the files of an artifact, of a few bytes each."""
    for name in FILES:
        (folder / name).write_text(name)
    return describe(weights, folder, precision="fp32", classes=1000)


def test_artifact_keeps_the_row_that_serving_needs(make_settings: Callable[..., Settings], own: Path) -> None:
    settings = make_settings(model=HGNET, weights=own)
    weights = find_weights_to_load(settings)
    manifest = publish(settings, weights, lambda folder: fill(weights, folder)).manifest
    assert manifest.record is not None
    assert from_json(manifest.record) == dataclasses.replace(any_record(HGNET), source="")
    found = prepared_timm(settings)
    assert found is not None
    assert (found.path, found.sha256) == (own, weights.sha256)


def test_an_artifact_of_ones_own_weights_serves_with_them_only(
    make_settings: Callable[..., Settings], own: Path
) -> None:
    settings = make_settings(model=HGNET, weights=own)
    weights = find_weights_to_load(settings)
    publish(settings, weights, lambda folder: fill(weights, folder))
    assert prepared_timm(make_settings(model=HGNET)) is None
    hub = dataclasses.replace(weights, record=any_record(HGNET), source="hub")  # the same file, from its publisher
    publish(make_settings(model=HGNET), hub, lambda folder: fill(hub, folder))
    for each in (settings, make_settings(model=HGNET)):
        found = prepared_timm(each)
        assert found is not None
        assert found.sha256 == weights.sha256


class Hub(BaseHTTPRequestHandler):
    """Answers for a file as the hub does: with a commit and an etag.

    It has no file of `LACKING`, and none of `BUSY`, after it was once too busy to say so.
    """

    asked = 0
    statuses: typing.ClassVar = {LACKING: [404], BUSY: [503, 404]}

    def do_HEAD(self) -> None:
        Hub.asked += 1
        (found,) = [each for name, each in self.statuses.items() if name.partition("/")[2] in self.path] or [[200]]
        self.send_response(found.pop(0) if len(found) > 1 else found[0])
        headers = {"ETag": '"0123"', "X-Repo-Commit": "a" * 40, "Content-Length": str(len(CONTENT))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""


# It runs one command for each line that it reads, since to import timm takes seconds.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from app.commands import cli
for line in sys.stdin:
    model, *arguments = line.split()
    done = CliRunner().invoke(cli, ["weights", *arguments], env={"TOPTHREE_MODEL": model})
    print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a process that takes these tests' server for the hub."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path_factory.mktemp("hub")),
            "NO_PROXY": "*",
        }
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def stray(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file for what is written to the standard error of `weights_command` around click."""
    return tmp_path_factory.mktemp("stray") / "stderr"


@pytest.fixture(scope="module")
def weights_command(environment: dict[str, str], stray: Path) -> Iterator[Command]:
    """Runs `topthree weights` for a model."""
    command, pipes = [sys.executable, "-c", COMMANDS], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with (
        stray.open("wb") as errors,
        subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=errors, **pipes) as process,
    ):

        def run(*words: str) -> tuple[int, str, str]:
            print(*words, file=process.stdin, flush=True)
            return tuple(json.loads(process.stdout.readline()))

        yield run
        process.stdin.close()


def test_fetch_downloads_a_model_of_timm_from_the_hub(weights_command: Command) -> None:
    code, before, errors = weights_command(HGNET)
    assert (code, "not there; downloaded at the next start" in before) == (1, True), errors
    code, fetched, errors = weights_command(HGNET, "--fetch")
    assert code == 0, errors
    assert f"hub                serves: {HGNET}, SHA-256 {SHA256}" in fetched
    asked = Hub.asked
    assert weights_command(HGNET)[1] == fetched
    assert Hub.asked == asked > 0


def test_fetch_of_what_the_hub_lacks_is_one_sentence(weights_command: Command) -> None:
    code, output, errors = weights_command(LACKING, "--fetch")
    assert (code, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith(f"Error: The weights of {LACKING} cannot be downloaded: ")
    assert line.endswith(". Set TOPTHREE_WEIGHTS to a file.")


def test_what_the_hub_library_reports_is_not_shown(weights_command: Command, stray: Path) -> None:
    code, _, errors = weights_command(BUSY, "--fetch")
    assert Hub.statuses[BUSY] == [404]  # it was asked again
    (line,) = errors.splitlines()
    assert (code, line.startswith(f"Error: The weights of {BUSY} cannot be downloaded: ")) == (1, True)
    assert stray.read_text() == ""

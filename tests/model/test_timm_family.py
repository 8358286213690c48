"""Models of timm: their rows, their weights from a file, and heads of which heat maps can be made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from app.errors import WeightsError
from app.model.artifact_writer import describe
from app.model.backbones import any_record, find_weights_to_load, load_backbone
from app.model.backbones.head_reading import read_head_of
from app.model.heads import head_bytes, read_head
from app.model.records import as_json, from_json
from app.photos.decoding import Geometry
from app.settings import Settings

HGNET = "timm/hgnetv2_b1.ssld_stage2_ft_in1k"


def test_row_is_what_timm_says() -> None:
    record = any_record(HGNET)
    assert record.geometry == Geometry(232, 224, "bicubic")  # 224 / 0.965
    assert record.source == "https://huggingface.co/timm/hgnetv2_b1.ssld_stage2_ft_in1k/model.safetensors"
    assert (record.licence, record.mean[0]) == ("apache-2.0", 0.485 * 255)
    assert from_json(as_json(record)) == record


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("timm/hgnetv2_b1.nope", "no model named hgnetv2_b1.nope; the nearest names are timm/hgnetv2_b1.ssld"),
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
    torch.manual_seed(0)
    network = timm.create_model("hgnetv2_b1", pretrained=False, num_classes=1000).eval()
    with torch.no_grad():
        network.head.last_conv[2].scale.fill_(1.3)
        network.head.last_conv[2].bias.fill_(-0.2)
    return network


def test_weights_of_a_file_compute_what_timm_does(
    make_settings: Callable[..., Settings], network: torch.nn.Module, tmp_path: Path
) -> None:
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    weights = find_weights_to_load(make_settings(model=HGNET, weights=tmp_path / "own.safetensors"))
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


def test_artifact_keeps_the_row_that_serving_needs(
    make_settings: Callable[..., Settings], network: torch.nn.Module, tmp_path: Path
) -> None:
    safetensors.torch.save_file(network.state_dict(), tmp_path / "own.safetensors")
    weights = find_weights_to_load(make_settings(model=HGNET, weights=tmp_path / "own.safetensors"))
    for name in ("model.xml", "model.bin", "classifier.npy"):
        (tmp_path / name).touch()
    manifest = describe(weights, tmp_path, precision="fp32", classes=1000)
    assert manifest.record is not None
    assert from_json(manifest.record) == any_record(HGNET)

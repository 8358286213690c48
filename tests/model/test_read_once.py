"""What was hashed is what is loaded: files that are replaced between the two change nothing, or are refused."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import shutil
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from bundling import LABELS, small_bundle
from torchvision.models import resnet18

from app.errors import WeightsError
from app.model.artifact import FILES, ensure_prepared, identify_weights
from app.model.backbones import load_backbone
from app.model.bundle import read_bundle
from app.model.digests import bytes_sha256, file_sha256
from app.model.engines import OpenVINOEngine
from app.model.labels import load_labels
from app.model.opening import open_bundle, unpack
from app.model.records import RECORDS
from app.model.weights import FALLBACK_MARKER, Weights, find_weights, packaged_weights
from app.settings import Settings

RESNET18 = RECORDS["resnet18"]

MakeSettings = Callable[..., Settings]


class Opened:
    """Count how often a file is opened while the block runs, whatever opens it, as inotify(7) tells."""

    ACCESS, CLOSE, OPEN = 0x01, 0x10, 0x20
    HEAD = struct.Struct("iIII")

    def __init__(self, path: Path) -> None:
        self.count = 0
        libc = ctypes.CDLL(None)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        # The kernel tells equal events that follow each other once: with the others between, each open is told.
        libc.inotify_add_watch(self._descriptor, os.fsencode(path), self.ACCESS | self.CLOSE | self.OPEN)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BlockingIOError):  # all has been read
            while events := os.read(self._descriptor, 1 << 16):
                self.count += sum(bool(mask & self.OPEN) for _, mask, _, _ in self.HEAD.iter_unpack(events))
        os.close(self._descriptor)


@pytest.fixture(params=["own.pth", "own.safetensors"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A small weights file: each tensor of its state dict is one number, repeated."""
    return store_small(tmp_path / request.param, bias=0.0)


def store_small(path: Path, bias: float) -> Path:
    """Save a ResNet-18 of few different numbers, with this bias."""
    state = resnet18().state_dict()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state | {"fc.bias": torch.full((1000,), bias)}, path)
    else:
        small = {name: torch.ones((), dtype=value.dtype).expand(value.shape) for name, value in state.items()}
        torch.save(small | {"fc.bias": torch.full((), bias).expand(1000)}, path)
    return path


def test_pinned_weights_replaced_before_loading_are_refused(make_settings: MakeSettings, own: Path) -> None:
    weights = find_weights(make_settings(weights=own, weights_sha256=file_sha256(own)))
    os.replace(store_small(own.with_stem("forged"), bias=1.0), own)
    with pytest.raises(WeightsError, match="was changed after its SHA-256 had been checked; start again"):
        load_backbone(weights, 1000)


def test_weights_are_opened_once_to_be_verified_and_loaded(own: Path) -> None:
    weights = Weights(own, file_sha256(own), RESNET18, "TOPTHREE_WEIGHTS")
    with Opened(own) as opened:
        load_backbone(weights, 1000)
    assert opened.count == 1


@pytest.mark.parametrize("has_fallback", [False, True])
def test_a_cached_file_is_hashed_once_to_be_found(
    has_fallback: bool, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(RECORDS, "resnet18", dataclasses.replace(RESNET18, sha256=bytes_sha256(b"weights")))
    file = tmp_path / "own-cache" / "weights" / RESNET18.file_name
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    if has_fallback:
        (tmp_path / "own-cache" / FALLBACK_MARKER).write_text("The host cannot be reached.")
    with Opened(file) as opened:
        found = identify_weights(make_settings(cache=tmp_path / "own-cache"))
    assert (found.path, found.source, opened.count) == (file, "cache", 1)


def test_opening_twice_would_be_noticed(own: Path) -> None:
    with Opened(own) as opened:
        file_sha256(own)
        torch.load(own) if own.suffix == ".pth" else safetensors.torch.load_file(own)
    assert opened.count > 1


def test_weights_that_are_gone_before_they_are_loaded_are_named(own: Path) -> None:
    weights = Weights(own, file_sha256(own), RESNET18, "TOPTHREE_WEIGHTS")
    own.unlink()
    with pytest.raises(WeightsError, match=rf"{own.name} cannot be read: No such file or directory"):
        load_backbone(weights, 1000)


def test_packaged_weights_are_what_their_digest_says() -> None:
    found = packaged_weights("")
    with pytest.raises(WeightsError, match="was changed after"):
        load_backbone(Weights(found.path, "0" * 64, found.record, found.source), 1000)


def test_an_artifact_replaced_once_verified_answers_as_before(
    packaged_settings: Settings, make_settings: MakeSettings, tmp_path: Path
) -> None:
    packaged = ensure_prepared(packaged_settings)
    known = OpenVINOEngine(packaged, precision="fp32", cpus=1, threads_alone=1)
    cache = tmp_path / "own-cache"
    shutil.copytree(packaged.folder, cache / "prepared" / packaged.folder.name)
    shutil.copy(packaged_settings.cache / FALLBACK_MARKER, cache)
    prepared = ensure_prepared(make_settings(cache=cache, precision="fp32"))
    for name in FILES:
        (cache / "forged").write_bytes(b"forged")
        os.replace(cache / "forged", prepared.folder / name)
    engine = OpenVINOEngine(prepared, precision="fp32", cpus=1, threads_alone=1)
    crop = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), np.uint8)
    assert np.array_equal(engine.infer(crop).logits, known.infer(crop).logits)
    assert np.array_equal(engine.head.weight, known.head.weight)


def test_a_bundle_replaced_once_verified_is_served_as_it_was(make_settings: MakeSettings, tmp_path: Path) -> None:
    bundle = small_bundle(tmp_path)
    prepared = open_bundle(bundle, make_settings(bundle=bundle, bundle_sha256=file_sha256(bundle)))
    for path in (*prepared.folder.iterdir(), prepared.folder.parent / "labels.csv"):
        path.with_name("forged").write_bytes(b"forged")
        os.replace(path.with_name("forged"), path)
    assert {name: bytes_sha256(prepared.content[name]) for name in FILES} == prepared.manifest.files
    assert load_labels(prepared.labels) == LABELS


def test_a_bundle_is_read_once_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    bundle, pipe = small_bundle(tmp_path), tmp_path / "pipe"
    os.mkfifo(pipe)  # gives each byte once, and cannot go back
    writer = threading.Thread(target=pipe.write_bytes, args=(bundle.read_bytes(),))
    writer.start()
    found, expected = read_bundle(pipe, file_sha256(bundle)), read_bundle(bundle)
    writer.join()
    assert (found.sha256, found.members, found.description) == (
        expected.sha256,
        expected.members,
        expected.description,
    )


def test_each_file_of_an_unpacked_bundle_is_opened_once(tmp_path: Path) -> None:
    found = read_bundle(small_bundle(tmp_path))
    folder = unpack(found, tmp_path).folder
    with contextlib.ExitStack() as stack:
        watches = [stack.enter_context(Opened(folder / member.name)) for member in found.members]
        unpack(found, tmp_path)
    assert [watch.count for watch in watches] == [1] * len(watches)

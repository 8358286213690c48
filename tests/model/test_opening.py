"""A bundle is unpacked once, whole or not at all, and serves without weights, torch or a network."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bundling import rewrite, small_bundle

from app.classifier import Classifier
from app.errors import BundleError
from app.model.artifact import Prepared, ensure_prepared
from app.model.bundle import DESCRIPTION, MEMBERS, read_bundle
from app.model.bundle_writer import write_bundle
from app.model.labels import imagenet_labels
from app.model.opening import FALLBACK_REASON, open_bundle, unpack
from app.model.records import FALLBACK_NAME
from app.model.served import load_served
from app.settings import Settings
from app.web.api import describe

ROOT = Path(__file__).resolve().parents[2]
MakeSettings = Callable[..., Settings]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle of a few hundred bytes a file."""
    return small_bundle(tmp_path)


@pytest.fixture
def real_bundle(packaged_settings: Settings, tmp_path: Path) -> Path:
    """A bundle of the real packaged model."""
    return write_bundle(ensure_prepared(packaged_settings), imagenet_labels(), tmp_path / "real.tar").path


def open_(bundle: Path, make_settings: MakeSettings, **values: object) -> Prepared:
    return open_bundle(bundle, make_settings(bundle=bundle, **values))


def test_it_opens_from_the_cache_once_it_is_there(bundle: Path, make_settings: MakeSettings) -> None:
    prepared = open_(bundle, make_settings)
    before = {path: path.stat().st_ino for path in prepared.folder.iterdir()}
    assert open_(bundle, make_settings).folder == prepared.folder
    assert {path: path.stat().st_ino for path in prepared.folder.iterdir()} == before
    assert (prepared.weights.source, prepared.weights.path) == ("bundle", bundle)
    assert prepared.labels.decode().splitlines()[1:] == ["0,,cat,,", '1,,"dog, ""big""",,', "2,,杯,,"]


@pytest.mark.parametrize("name", MEMBERS)
def test_what_was_damaged_in_the_cache_is_unpacked_again(bundle: Path, tmp_path: Path, name: str) -> None:
    found = read_bundle(bundle)
    folder = unpack(found, tmp_path).folder
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(b"damaged")
    assert unpack(found, tmp_path).content[name] == whole
    assert (folder / name).read_bytes() == whole
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".unf")] == []


def test_what_a_killed_process_left_is_cleared_away(bundle: Path, tmp_path: Path) -> None:
    left = tmp_path / "bundles" / ".unfinished-1" / "model"
    left.mkdir(parents=True)
    unpack(read_bundle(bundle), tmp_path)
    assert not left.parent.exists()


def test_many_at_once_get_the_same_whole_folder(bundle: Path, tmp_path: Path) -> None:
    found = read_bundle(bundle)
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(lambda _: unpack(found, tmp_path).folder, range(32)))
    assert len(folders) == 1
    assert {path.name for path in (tmp_path / "bundles").iterdir()} == {".lock", found.sha256}


def test_a_bundle_that_changes_while_it_is_unpacked_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    found = read_bundle(bundle)
    rewrite(bundle, {"model/model.bin": b"THIS IS model.bin"})
    with pytest.raises(BundleError, match="changed while it was unpacked; start again"):
        unpack(found, tmp_path)
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == [".lock"]


def test_a_cache_that_cannot_be_written_is_one_sentence(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(
        BundleError, match=r"cannot be unpacked\. The folder .* cannot be written: .* Set TOPTHREE_CACHE to a folder"
    ):
        unpack(read_bundle(bundle), tmp_path / "cache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a read-only file system")
def test_a_read_only_cache_serves_what_was_unpacked_before(bundle: Path, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path\n"
    code += "from app.model.bundle import read_bundle; from app.model.opening import unpack\n"
    code += (
        "try: print(unpack(read_bundle(Path(sys.argv[1])), Path(sys.argv[2])).folder)\nexcept Exception as e: print(e)"
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    script = 'mount --bind "$2" "$2" && mount -o remount,ro,bind "$2" && exec "$3" -c "$4" "$1" "$2"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(bundle), str(cache), sys.executable, code]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here")
    fresh = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Read-only file system. Set TOPTHREE_CACHE to a folder that can be written" in fresh.stdout
    folder = unpack(read_bundle(bundle), cache).folder
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == f"{folder}\n"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto"])
def test_what_is_computed_from_float32_suits_a_float32_bundle(
    bundle: Path, make_settings: MakeSettings, precision: str
) -> None:
    assert open_(bundle, make_settings, precision=precision).manifest.precision == "fp32"


def test_a_precision_that_it_does_not_hold_is_refused(bundle: Path, make_settings: MakeSettings) -> None:
    with pytest.raises(
        BundleError, match="TOPTHREE_PRECISION is int8, but .*small.tar of TOPTHREE_BUNDLE holds an fp32"
    ):
        open_(bundle, make_settings, precision="int8")


def test_an_int8_bundle_needs_no_setting_and_carries_its_accuracy(bundle: Path, make_settings: MakeSettings) -> None:
    change = {"precision": "int8", "accuracy": {"agreement": 96.5}}
    rewrite(bundle, {DESCRIPTION: change, "model/manifest.json": change})
    assert open_(bundle, make_settings).manifest.accuracy == {"agreement": 96.5}
    with pytest.raises(BundleError, match="TOPTHREE_PRECISION is fp32, but .* holds an int8"):
        open_(bundle, make_settings, precision="fp32")


def test_a_bundle_for_another_openvino_is_not_unpacked(bundle: Path, make_settings: MakeSettings) -> None:
    rewrite(bundle, {DESCRIPTION: {"openvino": "2020.1.0"}})
    with pytest.raises(BundleError, match="serves with OpenVINO 2020.1.0"):
        open_(bundle, make_settings)
    assert not make_settings().cache.exists()


def test_its_answers_are_those_of_the_model_that_it_was_made_of(
    real_bundle: Path, make_settings: MakeSettings, packaged_classifier: Classifier
) -> None:
    model = load_served(make_settings(bundle=real_bundle)).backbone
    crop = np.arange(224 * 224 * 3, dtype=np.uint32).reshape(1, 224, 224, 3).astype(np.uint8)
    expected = packaged_classifier.load_model().engine.infer(crop)
    assert (model.engine.infer(crop).logits == expected.logits).all()
    assert model.labels == imagenet_labels()
    assert model.identity == packaged_classifier.load_model().identity
    assert (describe(model).source, describe(model).fallback_reason) == ("bundle", FALLBACK_REASON)


@pytest.mark.parametrize(("name", "is_fallback"), [("", True), (FALLBACK_NAME, False)])
def test_a_model_that_was_chosen_is_no_fallback(
    real_bundle: Path, make_settings: MakeSettings, name: str, is_fallback: bool
) -> None:
    assert open_(real_bundle, make_settings, model=name).weights.is_fallback == is_fallback


def test_serving_a_bundle_needs_neither_torch_nor_weights_nor_a_network(
    real_bundle: Path, make_settings: MakeSettings, tmp_path: Path
) -> None:
    code = (
        "import os, sys, socket\n"
        "def refuse(*args): raise AssertionError(f'the network was touched: {args}')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if 'efficientnet' in name else find(name, *rest)\n"
        "from app.model.served import load_served; from app.settings import Settings\n"
        "print(load_served(Settings.from_environment(os.environ)).backbone.weights.source, 'torch' in sys.modules)"
    )
    environment = os.environ | make_settings(bundle=real_bundle, cache=tmp_path / "fresh").as_environment()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "bundle False\n", done.stderr


def test_a_copy_in_the_cache_of_another_user_will_do(bundle: Path, tmp_path: Path) -> None:
    found = read_bundle(bundle)
    folder = unpack(found, tmp_path).folder
    moved = tmp_path / "other" / "bundles" / found.sha256
    shutil.copytree(folder, moved)
    shutil.rmtree(folder)
    assert unpack(dataclasses.replace(found, path=tmp_path / "gone"), tmp_path / "other").folder == moved

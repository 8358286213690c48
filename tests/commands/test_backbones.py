"""The commands that show models: the table, layers, feature maps, and where models disagree."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fakes import colour_png

from app.commands import cli
from app.measuring import speed
from app.model.records import RECORDS
from app.settings import Settings

pytestmark = pytest.mark.slow


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_table_lists_every_model_with_its_facts() -> None:
    lines = invoke("backbones").output.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(RECORDS)
    assert lines[1].split() == ["resnet18", "46.8", "11.7", "224", "69.76", "89.08", "BSD-3-Clause"]


def test_table_as_json_has_the_address_and_digest() -> None:
    (row,) = json.loads(invoke("backbones", "mobilenet_v2", "--json").output)
    assert row["source"].endswith(f"/mobilenet_v2-{row['sha256']}.pth")
    assert row["geometry"] == {"resize": 256, "crop": 224, "interpolation": "bilinear"}


def test_unknown_model_is_refused_with_the_nearest_names() -> None:
    result = invoke("backbones", "resnet5O")
    assert result.exit_code == 1
    assert "There is no model named 'resnet5O' for TOPTHREE_MODEL. Did you mean resnet50" in result.output


def test_speed_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TOPTHREE_CACHE", str(tmp_path))
    monkeypatch.setattr("app.measuring.speed.SECONDS", 0.2)
    monkeypatch.setattr(speed, "_untrained", functools.cache(speed._untrained))  # whose graph is the same each time
    first, second = (invoke("backbones", "resnet18", "--measure") for _ in range(2))
    assert (first.exit_code, "Measuring resnet18." in first.stderr) == (0, True)
    assert float(first.stdout.split()[-1]) > 0
    assert (second.stdout, second.stderr) == (first.stdout, "")
    third = invoke("backbones", "resnet18", "--measure", "--again")
    assert (third.exit_code, third.stderr) == (0, "Measuring resnet18.\n")


def test_measuring_again_goes_with_measuring() -> None:
    result = invoke("backbones", "resnet18", "--again")
    assert (result.exit_code, "--again goes with --measure." in result.output) == (2, True)


@pytest.mark.parametrize("names", [["resnet18"], ["resnet18", "resnet18"]])
def test_models_are_compared_only_where_two_are_named(tmp_path: Path, names: list[str]) -> None:
    result = invoke("backbones", *names, "--try", str(tmp_path))
    assert result.exit_code == 2
    assert "--try compares at least two models" in result.output


@pytest.mark.parametrize("name", ["TOPTHREE_WEIGHTS", "TOPTHREE_BUNDLE"])
def test_files_of_ones_own_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, str(tmp_path / "own"))
    result = invoke("backbones", "resnet18", "resnet34", "--try", str(tmp_path))
    assert result.exit_code == 2
    assert "--try compares published weights: unset TOPTHREE_WEIGHTS and TOPTHREE_BUNDLE." in result.output


def test_layers_have_their_shapes_at_any_side() -> None:
    layers = {
        layer["name"]: layer for layer in json.loads(invoke("inspect", "resnet18", "--side", "640", "--json").output)
    }
    shapes = [layers[f"layer{number}"]["shape"] for number in (1, 2, 3, 4)]
    assert shapes == [[64, 160, 160], [128, 80, 80], [256, 40, 40], [512, 20, 20]]
    assert sum(layer["parameters"] for layer in layers.values()) == RECORDS["resnet18"].parameters


def test_layers_are_listed_for_people_too() -> None:
    lines = invoke("inspect", "mobilenet_v3_small").output.splitlines()
    assert lines[0].split() == ["features", "Sequential", "576x7x7", "927,008"]
    assert lines[-1] == "mobilenet_v3_small has 2,542,856 parameters."


def test_layers_in_a_list_that_is_not_called_are_counted() -> None:
    lines = invoke("inspect", "efficientnet_lite0").output.splitlines()
    assert lines[-1] == f"efficientnet_lite0 has {RECORDS['efficientnet_lite0'].parameters:,} parameters."


@pytest.fixture
def packaged(monkeypatch: pytest.MonkeyPatch, packaged_settings: Settings) -> None:
    """Let the commands use the packaged model by its name."""
    monkeypatch.setenv("TOPTHREE_MODEL", "efficientnet_lite0")
    monkeypatch.setenv("TOPTHREE_CACHE", str(packaged_settings.cache))


def test_feature_maps_are_written_for_each_layer(packaged: None, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(colour_png(200))
    (tmp_path / "b.png").write_bytes(colour_png(7))
    out = tmp_path / "maps.npz"
    result = invoke(
        "features", str(tmp_path), "--layers", "_blocks.2,_blocks.15", "--side", "320", "--output", str(out)
    )
    assert result.output.splitlines() == ["_blocks.2: 2 photos, 24x80x80", "_blocks.15: 2 photos, 320x10x10"]
    with np.load(out) as maps:
        assert {name: maps[name].shape for name in maps.files} == {
            "_blocks.2": (2, 24, 80, 80),
            "_blocks.15": (2, 320, 10, 10),
            "photos": (2,),
        }


def test_nothing_is_written_for_a_layer_that_does_not_exist(packaged: None, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(colour_png(200))
    result = invoke("features", str(tmp_path / "a.png"), "--layers", "_blocks.99", "--output", str(tmp_path / "m.npz"))
    assert result.exit_code == 1
    assert "The network has no layer '_blocks.99'; there are, among others, _blocks.9" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_every_layer_that_inspect_lists_has_a_map(packaged: None, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(colour_png(200))
    listed = [
        (layer["name"], layer["shape"]) for layer in json.loads(invoke("inspect", "--depth", "9", "--json").output)
    ]
    out = tmp_path / "maps.npz"
    result = invoke("features", str(tmp_path / "a.png"), "--layers", ",".join(dict(listed)), "--output", str(out))
    assert result.exit_code == 0, result.output
    with np.load(out) as maps:
        assert {name: list(maps[name].shape[1:]) for name in maps.files if name != "photos"} == dict(listed)


@pytest.mark.parametrize(
    ("layers", "output", "sentence"),
    [
        ("_blocks", "m.npz", "The layer '_blocks' has no output of its own. 'topthree inspect MODEL --depth 3'"),
        (" , ", "m.npz", "Invalid value for --layers: names no layer."),
        ("_fc", "m.npy", "Invalid value for --output: the file's name must end in .npz."),
    ],
)
def test_maps_that_cannot_be_written_are_refused(
    packaged: None, tmp_path: Path, layers: str, output: str, sentence: str
) -> None:
    (tmp_path / "a.png").write_bytes(colour_png(200))
    result = invoke("features", str(tmp_path / "a.png"), "--layers", layers, "--output", str(tmp_path / output))
    assert result.exit_code in (1, 2)
    assert sentence in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

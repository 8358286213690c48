"""`topthree bundle`: writes the same bytes for the same model, checks, describes, and overwrites nothing unasked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundling import rewrite, small_bundle
from click.testing import CliRunner, Result

from app.commands import cli
from app.errors import SettingsError
from app.model.bundle import DESCRIPTION
from app.model.digests import file_sha256
from app.settings import Settings


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A whole bundle of a few hundred bytes a file."""
    return small_bundle(tmp_path)


def run(runner: CliRunner, *arguments: object, exit_code: int = 0, **settings: object) -> Result:
    variables = {f"TOPTHREE_{name.upper()}": str(value) for name, value in settings.items()}
    result = runner.invoke(cli, ["bundle", *map(str, arguments)], env=variables, catch_exceptions=False)
    assert result.exit_code == exit_code, result.output
    return result


def test_the_same_model_makes_the_same_bytes(
    runner: CliRunner, packaged_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(runner, "--output", "a.tar", cache=packaged_settings.cache).stdout
    run(runner, cache=packaged_settings.cache)
    written = sorted(tmp_path.glob("*.tar"))
    assert [path.name[:32] for path in written] == ["a.tar", "topthree-efficientnet_lite0-fp32"]
    assert len({file_sha256(path) for path in written}) == 1
    assert f"SHA-256   {file_sha256(written[0])}" in said
    assert "efficientnet_lite0, fp32, 1000 classes, the built-in model" in said
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_is_there_is_replaced_only_when_asked(
    runner: CliRunner, packaged_settings: Settings, bundle: Path
) -> None:
    before = bundle.read_bytes()
    refused = run(runner, "--output", bundle, cache=packaged_settings.cache, exit_code=1)
    assert refused.stderr.endswith(f"Error: {bundle} already exists; use --force to replace it.\n")
    assert bundle.read_bytes() == before
    run(runner, "--output", bundle, "--force", cache=packaged_settings.cache)
    assert len(bundle.read_bytes()) > 10**7


def test_a_folder_that_is_not_there_is_one_sentence(
    runner: CliRunner, packaged_settings: Settings, tmp_path: Path
) -> None:
    target = tmp_path / "none" / "a.tar"
    refused = run(runner, "--output", target, cache=packaged_settings.cache, exit_code=1)
    assert refused.stderr.endswith(f"Error: {target} cannot be written: No such file or directory.\n")


def test_int8_has_to_be_prepared_first(runner: CliRunner, packaged_settings: Settings) -> None:
    refused = run(runner, "--precision", "int8", cache=packaged_settings.cache, exit_code=1)
    assert "topthree prepare --precision int8 --calibrate FOLDER" in refused.stderr


def test_check_describes_a_whole_bundle(runner: CliRunner, bundle: Path) -> None:
    said = run(runner, "--check", bundle).stdout
    assert f"SHA-256   {file_sha256(bundle)}" in said
    assert "resnet18, fp32, 3 classes\n" in said
    found = json.loads(run(runner, "--check", bundle, "--json").stdout)
    assert (found["sha256"], found["classes"], found["obstacle"]) == (file_sha256(bundle), 3, None)


def test_check_shows_what_int8_was_measured_to_cost(runner: CliRunner, bundle: Path) -> None:
    change = {"precision": "int8", "accuracy": {"agreement": 96.5, "top1_change": None}}
    rewrite(bundle, {DESCRIPTION: change, "model/manifest.json": change})
    assert "Accuracy  agreement 96.5\n" in run(runner, "--check", bundle).stdout


def test_check_fails_for_what_is_damaged_or_does_not_serve_here(runner: CliRunner, bundle: Path) -> None:
    assert "demands" in run(runner, "--check", bundle, exit_code=1, bundle=bundle, bundle_sha256="a" * 64).stderr
    rewrite(bundle, {DESCRIPTION: {"openvino": "2020.1.0"}})
    assert "serves with OpenVINO 2020.1.0" in run(runner, "--check", bundle, exit_code=1).stderr
    bundle.write_bytes(bundle.read_bytes()[:-1])
    assert "does not end where it should" in run(runner, "--check", bundle, exit_code=1).stderr


@pytest.mark.parametrize("more", [["--output", "a"], ["--force"], ["--precision", "fp32"]])
def test_check_writes_nothing(runner: CliRunner, bundle: Path, more: list[str]) -> None:
    assert "--check takes an existing bundle" in run(runner, "--check", bundle, *more, exit_code=2).stderr


def test_a_bundle_in_use_is_not_bundled_again(runner: CliRunner, bundle: Path) -> None:
    assert "unset it to make another" in run(runner, bundle=bundle, exit_code=1).stderr


def test_other_commands_use_the_bundle(runner: CliRunner, bundle: Path, tmp_path: Path) -> None:
    env = {"TOPTHREE_BUNDLE": str(bundle), "TOPTHREE_CACHE": str(tmp_path / "cache")}
    assert runner.invoke(cli, ["labels", "dog"], env=env).output == '   1    dog, "big"\n'
    assert "serves: resnet18" in runner.invoke(cli, ["weights"], env=env).output
    assert "Unpacked: " in runner.invoke(cli, ["prepare"], env=env).output
    calibrating = ["prepare", "--precision", "int8", "--calibrate", str(tmp_path)]
    assert "unset it to prepare another" in runner.invoke(cli, calibrating, env=env).output


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bundle": "a", "weights": "b"}, "TOPTHREE_BUNDLE .* TOPTHREE_WEIGHTS"),
        ({"bundle": "a", "labels": "b"}, "TOPTHREE_BUNDLE .* TOPTHREE_LABELS"),
        ({"bundle": "a", "engine": "torch"}, "TOPTHREE_BUNDLE .* TOPTHREE_ENGINE=torch"),
        ({"bundle_sha256": "a" * 64}, "TOPTHREE_BUNDLE_SHA256 .* TOPTHREE_BUNDLE"),
    ],
)
def test_settings_that_contradict_a_bundle_are_refused(make_settings, values: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        make_settings(**values)


def test_child_processes_leave_the_precision_to_the_bundle(make_settings) -> None:
    settings = make_settings(bundle="a")
    assert (settings.engine, settings.precision) == ("openvino", "")
    assert Settings.from_environment(settings.as_environment()).precision == ""

"""A fine-tuned model serves alike from the folder of models, on the command line, exported and from a bundle."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from own_heads import own_model
from safetensors.numpy import load_file, save_file
from tuned_models import write_tuned
from waiting import wait_until

from app import create_app
from app.classifier import Classifier
from app.commands import cli
from app.errors import WeightsError
from app.model.artifact import MANIFEST
from app.model.backbones.tuned import load_tuned
from app.model.digests import file_sha256
from app.model.own_format import TRUNK
from app.model.own_models import read_version, write_version
from app.model.records import RECORDS
from app.model.tuned import tuned_weights
from app.processes import plan as plan_module
from app.settings import ROOT, Settings
from app.telemetry import metrics
from app.web.service import service_of
from app.writing import UNFINISHED

pytestmark = pytest.mark.slow

WITHIN = 1e-3


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fine-tuned models `pets` and `tools`, of different backbones."""
    root = tmp_path_factory.mktemp("tuned")
    write_tuned(root, "pets", backbone="resnet18", seed=3)
    write_tuned(root, "tools")
    return root


@pytest.fixture
def settings(packaged_settings: Settings, packaged_classifier: Classifier, models: Path) -> Settings:
    """Settings in whose cache the fine-tuned models are prepared once for all tests."""
    return dataclasses.replace(packaged_settings, models=models, deadline_ms=600_000)


def run(settings: Settings, *arguments: object) -> Result:
    environment = settings.as_environment() | {"TOPTHREE_MODEL": ""}
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], env=environment, catch_exceptions=False)


@pytest.fixture
def client_of(request: pytest.FixtureRequest) -> Callable[[Settings], FlaskClient]:
    """Make clients of applications that are closed at the end of the test."""

    def make(settings: Settings) -> FlaskClient:
        app = create_app(settings)
        request.addfinalizer(service_of(app).classifier.close)
        return app.test_client()

    return make


def ask(client: FlaskClient, photo: bytes, query: str = "", what: str = "predict") -> dict:
    headers = {"Content-Type": "image/jpeg"}
    while (answer := client.post(f"/api/v1/{what}?{query}", data=photo, headers=headers)).status_code == 503:
        assert answer.json["type"] == "/problems/overloaded"  # it is being opened
        assert int(answer.headers["Retry-After"]) > 0
    assert answer.status_code == 200, answer.text
    return answer.json if answer.is_json else {"bytes": answer.data}


def numbers_of(answer: dict) -> dict[str, float]:
    return {row["label"]: row["confidence"] for row in answer["predictions"]}


def test_a_fine_tuned_model_serves_alike_everywhere(
    settings: Settings,
    tmp_path: Path,
    real_photos: dict[str, bytes],
    client_of: Callable[[Settings], FlaskClient],
) -> None:
    photo, data = tmp_path / "coffee.jpg", real_photos["coffee"]
    photo.write_bytes(data)
    for name in ("pets", "tools"):  # in this process, which has imported torch already
        assert run(settings, "prepare", "--model", name, "--quiet").exit_code == 0
    expected = ask(client_of(settings), data, "top=5&model=pets")
    assert "Own model pets, version 1, 5 classes" in run(
        settings, "bundle", "--model", "pets", "--output", tmp_path / "pets.tar"
    ).stdout.replace("  ", " ")
    plain = dataclasses.replace(settings, models=None, engine="openvino")
    answers = [
        ask(client_of(dataclasses.replace(settings, model="pets")), data, "top=5"),
        ask(client_of(dataclasses.replace(plain, precision="", bundle=tmp_path / "pets.tar")), data, "top=5"),
    ]
    export = ["export", "--model", "pets", "--to", "openvino", "--photos", tmp_path / "compared"]
    (tmp_path / "compared").mkdir()
    for name in ("cat", "rocket"):  # the export compares its file with torch by these, and not by 32 crops
        (tmp_path / "compared" / f"{name}.jpg").write_bytes(real_photos[name])
    done = run(settings, *export, "--output", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    answers.append(ask(client_of(dataclasses.replace(plain, model=str(tmp_path / "out/model.xml"))), data, "top=5"))
    printed = run(settings, "predict", "--model", "pets", "--top", 5, "--json", photo).stdout
    answers.append(json.loads(printed)["results"][0])
    for answer in answers:
        found = numbers_of(answer)
        assert next(iter(found)) == next(iter(numbers_of(expected)))
        assert all(abs(found[label] - value) <= WITHIN for label, value in numbers_of(expected).items())
    assert answers[0]["model"] == answers[1]["model"] == expected["model"]


def test_several_models_answer_with_little_memory(
    settings: Settings,
    real_photos: dict[str, bytes],
    client_of: Callable[[Settings], FlaskClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan_module, "_graph_memory", lambda *_: 0)
    client, photo = client_of(settings), real_photos["coffee"]
    alone = [ask(client, photo, f"model={name}") for name in ("pets", "tools", "efficientnet_lite0")]
    answer = ask(client, photo, "model=pets,tools,efficientnet_lite0")
    assert [each["predictions"] for each in answer["models"]] == [each["predictions"] for each in alone]
    classifier = service_of(client.application).classifier
    assert classifier._models.loaded.tuned.graphs.open_names == ["tools"]
    assert b"topthree_open_models 1.0" in metrics.render("")[0]
    assert len(ask(client, photo, "model=pets", "embed")["embedding"]) == 512
    assert ask(client, photo, "model=tools", "heatmap")["bytes"].startswith(b"\x89PNG")
    described = client.get("/api/v1/model?model=tools").json
    assert (described["heatmap"], described["source"]) == ({"rows": 7, "columns": 7}, "fine-tuned model")
    listed = {each["name"]: each["backbone"] for each in client.get("/api/v1/models").json["models"]}
    assert listed == {"efficientnet_lite0": "efficientnet_lite0", "pets": "resnet18", "tools": "efficientnet_lite0"}


def test_evaluate_takes_a_fine_tuned_model(settings: Settings, tmp_path: Path, real_photos: dict[str, bytes]) -> None:
    for name in ("cat", "cup"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(real_photos["cat"])
    done = run(settings, "evaluate", tmp_path, "--model", "pets", "--json")
    assert (done.exit_code, json.loads(done.stdout)["photos"]) == (0, 2)
    assert json.loads(done.stdout)["model"]["name"] == "pets"


def test_the_list_says_which_are_fine_tuned(settings: Settings, tmp_path: Path) -> None:
    root = tmp_path / "models"
    shutil.copytree(settings.models, root)
    write_version(root, "heads", own_model())
    settings = dataclasses.replace(settings, models=root)
    assert "efficientnet_lite0, fine-tuned" in run(settings, "models").stdout
    tuned = {each["name"]: each["tuned"] for each in json.loads(run(settings, "models", "--json").stdout)}
    assert tuned == {"heads": False, "pets": True, "tools": True}
    assert "pets serves in version 1" in run(settings, "models", "use", "pets", 1).stdout
    assert run(settings, "models", "remove", "tools").exit_code == 0
    assert not (root / "tools").exists()


def test_a_version_prepared_while_killed_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    settings = dataclasses.replace(settings, cache=tmp_path / "cache")
    prepared = tmp_path / "cache" / "prepared"
    command = [sys.executable, "-m", "app", "prepare", "--model", "pets"]
    with subprocess.Popen(command, cwd=ROOT, env=settings.for_child(), stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: process.poll() is not None or any(prepared.glob(f"{UNFINISHED}*")))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in prepared.iterdir() if not path.name.startswith(".")] == []
    assert run(settings, "prepare", "--model", "pets").exit_code == 0
    (made,) = (path for path in prepared.iterdir() if path.name != ".lock")
    assert (made / MANIFEST).is_file()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its SHA-256 is not the one that model.json names"),
        (lambda data: data[:-4], "it has .* bytes, and model.json names"),
    ],
)
def test_a_damaged_version_is_not_prepared(
    settings: Settings, models: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], reason: str
) -> None:
    shutil.copytree(models / "pets", tmp_path / "models" / "pets")
    path = tmp_path / "models" / "pets" / "1" / TRUNK
    path.write_bytes(spoil(path.read_bytes()))
    settings = dataclasses.replace(settings, models=tmp_path / "models", cache=tmp_path / "cache")
    done = run(settings, "prepare", "--model", "pets")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert re.search(reason, done.stderr)


def test_a_trunk_of_another_backbone_is_refused(settings: Settings, tmp_path: Path) -> None:
    write_version(tmp_path / "models", "pets", own_model(), {"conv1.weight": own_model().weight})
    done = run(dataclasses.replace(settings, models=tmp_path / "models"), "prepare", "--model", "pets")
    assert (done.exit_code, "does not fit resnet18: bn1.bias is missing" in done.stderr) == (1, True)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_tuned(tmp_path, "tools")
    own, path = read_version(tmp_path, "tools"), tmp_path / "tools" / "1" / TRUNK
    tensors = load_file(path)
    next(iter(tensors.values())).flat[0] = np.nan
    save_file(tensors, path)
    own = dataclasses.replace(own, trunk=dataclasses.replace(own.trunk, sha256=file_sha256(path)))
    with pytest.raises(WeightsError, match=r"is damaged: it holds numbers that are not finite\."):
        load_tuned(tuned_weights(own, RECORDS[own.backbone]), own)


def test_a_version_goes_with_a_fine_tuned_model_only(settings: Settings) -> None:
    assert "--version goes with a fine-tuned model" in run(settings, "prepare", "--version", 1).stderr
    assert run(settings, "prepare", "--model", "pets", "--version", 2).stderr.endswith("has no version 2.\n")

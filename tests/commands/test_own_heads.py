"""A head serves alike from the folder of models, on the command line and from a bundle."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from own_heads import own_model

from app import create_app
from app.classifier import Classifier
from app.commands import cli
from app.model.bundle import OWN, read_bundle
from app.model.own_format import HEAD
from app.model.own_models import write_version
from app.settings import Settings

WITHIN = 1e-3


@pytest.fixture
def settings(packaged_settings: Settings, packaged_classifier: Classifier, tmp_path: Path) -> Settings:
    """Settings with a head `pets` of five classes on the packaged backbone."""
    model = packaged_classifier.load_model()
    numbers = np.random.default_rng(1)
    head = own_model(
        "cat",
        "dog",
        "cup",
        "鸟",
        "car",
        backbone=model.name,
        weights_sha256=model.weights.sha256,
        weight=(20 * numbers.normal(size=(5, 1280))).astype(np.float32),
        bias=numbers.normal(size=5).astype(np.float32),
    )
    write_version(tmp_path / "models", "pets", head)
    return dataclasses.replace(packaged_settings, models=tmp_path / "models")


def run(settings: Settings, *arguments: object) -> Result:
    environment = settings.as_environment() | {"TOPTHREE_MODEL": ""}
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], env=environment, catch_exceptions=False)


def served(settings: Settings, photo: bytes, query: str = "") -> dict:
    app = create_app(settings)
    answer = app.test_client().post(
        f"/api/v1/predict?top=5{query}", data=photo, headers={"Content-Type": "image/jpeg"}
    )
    app.extensions["topthree"].classifier.close()
    return answer.json


def numbers_of(answer: dict) -> dict[str, float]:
    return {row["label"]: row["confidence"] for row in answer["predictions"]}


def test_a_head_serves_alike_everywhere(settings: Settings, tmp_path: Path, real_photos: dict[str, bytes]) -> None:
    photo = tmp_path / "coffee.jpg"
    photo.write_bytes(real_photos["coffee"])
    asked = served(settings, real_photos["coffee"], "&model=pets")
    made = run(settings, "bundle", "--model", "pets", "--output", tmp_path / "pets.tar")
    assert "pets, version 1, 5 classes" in made.stdout
    bundled = dataclasses.replace(
        settings, models=None, model="", precision="", engine="openvino", bundle=tmp_path / "pets.tar"
    )
    answers = [
        served(dataclasses.replace(settings, model="pets"), real_photos["coffee"]),
        json.loads(run(settings, "predict", "--model", "pets", "--top", 5, "--json", photo).stdout)["results"][0],
        served(bundled, real_photos["coffee"]),
    ]
    expected = numbers_of(asked)
    assert len(expected) == 5
    for answer in answers:
        found = numbers_of(answer)
        assert next(iter(found)) == next(iter(expected))
        assert all(abs(found[label] - value) <= WITHIN for label, value in expected.items())
    assert answers[2]["model"]["head_sha256"] == asked["model"]["head_sha256"]
    assert served(bundled, real_photos["coffee"], "&model=efficientnet_lite0")["predictions"][0]["wnid"] is not None


def test_a_bundle_with_a_damaged_head_is_refused(settings: Settings, tmp_path: Path) -> None:
    target = tmp_path / "pets.tar"
    run(settings, "bundle", "--model", "pets", "--output", target)
    bundle = read_bundle(target)
    assert bundle.own is not None
    member = next(each for each in bundle.members if each.name == f"{OWN}/{HEAD}")
    data = bytearray(target.read_bytes())
    data[member.offset + member.size - 1] ^= 1
    target.write_bytes(data)
    done = run(settings, "bundle", "--check", target)
    assert done.exit_code == 1
    assert "is damaged" in done.stderr


def test_other_commands_know_the_head(settings: Settings) -> None:
    assert run(settings, "labels", "--model", "pets", "鸟").stdout.split() == ["3", "鸟"]
    assert run(settings, "prepare", "--model", "pets").exit_code == 0


def test_a_name_that_is_nearly_right_is_answered_with_it(settings: Settings) -> None:
    done = run(settings, "prepare", "--model", "pet")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: There is no model named 'pet' for TOPTHREE_MODEL. Did you mean pets?\n",
    )

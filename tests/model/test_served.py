"""Heads share the backbone, new versions are checked before they answer, and what cannot be used changes nothing."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, known_crop
from own_heads import backbone_model, own_model

from app.errors import ModelUnavailable, OwnModelError, UnknownModel, WeightsError
from app.model import served as served_module
from app.model import with_own
from app.model.engines import Inference
from app.model.heads import own_logits
from app.model.own_format import DESCRIPTION, HEAD
from app.model.own_models import remove, use_version, write_version
from app.model.served import Served, Slot, carried_over, on_backbone, refreshed
from app.settings import Settings


def known() -> Inference:
    return FakeEngine().infer(known_crop()[None])


def serve(root: Path, default: str = "") -> Served:
    return refreshed(Served(backbone_model(), root, default), known)


def damage(folder: Path) -> None:
    (folder / HEAD).write_bytes(b"")


def test_logits_are_those_of_the_normalised_mean() -> None:
    features = np.random.default_rng(1).normal(size=(2, 4, 3, 3)).astype(np.float32)
    found = Inference(np.zeros((2, 0), np.float32), features)
    weight, bias = np.eye(3, 4, dtype=np.float32), np.array([1, 0, 0], np.float32)
    means = features.reshape(2, 4, 9).mean(axis=2)
    expected = means[:, :3] / np.linalg.norm(means, axis=1, keepdims=True) + bias
    assert np.allclose(own_logits(found.embeddings, weight, bias), expected, atol=1e-6)
    assert np.array_equal(own_logits(np.zeros((1, 4), np.float32), weight, bias), bias[None])


def test_heads_share_the_backbones_engine(tmp_path: Path) -> None:
    for name in ("pets", "tools"):
        write_version(tmp_path, name, own_model())
    served = serve(tmp_path)
    assert list(served.models) == ["resnet18", "pets", "tools"]
    assert {id(model.engine) for model in served.models.values()} == {id(served.backbone.engine)}
    assert served.default_model is served.backbone
    assert [label.label for label in served.find("pets").labels] == ["cat", 'dog, "big"', "杯"]


def test_a_model_of_ones_own_can_be_the_default(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path, "pets")
    assert list(served.models) == ["pets", "resnet18"]
    assert served.default_model.name == "pets"


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path)
    with pytest.raises(UnknownModel, match=r"Did you mean pets\?"):
        served.find("pet")
    for name in ("../pets", "pets/1", "x" * 5000, "", "宠物", "pets\0"):
        with pytest.raises(UnknownModel, match="There is no model named"):
            served.find(name)


def test_nothing_is_read_again_while_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path)
    monkeypatch.setattr(served_module, "read_version", lambda *_: pytest.fail("A version was read again."))
    assert refreshed(served, lambda: pytest.fail("The known photo was computed again.")) is served


def test_a_new_version_replaces_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path)
    first = served.find("pets")
    write_version(tmp_path, "pets", own_model("cat", "dog"))
    second = refreshed(served, known).find("pets")
    assert (first.version, second.version) == (1, 2)
    assert first.fingerprint != second.fingerprint
    assert "The model pets answers in version 2 in place of version 1." in caplog.text
    use_version(tmp_path, "pets", 1)
    assert refreshed(served, known).find("pets").version == 1


def test_a_number_that_is_used_again_is_another_model(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path)
    remove(tmp_path, "pets", 1)
    write_version(tmp_path, "pets", own_model(bias=np.ones(3, np.float32)))
    again = refreshed(served, known).find("pets")
    assert again.version == 1
    assert again.fingerprint != served.find("pets").fingerprint


OTHER = {"name": "b", "weights_sha256": "1" * 64}
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "damaged": (damage, "is damaged"),
    "of a newer format": (lambda folder: change(folder, format=4), "install a newer one"),
    "of other weights": (lambda folder: change(folder, backbone=OTHER), "is a head on b"),
    "without a file": (lambda folder: (folder / HEAD).unlink(), "No such file"),
}


def change(folder: Path, **values: object) -> None:
    path = folder / DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_version_is_logged_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path)
    write_version(tmp_path, "pets", own_model())
    spoil, reason = BAD[kind]
    spoil(tmp_path / "pets" / "2")
    for _ in range(3):
        served = refreshed(served, known)
    assert served.find("pets").version == 1
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith("The model pets stays as it was: ")
    assert reason in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_head_with_other_channels_does_not_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_version(tmp_path, "pets", own_model(channels=5))
    served = serve(tmp_path)
    with pytest.raises(UnknownModel):
        served.find("pets")
    assert "its head takes 5 channels, and resnet18 has 4." in caplog.text


def test_a_head_that_overflows_does_not_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_version(tmp_path, "pets", own_model(weight=np.full((3, 4), 3e38, np.float32)))
    with np.errstate(over="ignore"):
        served = serve(tmp_path)
    assert "pets" not in served.models
    assert "it gives no finite number" in caplog.text


def test_a_model_that_is_removed_does_not_answer_any_more(tmp_path: Path) -> None:
    for name in ("pets", "tools"):
        write_version(tmp_path, name, own_model())
    served = serve(tmp_path)
    remove(tmp_path, "pets")
    assert list(refreshed(served, known).models) == ["resnet18", "tools"]


def test_the_default_model_answers_after_its_removal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path, "pets")
    remove(tmp_path, "pets")
    for _ in range(2):
        served = refreshed(served, known)
    assert served.default_model.version == 1
    assert caplog.text.count("was removed; it still answers") == 1
    write_version(tmp_path, "pets", own_model("a", "b"))
    assert len(refreshed(served, known).default_model.labels) == 2


def test_the_model_of_a_bundle_needs_no_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundled = Slot(with_own(backbone_model(), own_model()))
    served = refreshed(Served(backbone_model(), tmp_path / "none", "pets", slots={"pets": bundled}), known)
    assert served.default_model is bundled.model
    assert caplog.text == ""


def test_a_folder_that_is_gone_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "models"
    write_version(root, "pets", own_model())
    served = serve(root)
    root.rename(tmp_path / "elsewhere")
    for _ in range(3):
        served = refreshed(served, known)
    assert served.find("pets").version == 1
    assert caplog.text.count("is gone; the models that were loaded still answer") == 1
    (tmp_path / "elsewhere").rename(root)
    write_version(root, "pets", own_model())
    assert refreshed(served, known).find("pets").version == 2


def test_a_folder_that_is_a_file_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "models"
    root.write_text("")
    served = serve(root)
    assert refreshed(served, known) is served
    assert caplog.text.count("cannot be read: Not a directory") == 1


def test_a_known_photo_that_fails_is_tried_again(tmp_path: Path) -> None:
    def fail() -> Inference:
        raise ModelUnavailable("The known photo was not answered.")

    served = serve(tmp_path)
    write_version(tmp_path, "pets", own_model())
    served = refreshed(served, fail)
    assert "pets" not in served.models
    assert refreshed(served, known).find("pets").version == 1


@pytest.mark.parametrize("kind", ["damaged", "of a newer format", "of other weights"])
def test_a_default_that_cannot_be_used_is_the_reason(tmp_path: Path, kind: str) -> None:
    write_version(tmp_path, "pets", own_model())
    spoil, reason = BAD[kind]
    spoil(tmp_path / "pets" / "1")
    with pytest.raises(OwnModelError, match=reason):
        serve(tmp_path, "pets")


def test_a_default_that_does_not_exist_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(OwnModelError, match="There is no model named pets"):
        serve(tmp_path, "pets")


def test_only_so_many_models_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served_module, "MAX_MODELS", 2)
    for name in ("a", "b", "c", "z"):
        write_version(tmp_path, name, own_model())
    served = serve(tmp_path, "z")
    assert refreshed(served, known) is served
    assert list(served.models) == ["z", "a", "resnet18"]
    assert caplog.text.count("holds 4 models, and only the first 2 of them answer") == 1


def test_a_backbone_that_is_loaded_again_keeps_its_heads(tmp_path: Path) -> None:
    write_version(tmp_path, "pets", own_model())
    served = serve(tmp_path)
    damage(tmp_path / "pets" / "1")
    again = refreshed(carried_over(Served(backbone_model(), tmp_path), served), known)
    assert again.find("pets").engine is again.backbone.engine is not served.backbone.engine
    other = dataclasses.replace(
        backbone_model(), weights=dataclasses.replace(backbone_model().weights, sha256="2" * 64)
    )
    assert "pets" not in refreshed(carried_over(Served(other, tmp_path), served), known).models


def test_the_default_decides_the_backbone(tmp_path: Path, make_settings: Callable[..., Settings]) -> None:
    write_version(tmp_path, "pets", own_model(backbone="resnet50"))
    assert on_backbone(make_settings(models=tmp_path, model="pets")).model == "resnet50"
    assert on_backbone(make_settings(models=tmp_path, model="resnet34")).model == "resnet34"
    with pytest.raises(OwnModelError, match=r"Did you mean pets\?"):
        on_backbone(make_settings(models=tmp_path, model="pests"))
    with pytest.raises(WeightsError, match="Did you mean resnet18"):
        on_backbone(make_settings(models=tmp_path, model="resnet-18"))


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        ("resnet17", "version 1 of pets was made of resnet17, which this version of topthree does not have."),
        ("file/colours", "pets is a head on the model file colours: set TOPTHREE_MODEL to that file, start the"),
    ],
)
def test_a_head_whose_backbone_cannot_be_found_says_so(
    tmp_path: Path, make_settings: Callable[..., Settings], backbone: str, sentence: str
) -> None:
    write_version(tmp_path, "pets", own_model(backbone=backbone))
    with pytest.raises(OwnModelError) as caught:
        on_backbone(make_settings(models=tmp_path, model="pets"))
    assert str(caught.value).startswith(sentence)

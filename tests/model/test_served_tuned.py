"""Fine-tuned models beside heads: opened on use, checked before they replace a version, the default one at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEngine, known_crop
from own_heads import SHA256, backbone_model, own_model

from app.errors import OwnModelError, WeightsError
from app.model import Model, with_own
from app.model import served as served_module
from app.model import tuned as tuned_module
from app.model.engines import Inference
from app.model.graphs import EngineOnUse
from app.model.own_format import OwnModel
from app.model.own_models import use_version, write_version
from app.model.served import Served, Tuned, carried_over, load_served, refreshed
from app.model.tuned import identify_tuned
from app.settings import Settings


def known() -> Inference:
    return FakeEngine().infer(known_crop()[None])


def write(root: Path, name: str = "pets", **changes: object) -> int:
    trunk = {"conv1.weight": np.full((1, 3, 2, 2), len(changes), np.float32)}
    return write_version(root, name, own_model(**changes), trunk)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have fine-tuned models compute by fake engines; holds the versions that were opened, and 666 cannot be."""
    versions: list[int] = []

    def open(settings: Settings, own: OwnModel) -> Model:
        versions.append(own.version)
        if own.photos == 666:
            raise WeightsError("its weights do not fit resnet18.")
        return with_own(Model(FakeEngine(), own.labels, identify_tuned(settings, own)), own)

    for module in (served_module, tuned_module):
        monkeypatch.setattr(module, "open_tuned", open)
    return versions


@pytest.fixture
def serve(tmp_path: Path, make_settings: Callable[..., Settings]) -> Callable[..., Served]:
    def make() -> Served:
        settings = make_settings(models=tmp_path)
        return refreshed(Served(backbone_model(), tmp_path, tuned=Tuned.from_settings(settings)), known)

    return make


def test_a_fine_tuned_model_is_opened_on_use(tmp_path: Path, opened: list[int], serve: Callable[..., Served]) -> None:
    write(tmp_path)
    write_version(tmp_path, "tools", own_model())
    served = serve()
    pets, tools = served.find("pets"), served.find("tools")
    assert opened == []
    assert isinstance(pets.engine, EngineOnUse)
    assert pets.weights.sha256 != tools.weights.sha256 == SHA256
    assert pets.identity["backbone"] == "resnet18"
    assert np.array_equal(pets.logits(pets.engine.infer(known_crop()[None])), tools.logits(known()))
    assert opened == [1]


def test_a_new_version_is_opened_before_it_answers(
    tmp_path: Path, opened: list[int], serve: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path)
    served = serve()
    write(tmp_path, photos=666)
    served = refreshed(served, known)
    assert (served.find("pets").version, opened) == (1, [2])
    assert "The model pets cannot be opened: its weights do not fit resnet18." in caplog.text
    assert "The model pets stays as it was" in caplog.text
    write(tmp_path, seed=3)
    served = refreshed(served, known)
    assert (served.find("pets").version, opened) == (3, [2, 3])
    write_version(tmp_path, "pets", own_model())
    assert refreshed(served, known).find("pets").own.trunk is None


def test_a_default_takes_the_backbones_place_in_each_version(
    tmp_path: Path, opened: list[int], make_settings: Callable[..., Settings]
) -> None:
    write(tmp_path)
    settings = make_settings(models=tmp_path, model="pets", engine="openvino")
    served = refreshed(load_served(settings), known)
    assert list(served.models) == ["pets"]
    assert served.default_model is served.backbone
    assert isinstance(served.backbone.engine, FakeEngine)
    write(tmp_path, seed=2)
    newer = refreshed(served, known)
    assert (newer.backbone.version, newer.default_model is newer.backbone) == (2, True)
    assert opened == [1, 2]
    write_version(tmp_path, "tools", own_model(weights_sha256=newer.backbone.weights.sha256))
    assert refreshed(newer, known).find("tools").engine is newer.backbone.engine


def test_a_reload_opens_nothing_that_has_not_changed(
    tmp_path: Path, opened: list[int], serve: Callable[..., Served], make_settings: Callable[..., Settings]
) -> None:
    write(tmp_path)
    served = serve()
    fresh = Served(backbone_model(), tmp_path, tuned=Tuned.from_settings(make_settings(models=tmp_path)))
    again = refreshed(carried_over(fresh, served), known)
    assert again.find("pets").fingerprint == served.find("pets").fingerprint
    assert opened == []
    write(tmp_path, seed=2)
    use_version(tmp_path, "pets", 1)
    assert refreshed(again, known).find("pets").version == 1
    assert opened == []


def test_a_fine_tuned_model_of_an_unknown_backbone_does_not_answer(
    tmp_path: Path, serve: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, backbone="resnet17")
    assert "pets" not in serve().models
    assert "version 1 of pets was made of resnet17, which this version of topthree does not have." in caplog.text


def test_without_a_way_to_open_it_it_does_not_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path)
    served = refreshed(Served(backbone_model(), tmp_path), known)
    assert "pets" not in served.models
    with pytest.raises(OwnModelError, match="cannot be opened here"):
        refreshed(dataclasses.replace(served, default="pets", slots={}), known)

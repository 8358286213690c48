"""The records of published models."""

from __future__ import annotations

import re

import pytest

from app.model.backbones.timm_family import timm_record
from app.model.records import RECORDS


def letters_and_digits(text: str) -> str:
    """Leave out of a name what only makes it easier to read."""
    return re.sub("[^a-z0-9]", "", text.lower().replace("×", "x"))


@pytest.mark.parametrize("name", RECORDS)
def test_display_name_spells_the_model_s_own(name: str) -> None:
    architecture, _, weights = name.partition(".")
    expected = letters_and_digits(architecture) + ("imagenet1kv2" if weights else "")
    shown = RECORDS[name].display_name
    assert shown != name
    assert letters_and_digits(shown) == expected


def test_display_names_of_both_shipped_models() -> None:
    names = [RECORDS[name].display_name for name in ("resnet18", "efficientnet_lite0")]
    assert names == ["ResNet-18", "EfficientNet-Lite0"]


def test_model_outside_the_table_shows_its_own_name() -> None:
    assert timm_record("timm/resnet10t.c3_in1k").display_name == "timm/resnet10t.c3_in1k"

"""Real photos, real models: the answers are the right ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from references import SHARED_PHOTOS, needs_test_weights

from app.classifier import Answer, Classifier
from app.measuring.accuracy import evaluate
from app.measuring.stream import classify_files
from app.settings import Settings

MAX_PIXELS = 64_000_000
CATS = range(281, 286)  # ImageNet's domestic cats: tabby, tiger cat, Persian, Siamese, Egyptian
ESPRESSO, MISSILE = 967, 657

# The reference was computed without looking at the EXIF orientation, and this photo is stored lying on its side.
TURNED = "n02951585_can_opener.jpg"


# The packaged model on scikit-image's photos: everywhere


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cat", CATS), ("coffee", [ESPRESSO]), ("rocket", [MISSILE])],
    ids=["cat", "coffee", "rocket"],
)
def test_packaged_model_names_real_photos(
    packaged_classifier: Classifier, real_photos: dict[str, bytes], name: str, expected: list[int]
) -> None:
    answer = packaged_classifier.classify(real_photos[name], max_pixels=MAX_PIXELS)
    assert answer.predictions[0].class_id in expected, answer.predictions


def test_packaged_model_knows_a_cat_is_nothing_but_a_cat(
    packaged_classifier: Classifier, real_photos: dict[str, bytes]
) -> None:
    answer = packaged_classifier.classify(real_photos["cat"], max_pixels=MAX_PIXELS)
    assert {row.class_id for row in answer.predictions} <= set(CATS), answer.predictions


# ResNet-18 on labelled photos: where they are


@pytest.fixture(scope="module", params=["openvino", "torch"])
def resnet18(request: pytest.FixtureRequest, resnet18_settings: Settings) -> Classifier:
    """The real ResNet-18 in float32 in each engine."""
    return Classifier.from_settings(dataclasses.replace(resnet18_settings, engine=request.param))


def differences(answers: dict[str, Answer], *, tolerance: float) -> list[str]:
    """List each photo whose first answer is another, or less or more certain, than the reference's."""
    lines = []
    reference = json.loads(Path(SHARED_PHOTOS, "reference.json").read_text(encoding="utf-8"))
    assert reference.keys() == answers.keys()
    for name, expected in reference.items():
        (class_id, probability), got = expected["top5"][0], answers[name].predictions[0]
        if got.class_id != class_id or abs(got.confidence - probability) > tolerance:
            lines.append(f"{name}: class {got.class_id} at {got.confidence:.4f}, not {class_id} at {probability:.4f}")
    return lines


@needs_test_weights
def test_first_answers_are_the_references(resnet18: Classifier) -> None:
    files = sorted(Path(SHARED_PHOTOS).glob("*.jpg"))
    rows = classify_files(resnet18, map(str, files), top=1, max_pixels=MAX_PIXELS)
    found = differences({Path(name).name: answer for name, answer in rows}, tolerance=0.02)
    assert [line for line in found if not line.startswith(TURNED)] == []


@needs_test_weights
def test_accuracy_is_the_references(resnet18: Classifier) -> None:
    result = evaluate(resnet18, Path(SHARED_PHOTOS), max_pixels=MAX_PIXELS)
    assert (result.photos, result.unreadable, result.unlabelled) == (100, [], [])
    assert result.top[1].percent == pytest.approx(79, abs=1)
    assert result.top[3].percent == pytest.approx(91, abs=1)

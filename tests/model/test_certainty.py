"""Each word for what an answer is worth has its rule, and every number of the rules is data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import unlike_pictures
from fakes import encode
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import arrays

from app.classifier import Classifier
from app.model.calibration import Calibration
from app.model.certainty import NO_JUDGEMENT, Judge, rejection_score
from app.model.groups import Group, GroupName, groups_of
from app.model.labels import Label, imagenet_labels
from app.model.probabilities import softmax

KNOWN = Calibration(2.0, 0.8, -20.0, "A test.")
PAIR = Group(GroupName("n1", "pair", "一对"), np.array([0, 1]))
TRIO = Group(GroupName("n2", "trio", "三个"), np.array([0, 1, 2]))
BIAS = np.array([0.5, -0.5, 0.25, 0.0], np.float32)
JUDGE = Judge(KNOWN, ((PAIR, TRIO), (PAIR, TRIO), (TRIO,), ()), BIAS)
ONES = np.ones(8, np.float32)

FOUR_LOGITS = arrays(np.float32, 4, elements=some.floats(-30, 30, width=32), unique=True)
EMBEDDINGS = arrays(np.float32, 40, elements=some.floats(0, 6, width=32))


def logits_of(*probabilities: float) -> np.ndarray:
    """Logits that have these probabilities at the temperature of `KNOWN`."""
    assert KNOWN.temperature is not None
    return np.asarray(np.log(probabilities) * KNOWN.temperature + 20, np.float32)


@pytest.mark.parametrize(
    ("probabilities", "certainty", "group"),
    [
        ((0.81, 0.1, 0.05, 0.04), "sure", None),
        ((0.5, 0.31, 0.1, 0.09), "group", PAIR),
        ((0.31, 0.5, 0.1, 0.09), "group", PAIR),
        ((0.4, 0.3, 0.2, 0.1), "group", TRIO),
        ((0.25, 0.2, 0.45, 0.1), "group", TRIO),
        ((0.3, 0.3, 0.1, 0.3), "unsure", None),
        ((0.1, 0.1, 0.1, 0.7), "unsure", None),
    ],
)
def test_the_smallest_group_that_is_sure_is_named(
    probabilities: tuple[float, ...], certainty: str, group: Group | None
) -> None:
    found = JUDGE.judge(logits_of(*probabilities), ONES)
    assert (found.certainty, found.group) == (certainty, group and group.name)
    assert found.probabilities == pytest.approx(probabilities, abs=1e-6)
    if group:
        assert found.group_probability == pytest.approx(sum(probabilities[index] for index in group.classes), abs=1e-6)


@given(FOUR_LOGITS, EMBEDDINGS)
def test_the_word_follows_from_the_numbers(logits: np.ndarray, embedding: np.ndarray) -> None:
    found = JUDGE.judge(logits, embedding)
    first = int(np.argmax(logits))
    expected = softmax(logits / KNOWN.temperature)
    assert found.probabilities is not None
    assert np.array_equal(found.probabilities, expected)
    if rejection_score(logits, embedding, BIAS) < KNOWN.unlike_below:
        assert found.certainty == "unlike"
    elif expected[first] >= KNOWN.sure_at:
        assert found.certainty == "sure"
    elif found.certainty == "group":
        assert found.group in {PAIR.name, TRIO.name}
        assert found.group_probability >= KNOWN.sure_at
        members = PAIR.classes if found.group == PAIR.name else TRIO.classes
        assert first in members
    else:
        assert found.certainty == "unsure"
        assert first == 3 or expected[:3].sum() < KNOWN.sure_at
    assert (found.group is None) == (found.certainty != "group")


@given(FOUR_LOGITS, some.floats(0.1, 10))
def test_a_temperature_leaves_the_order_as_it_is(logits: np.ndarray, temperature: float) -> None:
    found = Judge(dataclasses.replace(KNOWN, temperature=temperature)).judge(logits).probabilities
    assert found is not None
    assert found.sum() == pytest.approx(1)
    assert found[np.argmax(logits)] == found.max()


@given(FOUR_LOGITS, EMBEDDINGS)
def test_the_score_is_that_of_the_scaled_embedding(logits: np.ndarray, embedding: np.ndarray) -> None:
    """Computed the long way: with a matrix that gives these logits for this embedding."""
    square = float(embedding @ embedding)
    if square < 1e-3:
        return
    matrix = np.outer(logits - BIAS, embedding) / square
    largest = np.sort(embedding)[-6:].sum()
    scaled = matrix @ (embedding * np.exp(embedding.sum() / largest)) + BIAS
    expected = scaled.max() + np.log(np.exp(scaled - scaled.max()).sum())
    assert rejection_score(logits, embedding, BIAS) == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_an_embedding_of_zeros_has_a_score() -> None:
    assert np.isfinite(rejection_score(BIAS, np.zeros(8, np.float32), BIAS))


def test_many_photos_have_the_scores_that_each_has_alone() -> None:
    rng = np.random.default_rng(0)
    logits, embeddings = rng.normal(size=(5, 4)), rng.random((5, 8)).astype(np.float16)
    alone = [rejection_score(*photo, BIAS) for photo in zip(logits, embeddings, strict=True)]
    assert np.array_equal(rejection_score(logits, embeddings, BIAS), alone)


def test_unlike_beats_sure() -> None:
    sure = logits_of(0.97, 0.01, 0.01, 0.01)
    judge = dataclasses.replace(JUDGE, calibration=dataclasses.replace(KNOWN, unlike_below=1e9))
    assert JUDGE.judge(sure, ONES).certainty == "sure"
    assert judge.judge(sure, ONES).certainty == "unlike"


@pytest.mark.parametrize(
    ("judge", "certainty"),
    [
        (Judge(dataclasses.replace(KNOWN, sure_at=None)), None),
        (Judge(dataclasses.replace(KNOWN, temperature=None)), None),
        (dataclasses.replace(JUDGE, bias=None), "sure"),
        (dataclasses.replace(JUDGE, groups=()), "sure"),
    ],
)
def test_what_was_not_measured_is_not_said(judge: Judge, certainty: str | None) -> None:
    found = judge.judge(logits_of(0.97, 0.01, 0.01, 0.01), ONES)
    assert found.certainty == certainty
    temperature = judge.calibration.temperature if judge.calibration else None
    assert (found.probabilities is None) == (temperature is None)


def test_without_a_calibration_nothing_is_said() -> None:
    assert Judge().judge(logits_of(0.97, 0.01, 0.01, 0.01)) == NO_JUDGEMENT


def test_a_group_has_the_classes_that_a_model_has() -> None:
    labels = imagenet_labels()
    cats = {group.name.label: group for group in groups_of(labels)[281]}
    assert [labels[index].label for index in cats["cat"].classes] == [
        "tabby",
        "tiger cat",
        "Persian cat",
        "Siamese cat",
        "Egyptian cat",
    ]
    assert cats["cat"].name.label_zh == "猫"
    some_labels = (
        Label(0, "n02123159", "tiger", None),
        Label(1, "n02123045", "tabby", None),
        Label(2, None, "x", None),
    )
    (groups, same, none) = groups_of(some_labels)
    assert groups[0].classes.tolist() == same[0].classes.tolist()
    assert set(groups[0].classes.tolist()) == {0, 1}
    assert none == ()


def test_both_cranes_have_their_own_groups() -> None:
    """The bird is class 134, and the machine 517."""
    groups = groups_of(imagenet_labels())
    assert "bird" in {group.name.label for group in groups[134]}
    assert "bird" not in {group.name.label for group in groups[517]}


def test_nine_of_ten_pictures_of_nothing_are_unlike(packaged_classifier: Classifier) -> None:
    words = [
        packaged_classifier.classify(encode(picture), max_pixels=10**6).certainty
        for kind in unlike_pictures.KINDS
        for picture in unlike_pictures.pictures(kind, 10, first=1000)
    ]
    assert words.count("unlike") >= 0.9 * len(words)


def test_photos_of_things_it_knows_are_not_unlike(
    packaged_classifier: Classifier, real_photos: dict[str, bytes]
) -> None:
    words = {
        name: packaged_classifier.classify(data, max_pixels=10**7).certainty for name, data in real_photos.items()
    }
    assert words["coffee"] == "sure"
    assert "unlike" not in words.values()

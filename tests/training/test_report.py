"""The report: the same words in both languages, names in the language of the reader, and nothing that is not text."""

from __future__ import annotations

import dataclasses
import html
import json
from pathlib import Path

import numpy as np
import pytest
from made_photos import PICTURES, embeddings, write_photos
from own_heads import own_model

from app.measuring.accuracy import wilson_interval
from app.model.calibration import Calibration
from app.model.labels import Label
from app.reports import LANGUAGES
from app.training import report
from app.training.findings import Findings
from app.training.fitting import Fitted, Task
from app.training.learning import Lesson
from app.training.photosets import LabelledPhoto, open_photo_set
from app.training.report import write_report
from app.training.tuning_result import Choice, Epoch, Gain, Row, Tuning

NAMES = {"cat": "猫", "coffee": "咖啡", "rocket": "火箭"}


def make_lesson(files: tuple[str, ...], wrong: int = 1) -> Lesson:
    """Make a lesson of three classes, the first photos of which were taken for the next class."""
    classes = np.arange(len(files)) % 3
    shares = np.eye(3)[np.where(np.arange(len(files)) < wrong, (classes + 1) % 3, classes)] * 0.7 + 0.1
    labels = tuple(Label(number, None, name, NAMES[name]) for number, name in enumerate(NAMES))
    calibration = Calibration(1.0, 0.8, None, "Measured by a test.", len(files))
    findings = Findings(
        classes=tuple(NAMES),
        photos=tuple(LabelledPhoto(file, list(NAMES)[at]) for file, at in zip(files, classes, strict=True)),
        task=Task(embeddings(classes), classes, np.arange(len(files)), 3),
        held_out=(),
        held_out_rows=np.zeros((0, 2, 64), np.float16),
        held_out_classes=np.zeros(0, np.intp),
        counts=dict.fromkeys(NAMES, len(files) // 3),
        unreadable=(),
        copies=0,
        contradictions=(),
        near_duplicates=0,
        near_contradictions=(),
        unknown=0,
        data_sha256="d" * 64,
    )
    model = own_model(labels=labels, photos=len(files), calibration=calibration)
    accuracy, places = wilson_interval(len(files) - wrong, len(files)), np.arange(len(files))
    fitted = Fitted(np.zeros((3, 65)), 1e-5, np.log(shares))
    return Lesson(model, findings, shares, accuracy, None, {}, fitted, places)


def test_both_languages_have_the_same_words() -> None:
    words = json.loads(report._WORDS.read_text(encoding="utf-8"))
    assert words.keys() == set(LANGUAGES)
    assert words["en"].keys() == words["zh"].keys()
    assert all(text for each in words.values() for text in each.values())


def test_a_chinese_report_has_chinese_names_only() -> None:
    text = write_report(make_lesson(("1.jpg", "2.jpg", "3.jpg")), None, title="things 1", language="zh")
    assert "标签: <bdi>猫</bdi><br>识别为: <bdi>咖啡</bdi> (80%)" in text
    assert not any(name in text for name in NAMES)


def test_an_english_report_has_english_names_only() -> None:
    text = write_report(make_lesson(("1.jpg", "2.jpg", "3.jpg")), None, title="things 1", language="en")
    assert "Label: <bdi>cat</bdi><br>Taken for: <bdi>coffee</bdi> (80%)" in text
    assert not any(name in text for name in NAMES.values())


def test_a_class_without_a_chinese_name_keeps_its_own() -> None:
    lesson = make_lesson(("1.jpg", "2.jpg", "3.jpg"))
    labels = tuple(dataclasses.replace(label, label_zh=None) for label in lesson.model.labels)
    lesson = dataclasses.replace(lesson, model=dataclasses.replace(lesson.model, labels=labels))
    assert "标签: <bdi>cat</bdi>" in write_report(lesson, None, title="things 1", language="zh")


def test_photos_against_their_label_are_shown(tmp_path: Path) -> None:
    photo_set = open_photo_set(write_photos(tmp_path / "things", count=1))
    lesson = make_lesson(tuple(str(tmp_path / "things" / name / "0.jpg") for name in PICTURES), wrong=2)
    text = write_report(lesson, photo_set, title="things 1", language="en")
    assert text.count('<img src="data:image/jpeg;base64,') == 2
    assert "<img" not in write_report(lesson, None, title="things 1", language="en")


def test_no_mistake_is_said() -> None:
    text = write_report(make_lesson(("1.jpg", "2.jpg", "3.jpg"), wrong=0), None, title="things 1", language="en")
    assert "There are none: every left-out photo was named as it is labelled." in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '" onload="alert(1)'])
def test_names_of_files_and_models_are_escaped(name: str) -> None:
    text = write_report(make_lesson((name, "2.jpg", "3.jpg")), None, title=name, language="en")
    assert name not in text
    assert text.count(html.escape(name).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")) == 3


@pytest.mark.parametrize(("language", "sentence"), [("en", "The head is kept"), ("zh", "保留分类头")])
def test_tuning_is_shown_with_its_curve_and_reasons(language: str, sentence: str) -> None:
    lesson = make_lesson(("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    share = wilson_interval(3, 4)
    tuning = Tuning(
        kept="head",
        rows=(Row("head", share, None), Row("last", share, Gain(-1.0, -4.5, 2.5))),
        epochs=(Epoch("measuring last", 1, 0.9, 2), Epoch("measuring last", 2, 0.5, 3)),
        choices=(Choice("kept.head", {"method": "last", "points": "-1.0", "low": "-4.5", "high": "+2.5"}),),
        places=np.arange(4),
    )
    found = write_report(dataclasses.replace(lesson, tuning=tuning), None, title="things 1", language=language)
    assert sentence in found
    assert '<polyline points="0.0,120.0 300.0,0.0"' in found
    assert "-1.0 (-4.5 … +2.5)" in found


def test_each_epoch_is_a_point_even_a_single_one() -> None:
    lesson = make_lesson(("a.jpg", "b.jpg", "c.jpg", "d.jpg"))
    tuning = Tuning(
        kept="head", rows=(), epochs=(Epoch("measuring last", 1, 0.9, 2),), choices=(), places=np.arange(4)
    )
    found = write_report(dataclasses.replace(lesson, tuning=tuning), None, title="things 1", language="en")
    assert '<circle cx="0.0" cy="0.0" r="3"' in found

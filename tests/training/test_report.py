"""The words of a report."""

from __future__ import annotations

import json

from app.training import report


def test_both_languages_have_the_same_words() -> None:
    words = json.loads(report._WORDS.read_text(encoding="utf-8"))
    assert words.keys() == set(report.LANGUAGES)
    assert words["en"].keys() == words["zh"].keys()
    assert all(text for each in words.values() for text in each.values())

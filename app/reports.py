"""Reports as one HTML file without scripts or other files, in English or Chinese."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2

LANGUAGES = ("en", "zh")


def read_words(path: Path, language: str) -> dict[str, str]:
    """Return the words of a report in one of `LANGUAGES`, from a file that has those of all."""
    words: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))[language]
    return words


def render_report(template: Path, words: dict[str, str], language: str, **values: Any) -> str:
    """Return a report as HTML. All values are escaped: names of classes and files are anybody's."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = environment.from_string(template.read_text(encoding="utf-8"))
    return page.render(words=words, language="zh-Hans" if language == "zh" else "en", **values)


def data_address(picture: bytes) -> str:
    """Return a JPEG as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"

"""The public cases of multipart-form-data-conformance at our parser; where it differs, the reason stands here."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from multipart_form_data_conformance import get_tests_dir

from app.errors import BadRequest
from app.web.forms import Part, boundary_of, parse_form

CASES = {path.name: path for path in sorted(get_tests_dir().glob("*/*"))}

# Cases that are valid there and refused here.
REFUSED = {
    "044-boundary-special-chars": "Such a boundary must be in quotes (RFC 2046, section 5.1.1); it is not.",
    "061-lf-only-lenient": "Lines end with CRLF (RFC 2046, section 4.1.1); else a proxy's parser and ours may differ.",
    "062-mixed-endings": "As 061.",
    "085-header-folding": "Continued lines are obsolete in HTTP; joining them takes the parser quadratic time.",
}
# Cases whose file has another name here; nothing of ours depends on one.
OTHER_NAMES = {
    # Browsers send a backslash as it is (HTML, "multipart/form-data encoding algorithm"), so it escapes no other.
    "026-filename-with-backslash": "folder\\\\file.txt",
}


def expected_of(path: Path) -> dict[str, Any]:
    """Return what a case expects."""
    return dict(json.loads((path / "test.json").read_text("utf-8"))["expected"])


def parsed(path: Path) -> list[Part]:
    """Parse a case with our parser."""
    headers = json.loads((path / "headers.json").read_text("utf-8"))
    return parse_form((path / "input.raw").read_bytes(), boundary_of(headers["content-type"]))


def holds(part: Part, case: dict[str, Any]) -> bool:
    """Return whether a part has the bytes that a case expects, which it gives in one of three ways."""
    if "body_text" in case:
        return part.data == case["body_text"].encode()
    if "body_base64" in case:
        return part.data == base64.b64decode(case["body_base64"])
    return hashlib.sha256(part.data).hexdigest() == case["body_sha256"]


def test_all_public_cases_are_there() -> None:
    assert len(CASES) >= 58
    assert REFUSED.keys() | OTHER_NAMES.keys() <= CASES.keys()


@pytest.mark.parametrize("name", [name for name in CASES if name not in REFUSED])
def test_public_case_is_parsed_as_it_says(name: str) -> None:
    expected = expected_of(CASES[name])
    if not expected["valid"]:
        with pytest.raises(BadRequest):
            parsed(CASES[name])
        return
    parts = parsed(CASES[name])
    for part, case in zip(parts, expected["parts"], strict=True):
        # A file's Content-Type is not read: its first bytes say what it is.
        filename = case["filename"] if case["filename"] is not None else case.get("filename_star")
        assert (part.name, part.filename) == (case["name"], OTHER_NAMES.get(name, filename))
        assert len(part.data) == case["body_size"]
        assert holds(part, case)


@pytest.mark.parametrize("name", REFUSED)
def test_case_that_differs_is_refused(name: str) -> None:
    assert expected_of(CASES[name])["valid"]
    with pytest.raises(BadRequest):
        parsed(CASES[name])

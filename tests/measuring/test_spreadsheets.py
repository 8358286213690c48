"""CSV that no spreadsheet computes."""

from __future__ import annotations

import io

import pytest

from app.measuring.spreadsheets import write_rows


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("a=1", "a=1"),
        ("", '""'),
        (-0.5, "-0.5"),
        ('=a,"b"', '"\'=a,""b"""'),
    ],
)
def test_text_that_begins_like_a_formula_is_text(value: object, line: str) -> None:
    out = io.StringIO()
    write_rows(out, [[value]])
    assert out.getvalue() == f"{line}\n"

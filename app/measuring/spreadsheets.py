"""CSV that people open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import TextIO

# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection"), and file names come from anywhere.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """Return a value as a cell that no spreadsheet computes: text that begins like a formula gets an apostrophe.

    So does text that already looks like such a cell, so that `plain` can give back every text.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA_STARTS) else value


def plain(text: str) -> str:
    """Return the text that `cell` made a cell of."""
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS) else text


def write_rows(file: TextIO, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as CSV with lines that end in a line feed; every CSV for people goes through here."""
    table = csv.writer(file, lineterminator="\n")
    table.writerows([cell(value) for value in row] for row in rows)

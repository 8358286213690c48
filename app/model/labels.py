"""The names of the classes: ImageNet's 1000 in English and Chinese, or a custom model's own."""

from __future__ import annotations

import collections
import csv
import functools
import io
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabelsError
from ..photos.folders import name_key

IMAGENET_FILE = Path(__file__).with_name("labels.csv")
# The longest name of a class of one's own.
MAX_NAME = 200


@dataclass(frozen=True)
class Label:
    """One class: its index, WordNet id and names; a custom model's classes may have `label` alone.

    `label_gloss` explains in a few words an English name that is ambiguous alone, such as "file".
    """

    class_id: int
    wnid: str | None
    label: str
    label_zh: str | None
    label_gloss: str | None = None


@functools.cache
def imagenet_labels() -> tuple[Label, ...]:
    """Read the 1000 ImageNet classes in the order of torchvision's models."""
    return read_labels(IMAGENET_FILE)


def load_labels(source: Path | bytes | None) -> tuple[Label, ...]:
    """Read the names of a custom model's classes from a file or the bytes of one; without either, ImageNet's.

    Raises LabelsError as `read_labels` does.
    """
    if isinstance(source, bytes):
        return parse_labels(source, "of the model")
    return read_labels(source) if source else imagenet_labels()


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a labels file: one name a line, or CSV with a header that has a column `label`.

    CSV may have columns `wnid`, `label_zh` and `label_gloss` too. The order of the lines is that of the class indices;
    a column `class_id`, if there is one, must agree. Blank lines at the end are ignored. Raises LabelsError with the
    reason and the class.
    """
    try:
        return parse_labels(path.read_bytes(), str(path))
    except OSError as error:
        raise LabelsError(f"The labels file {path} cannot be read: {error.strerror}.") from error


def parse_labels(content: bytes, name: str) -> tuple[Label, ...]:
    """Read the bytes of a labels file, which messages call `name`; raises LabelsError as `read_labels` does."""
    try:
        rows = _rows(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig").read())
    except (UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"The labels file {name} cannot be read: {error}.") from error
    if not rows:
        raise LabelsError(f"The labels file {name} is empty.")
    return tuple(_label(name, index, row) for index, row in enumerate(rows))


def write_labels(labels: tuple[Label, ...]) -> bytes:
    """Return the bytes of a labels file, as `parse_labels` reads it."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["class_id", "wnid", "label", "label_zh", "label_gloss"])
    table.writerows(["" if cell is None else cell for cell in vars(label).values()] for label in labels)
    return text.getvalue().encode()


def _rows(text: str) -> list[dict[str, str]]:
    """Read the rows, without blank ones at the end: editors write blank lines, and spreadsheets rows of commas."""
    table = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    rows = list(table) if "label" in (table.fieldnames or ()) else [{"label": line} for line in text.splitlines()]
    while rows and not "".join(rows[-1][column] or "" for column in rows[-1] if column).strip():
        rows.pop()
    return rows


def _label(file: str, index: int, row: dict[str, str]) -> Label:
    columns = ("wnid", "label", "label_zh", "label_gloss")
    wnid, name, name_zh, gloss = ((row.get(column) or "").strip() for column in columns)
    if not name:
        raise LabelsError(f"The labels file {file} has no name for class {index}.")
    if row.get("class_id", str(index)) != str(index):
        raise LabelsError(f"The labels file {file} has class_id {row['class_id']} instead of {index}.")
    return Label(index, wnid or None, name, name_zh or None, gloss or None)


def search_labels(labels: tuple[Label, ...], query: str) -> list[Label]:
    """Find classes by number, WordNet id or part of a name; those of which it is a whole word come first.

    If there is none, find those that share a word with the query, the nearest first: `tabby cat` finds tabby.
    """
    wanted = query.strip().casefold()
    found = [label for label in labels if wanted in (str(label.class_id), label.wnid) or wanted in _names(label)]
    if found:
        return sorted(found, key=lambda label: wanted not in _words(label.label))
    words = _words(wanted)
    shares = {label: len(words & _words(label.label)) / max(1, len(_words(label.label))) for label in labels}
    return sorted((label for label in labels if shares[label]), key=lambda label: -shares[label])


def _names(label: Label) -> str:
    return "\n".join([label.label, label.label_zh or "", label.label_gloss or ""]).casefold()


def _words(name: str) -> set[str]:
    return set(re.findall(r"\w+", name.casefold()))


def class_names(labels: tuple[Label, ...]) -> dict[str, int]:
    """Map WordNet ids and English names, after which folders and files may be named, to class indices.

    Both are written as `name_key` writes them. A name that two classes share, such as cardigan, is left out.
    """
    keys = [name_key(label.label) for label in labels]
    count = collections.Counter(keys)
    names = {key: label.class_id for key, label in zip(keys, labels, strict=True) if count[key] == 1}
    return names | {name_key(label.wnid): label.class_id for label in labels if label.wnid}


def tidy_name(label: str) -> str:
    """Write the name of a class of one's own in one form of Unicode, without blanks around it."""
    return unicodedata.normalize("NFC", label).strip()


def name_fault(label: str) -> str | None:
    """Return, in a sentence, why a class of one's own cannot have this name, as `tidy_name` writes it, or None."""
    if len(label) > MAX_NAME:
        return f"The class {label[:40]!r}… has a name of more than {MAX_NAME} characters: shorten it."
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in label):
        return f"The class {label!r} has a name with control characters: rename it."
    return None

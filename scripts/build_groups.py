"""Fill in the classes of `app/model/groups.csv` from WordNet: a group has every class whose hypernym it is.

    python scripts/build_groups.py [FOLDER]

FOLDER holds WordNet 3.0's data.noun; Debian's package wordnet-base puts it into /usr/share/wordnet. The groups and
their names are written by hand into the columns wnid, label and label_zh; this script writes the column classes. A
noun's WordNet id is n and the offset of its synset in that file (wndb(5WN) describes the format).
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ROOT / "app" / "model" / "groups.csv"
LABELS = ROOT / "app" / "model" / "labels.csv"
WORDNET = Path("/usr/share/wordnet")
COLUMNS = ("wnid", "label", "label_zh", "classes")
MAX_CLASSES = 130
# Hypernyms of a kind, and of an instance.
HYPERNYMS = ("@", "@i")


def read_hypernyms(path: Path) -> dict[str, list[str]]:
    """Map the id of each noun in WordNet's data.noun to the ids of its direct hypernyms."""
    found: dict[str, list[str]] = {}
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith(" "):  # the licence
                continue
            fields = line.partition("|")[0].split()
            first = 4 + 2 * int(fields[3], 16)  # the number of words is hexadecimal
            pointers = fields[first + 1 : first + 1 + 4 * int(fields[first])]
            links = zip(pointers[::4], pointers[1::4], strict=True)
            found["n" + fields[0]] = ["n" + offset for symbol, offset in links if symbol in HYPERNYMS]
    return found


def ancestors(wnid: str, hypernyms: dict[str, list[str]]) -> set[str]:
    """Return all direct and indirect hypernyms of a noun."""
    found: set[str] = set()
    waiting = [wnid]
    while waiting:
        new = set(hypernyms[waiting.pop()]) - found
        found |= new
        waiting += new
    return found


def fill(rows: list[dict[str, str]], wnids: list[str], hypernyms: dict[str, list[str]]) -> list[dict[str, str]]:
    """Return the rows of groups with their classes; raises ValueError for a group that is too large or too small."""
    classes: dict[str, list[str]] = defaultdict(list)
    for wnid in wnids:
        for ancestor in ancestors(wnid, hypernyms):
            classes[ancestor].append(wnid)
    for row in rows:
        if not 2 <= len(classes[row["wnid"]]) <= MAX_CLASSES:
            raise ValueError(f"{row['label']} has {len(classes[row['wnid']])} classes, not 2 to {MAX_CLASSES}.")
    return [row | {"classes": " ".join(classes[row["wnid"]])} for row in rows]


def main(folder: Path) -> None:
    """Write the file of groups again, the smallest group first."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        wnids = [row["wnid"] for row in csv.DictReader(file)]
    with GROUPS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    filled = fill(rows, wnids, read_hypernyms(folder / "data.noun"))
    filled.sort(key=lambda row: (row["classes"].count(" "), row["wnid"]))
    with GROUPS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(filled)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else WORDNET)

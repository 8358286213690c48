"""The languages of the page: one file each in the folder `languages`, found by being there.

The file's name is the language's code in the cookie, in `?lang=` and in `Accept-Language`. A word that a language does
not have is shown in English. Names in braces are blanks, filled in when a word is used. A word of the page's script
may have plural forms, by the categories of Unicode's CLDR (`one`, `other`, …), and `count` chooses among them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

FOLDER = Path(__file__).parent / "languages"
DEFAULT = "en"
# The members of a prediction that name its class, and the language of each as a tag (RFC 5646).
CLASS_NAMES = {"label": "en", "label_zh": "zh-Hans"}
# The page's script gets the words whose keys begin with one of these, and writes them into the cards.
SCRIPT_PREFIXES = ("js.", "problem.", "advice.")
# Of those, what only the page of teaching needs, with the problems that only its requests may have.
_TEACHING_PROBLEMS = (
    "no-right",
    "foreign-origin",
    "unknown-project",
    "teaching-off",
    "not-taught",
    "name-taken",
    "bad-project-file",
    "projects-unavailable",
    "project-full",
)
TEACHING_PREFIXES = ("js.teach.", *(f"{kind}.{slug}" for kind in ("problem", "advice") for slug in _TEACHING_PROBLEMS))
# What the first page needs only where the service has an index of photos.
_SEARCH_PROBLEMS = ("foreign-origin", "no-index", "index-unavailable")
SEARCH_PREFIXES = ("js.alike.", *(f"{kind}.{slug}" for kind in ("problem", "advice") for slug in _SEARCH_PROBLEMS))


class Language(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One language: what its file says.

    `label` is the language's name in the switch, and `tag` its tag for browsers (RFC 5646). `names` are the members
    that name a class, the reader's first. `space` stands between two sentences. `alternatives` stand between several
    names, the second of them before the last name.
    """

    label: str
    tag: str
    names: tuple[Literal["label", "label_zh"], ...]
    space: str
    alternatives: tuple[str, str]
    words: dict[str, str | dict[str, str]]

    def text(self, key: str, **values: object) -> str:
        """Return a word with its blanks filled in; raises KeyError for a key or a value that is missing."""
        word = self.words[key]
        assert isinstance(word, str), f"{key} has plural forms, which only the page's script chooses"
        return word.format(**values)

    def any_of(self, names: Sequence[str]) -> str:
        """Join names as alternatives, such as "a, b or c"."""
        comma, last = self.alternatives
        return last.join([comma.join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

    def for_script(self, *, is_teaching: bool = False, has_index: bool = False, **values: object) -> dict[str, object]:
        """Return what a page's script needs of this language, with `values` filled in already.

        `is_teaching` adds the words of the page of teaching, and `has_index` those of an index of photos.
        """
        added = (TEACHING_PREFIXES if is_teaching else ()) + (SEARCH_PREFIXES if has_index else ())
        keys = [
            key
            for key in self.words
            if key.startswith(SCRIPT_PREFIXES)
            and (key.startswith(added) or not key.startswith(TEACHING_PREFIXES + SEARCH_PREFIXES))
        ]
        words = {key: _fill(self.words[key], values) for key in keys}
        names = [{"member": name, "tag": CLASS_NAMES[name]} for name in self.names]
        return {"tag": self.tag, "space": self.space, "names": names, "words": words}


@functools.cache
def read_languages(folder: Path = FOLDER) -> dict[str, Language]:
    """Read all languages of a folder, once per process, by code and with English first.

    Raises msgspec.ValidationError for a file that lacks a member or has one too many.
    """
    decoder = msgspec.json.Decoder(Language)
    found = {path.stem: decoder.decode(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
    english = found.pop(DEFAULT)
    others = {
        code: msgspec.structs.replace(language, words=english.words | language.words)
        for code, language in found.items()
    }
    return {DEFAULT: english} | others


def _fill(word: str | dict[str, str], values: dict[str, object]) -> str | dict[str, str]:
    """Fill in the given values, and leave other blanks for later."""
    if isinstance(word, dict):
        return {form: str(_fill(text, values)) for form, text in word.items()}
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word

"""The page's scripts: what imports what."""

from __future__ import annotations

import graphlib
import posixpath
import re
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "static" / "js"
# A folder imports from itself and from those after it; photos is used by several, and uses none of them.
FOLDERS = ["", "alike", "teach", "later", "cards", "page", "server", "photos"]
AT_THE_START = re.compile(r"^(?:import|export)\b[^;]*?from '(\.[^']+)';", re.MULTILINE)
LATER = re.compile(r"\bimport\('(\.[^']+)'\)")


def imported_by(script: Path, how: re.Pattern[str]) -> set[str]:
    """List the modules that a script imports at the start, or fetches later, by their paths below static/js."""
    folder = script.relative_to(SCRIPTS).parent.as_posix()
    return {posixpath.normpath(posixpath.join(folder, name)) for name in how.findall(script.read_text("utf-8"))}


STARTED, FETCHED = (
    {path.relative_to(SCRIPTS).as_posix(): imported_by(path, how) for path in SCRIPTS.rglob("*.js")}
    for how in (AT_THE_START, LATER)
)
GRAPH = {script: names | FETCHED[script] for script, names in STARTED.items()}


def folder_of(script: str) -> str:
    """Return the folder below static/js, which is empty for main.js, the script of the first page."""
    return posixpath.dirname(script)


def test_imports_lead_to_scripts_that_exist() -> None:
    assert set().union(*GRAPH.values()) - set(GRAPH) == set()
    assert len(GRAPH["main.js"]) > 1


def test_every_script_but_that_of_a_page_is_imported() -> None:
    assert set(GRAPH) - set().union(*GRAPH.values()) == {"main.js", "alike/main.js", "teach/main.js"}


def test_scripts_import_in_no_circle() -> None:
    assert len(list(graphlib.TopologicalSorter(GRAPH).static_order())) == len(GRAPH)


def test_scripts_import_only_from_folders_below_their_own() -> None:
    arrows = {(folder_of(script), folder_of(name)) for script, names in STARTED.items() for name in names}
    assert [(above, below) for above, below in arrows if FOLDERS.index(above) > FOLDERS.index(below)] == []


def test_what_is_fetched_later_is_in_the_folder_for_it() -> None:
    assert {folder_of(name) for names in FETCHED.values() for name in names} == {"later"}

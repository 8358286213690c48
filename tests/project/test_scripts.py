"""The page's scripts: what imports what."""

from __future__ import annotations

import graphlib
import posixpath
import re
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "static" / "js"
# A folder imports from itself and from those after it; photos is used by several, and uses none of them.
FOLDERS = ["", "cards", "later", "page", "server", "photos"]


def imported_by(script: Path) -> set[str]:
    """List the modules that a script imports, by their paths below static/js."""
    text = script.read_text("utf-8")
    names = re.findall(r"^(?:import|export)\b[^;]*?from '(\.[^']+)';", text, re.MULTILINE)
    names += re.findall(r"\bimport\('(\.[^']+)'\)", text)  # fetched later
    folder = script.relative_to(SCRIPTS).parent.as_posix()
    return {posixpath.normpath(posixpath.join(folder, name)) for name in names}


GRAPH = {path.relative_to(SCRIPTS).as_posix(): imported_by(path) for path in SCRIPTS.rglob("*.js")}


def folder_of(script: str) -> str:
    """Return the folder below static/js, which is empty for main.js."""
    return posixpath.dirname(script)


def test_imports_lead_to_scripts_that_exist() -> None:
    assert set().union(*GRAPH.values()) - set(GRAPH) == set()
    assert len(GRAPH["main.js"]) > 1


def test_every_script_is_imported() -> None:
    assert set(GRAPH) - set().union(*GRAPH.values()) == {"main.js"}


def test_scripts_import_in_no_circle() -> None:
    assert len(list(graphlib.TopologicalSorter(GRAPH).static_order())) == len(GRAPH)


def test_scripts_import_only_from_folders_below_their_own() -> None:
    arrows = {(folder_of(script), folder_of(name)) for script, names in GRAPH.items() for name in names}
    assert [(above, below) for above, below in arrows if FOLDERS.index(above) > FOLDERS.index(below)] == []

"""What the documents say is so: commands, settings, routes, errors, samples, links and dependencies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.serving import make_server

from app.commands import cli
from app.errors import PROBLEMS
from app.setting_table import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SAMPLES = {"python": [sys.executable, "-c"]}
if shutil.which("node"):
    SAMPLES["js"] = ["node", "--input-type=module", "-e"]


def code_of(text: str) -> str:
    """Return all code in a document: what stands between fences, and inline."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", prose)])


def section(title: str) -> str:
    """Return what stands under a heading of README, down to the next."""
    return re.split(r"^#+ ", README.split(f"# {title}\n")[1], flags=re.MULTILINE)[0]


def table(title: str) -> list[tuple[str, ...]]:
    """Return the rows of the table under a heading of README, without its head."""
    rows = [line for line in section(title).splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in row.strip("|").split(" | ")) for row in rows[2:]]


@pytest.fixture
def server(app) -> Iterator[str]:
    """The application with its fake engine behind a real socket; its address."""
    live = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=live.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{live.server_port}"
    live.shutdown()
    thread.join()
    live.server_close()


@pytest.mark.parametrize(
    "first", ["make serve\n", "make test\n", "curl -F file=@cat.jpg http://127.0.0.1:8000/api/v1/predict\n"]
)
def test_readme_begins_with_what_a_newcomer_types(first: str) -> None:
    assert first in "".join(README.splitlines(keepends=True)[:24])


def test_readme_lists_the_settings_as_they_are() -> None:
    rows = [(f"`{row.variable}`", f"`{row.default}`" if row.default else "not set", row.help) for row in SETTINGS]
    assert table("Settings") == rows


def test_readme_lists_the_errors_as_they_are() -> None:
    assert [row[:2] for row in table("Errors")] == [(str(p.status), f"`{p.slug}`") for p in PROBLEMS]


def test_readme_lists_every_route(app) -> None:
    files = ("/static/", "/robots.txt", "/favicon.ico")
    rules = [rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(files)]
    routes = {f"`{method} {rule.rule}`" for rule in rules for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert {row[0] for row in table("Routes")} == routes


@pytest.mark.parametrize("line", re.findall(r"curl .*", code_of(README)))
def test_every_curl_line_asks_a_route_that_exists(app, line: str) -> None:
    path = re.search(r"http://127\.0\.0\.1:8000(/[^\s'?]*)", line)[1]
    method = "POST" if re.search(r" (-F|--data)", line) else "GET"
    assert app.url_map.bind("127.0.0.1").match(path, method)


def test_a_route_that_does_not_exist_would_be_noticed(app) -> None:
    for path, error in (("/api/v1/predicts", NotFound), ("/api/v1/model", MethodNotAllowed)):
        with pytest.raises(error):
            app.url_map.bind("127.0.0.1").match(path, "POST")


@pytest.mark.parametrize("language", SAMPLES)
def test_the_sample_prints_three_names(server, client, real_photos, tmp_path: Path, language: str) -> None:
    sample = re.search(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)[1]
    assert "http://127.0.0.1:8000" in sample
    (tmp_path / "cat.jpg").write_bytes(real_photos["cat"])
    command = [*SAMPLES[language], sample.replace("http://127.0.0.1:8000", server)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answer = client.post("/api/v1/predict", data=real_photos["cat"], content_type="image/jpeg").json
    names = [f"{row['confidence']:6.1%}  {row['label']}  {row['label_zh']}" for row in answer["predictions"]]
    assert done.stdout.splitlines() == names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_what_is_there(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
        linked = document.parent / target if target else document
        assert linked.exists(), target
        assert not anchor or f"\n## {anchor.replace('-', ' ').capitalize()}\n" in linked.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_make_targets_and_commands_exist(document: Path) -> None:
    code = code_of(document.read_text(encoding="utf-8"))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", code)) <= targets
    assert set(re.findall(r"\btopthree (?!-)([a-z]+)", code)) <= set(cli.commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_settings_exist(document: Path) -> None:
    named = set(re.findall(r"\bTOPTHREE_[A-Z0-9_]*[A-Z0-9]", document.read_text(encoding="utf-8")))
    assert {name for name in named if "_TEST_" not in name} <= {row.variable for row in SETTINGS}


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = rows_of_packages(text.split("\n## Decoding of phone photos\n")[0])
    assert {re.match(r"[a-z0-9-]+", name)[0] for name in wanted} <= {row[0] for row in explained}
    assert all(len(row) == 4 for row in explained)


def test_bounds_that_exclude_a_flaw_are_those_in_force() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = map(Requirement, [*pyproject["project"]["dependencies"], *pyproject["build-system"]["requires"]])
    bounds = {need.name: {str(part) for part in need.specifier} for need in named}
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = rows_of_packages(text.split("\n## What the bounds exclude\n")[1])
    assert len(rows) >= 10
    for name, least, _ in rows:
        lower, _, upper = least.partition(", and below ")
        assert bounds[name.split(" ")[0]] == {f">={lower}", *([f"<{upper}"] if upper else [])}, name


def rows_of_packages(text: str) -> list[list[str]]:
    """Return the cells of each row, in any table, that begins with the name of a package."""
    return [re.split(r" \| ", line.strip("| ")) for line in text.splitlines() if re.match(r"\| [a-z]", line)]


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    folders = ("app", "docs", "scripts", "static", "templates", "tests", ".ci")
    files = [*ROOT.glob("[!.]*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    machine = re.compile(rb"/(?:work|root|Users|tmp/w)/")
    texts = [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:1024]]
    assert len(texts) > 40
    assert [path.name for path in texts if machine.search(path.read_bytes())] == []

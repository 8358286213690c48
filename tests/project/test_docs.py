"""The documents: generated tables, examples, links, names of commands and settings, dependencies."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import write_docs
from own_heads import classifier_with_heads
from packaging.requirements import Requirement
from werkzeug.serving import make_server

from app import create_app
from app.photos import protocol
from app.settings import SETTINGS, Settings, service_links

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
ARCHITECTURE = ROOT / "docs" / "architecture.md"
CAT = ROOT / "static" / "samples" / "cat.webp"
DOCUMENTS = write_docs.documents()
# The options of each command, by the words after `topthree`.
COMMANDS = {
    tuple(context.command_path.split()[1:]): {name for option in context.command.params for name in option.opts}
    for context in write_docs.all_commands()
}
SAMPLES = {"python": [sys.executable, "-c"]}
if shutil.which("node"):
    SAMPLES["js"] = ["node", "--input-type=module", "-e"]


def blocks(language: str) -> list[str]:
    """Return the fenced code of a language in README and the API's document."""
    return re.findall(rf"^```{language}\n(.*?)^```", README + API, re.DOTALL | re.MULTILINE)


def sentences(text: str) -> list[str]:
    """Return the sentences of a document's prose, and parts of them up to a colon, except for short ones."""
    prose = re.sub(r"^```.*?^```|^<!-- make docs.*?^<!-- end -->|^[|#].*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n|^\s*- ", prose, flags=re.MULTILINE)]
    return [part for text in paragraphs for part in re.split(r"(?<=[.:;]) ", text) if len(part) > 40]


def code_of(text: str) -> str:
    """Return all code in a document: what stands between fences, and inline."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", prose)])


@pytest.fixture
def server(make_settings, tmp_path_factory) -> Iterator[str]:
    """An application with a fake engine and two heads on it behind a real socket; its address."""
    app = create_app(make_settings(), classifier_with_heads(tmp_path_factory.mktemp("models")))
    live = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=live.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{live.server_port}"
    live.shutdown()
    thread.join()
    live.server_close()


@pytest.mark.parametrize(
    "first",
    ["make serve\n", "make test\n", "curl -F file=@static/samples/cat.webp http://127.0.0.1:8000/api/v1/predict\n"],
)
def test_readme_begins_with_what_a_newcomer_types(first: str) -> None:
    assert first in "".join(README.splitlines(keepends=True)[:24])


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_generated_parts_are_up_to_date(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert text == write_docs.filled(text), "make docs writes them again"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_have_no_control_characters(document: Path) -> None:
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", document.read_text(encoding="utf-8")) == []


def test_every_generated_part_is_in_one_document() -> None:
    names = [name for path in DOCUMENTS for name, *_ in write_docs.PART.findall(path.read_text("utf-8"))]
    assert sorted(names) == sorted(write_docs.PARTS)


def test_stale_parts_are_replaced() -> None:
    stale = "before\n<!-- make docs: formats -->\nThey are stale.\n<!-- end -->\nafter\n"
    assert write_docs.filled(stale) == stale.replace("They are stale.", write_docs.formats())


def test_every_route_is_documented(app) -> None:
    files = ("/static/", "/robots.txt", "/favicon.ico")
    rules = [rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(files)]
    paths = {rule.endpoint: re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule) for rule in rules}
    routes = {f"{method} {paths[rule.endpoint]}" for rule in rules for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert routes - set(code_of(API).splitlines()) == set()


def test_packages_are_listed_in_the_order_of_their_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [layer.split(" | ") for layer in contracts[0]["layers"]]
    rows = re.findall(r"^\| (`[^|]+) \|", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert [re.findall(r"\w+", row) for row in rows] == layers


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("block", [block for block in blocks("sh") if "curl" in block and ":8000/" in block])
def test_examples_with_curl_succeed(server: str, tmp_path: Path, block: str) -> None:
    (tmp_path / "static").symlink_to(ROOT / "static")
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    script = "set -eu\n" + block.replace("http://127.0.0.1:8000", server)
    environment = os.environ | {"CURL_HOME": str(tmp_path)}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, b""), done.stdout
    assert done.stdout or {".npy", ".png"} & {path.suffix for path in tmp_path.iterdir()}


@pytest.mark.parametrize("language", SAMPLES)
def test_the_sample_prints_three_names(server: str, client, language: str) -> None:
    (sample,) = blocks(language)
    assert "http://127.0.0.1:8000" in sample
    command = [*SAMPLES[language], sample.replace("http://127.0.0.1:8000", server)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    answer = client.post("/api/v1/predict", data=CAT.read_bytes(), content_type="image/webp").json
    names = [f"{row['confidence']:6.1%}  {row['label']}  {row['label_zh']}" for row in answer["predictions"]]
    assert done.stdout.splitlines() == names


def test_readme_shows_the_answer_of_the_built_in_model(packaged_settings: Settings, packaged_classifier) -> None:
    client = create_app(packaged_settings, packaged_classifier).test_client()
    text = client.post("/api/v1/predict", data={"file": CAT.open("rb")}).text
    short = re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1…", text)
    # Processors differ in the last digits.
    answer = json.loads(short, parse_float=lambda digits: pytest.approx(float(digits), abs=0.01))
    (shown,) = re.findall(r"^```json\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert json.loads(shown) == answer


def test_the_error_that_is_shown_is_the_one_of_the_service(client) -> None:
    answer = client.post("/api/v1/predict", data=b"This is text.", content_type="application/octet-stream").json
    (shown,) = re.findall(r"^```json\n(.*?)^```", API, re.DOTALL | re.MULTILINE)
    assert json.loads(shown) == {name: value for name, value in answer.items() if name != "instance"}


def test_no_sentence_stands_in_two_documents() -> None:
    places = collections.defaultdict(set)
    for path in DOCUMENTS:
        for sentence in sentences(path.read_text("utf-8")):
            places[sentence].add(path.name)
    assert {sentence: names for sentence, names in places.items() if len(names) > 1} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_what_is_there(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
        linked = document.parent / target if target else document
        assert linked.exists(), target
        headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", code_of(document.read_text(encoding="utf-8")))) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_commands_have_these_options(document: Path) -> None:
    for line in re.findall(r"\btopthree (?!-)[a-z].*", code_of(document.read_text(encoding="utf-8"))):
        words = re.split(r"[#|>;]", line)[0].split()
        command, options = next(
            (names for names in COMMANDS.items() if words[1 : 1 + len(names[0])] == list(names[0])), (None, set())
        )
        assert command or words[1:] in (["keys"], ["models"], ["…"]), line
        assert {word for word in words if word.startswith("--")} <= options | {"--help"}, line


def test_frames_have_the_sizes_that_are_documented() -> None:
    text = (ROOT / "docs" / "decoders.md").read_text(encoding="utf-8")
    sizes = dict(re.findall(r"^\| (hello|request|reply) \| [^|]+ \| (\d+) bytes \|", text, re.MULTILINE))
    frames = {"hello": protocol.HELLO, "request": protocol.REQUEST, "reply": protocol.REPLY}
    assert sizes == {name: str(frame.size) for name, frame in frames.items()}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_settings_exist(document: Path) -> None:
    named = set(re.findall(r"\bTOPTHREE_[A-Z0-9_]*[A-Z0-9]", document.read_text(encoding="utf-8")))
    others = service_links(dict.fromkeys(named, ""))
    assert {name for name in named if "_TEST_" not in name} <= {*others, *(row.variable for row in SETTINGS)}


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = rows_of_packages(text.split("\n## Decoding of phone photos\n")[0])
    assert {re.match(r"[a-z0-9-]+", name)[0] for name in wanted} <= {row[0] for row in explained}
    assert all(len(row) == 4 for row in explained)


def test_bounds_that_exclude_a_flaw_are_those_in_force() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = sum(pyproject["project"]["optional-dependencies"].values(), [])
    own = [*pyproject["project"]["dependencies"], *pyproject["build-system"]["requires"]]
    named = [need for need in map(Requirement, [*extras, *own]) if need.specifier]
    bounds = {need.name: {str(part) for part in need.specifier} for need in named}
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = rows_of_packages(text.split("\n## What the bounds exclude\n")[1])
    assert len(rows) >= 9
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

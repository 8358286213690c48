"""The Makefile on a fresh machine, with the real make and a Python that notes what it would install."""

from __future__ import annotations

import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Runs code for real, notes what pip is asked for, and makes an environment that holds itself and our command.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*) exec {real} -c "$PREAMBLE
$2" ;;
"-m venv") rm -rf .venv; mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo venv >> log
    printf '#!/bin/sh\\necho "$1 on $TOPTHREE_HOST $TOPTHREE_PORT"\\n' > .venv/bin/topthree
    chmod +x .venv/bin/topthree ;;
"-m pip") [ "$3" = --version ] || echo "$*" >> log ;;
esac
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run make in a fresh folder; the CPU builds' index does not answer unless it is named."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "python3").write_text(PYTHON.format(real=shlex.quote(sys.executable)))
    (tmp_path / "python3").chmod(0o755)
    ours = re.compile(r"TOPTHREE_|MAKE|HOST$|PORT$|http_proxy$", re.IGNORECASE)
    clean = {key: value for key, value in os.environ.items() if not ours.match(key)}

    def make(*arguments: str, index: str = "http://127.0.0.1:9", **environment: str):
        command = ["make", "PYTHON=./python3", f"TORCH_CPU_INDEX={index}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean | environment)

    return make


@pytest.fixture
def index() -> Iterator[str]:
    """An index of CPU builds that answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
        server.shutdown()
        thread.join()


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_make_alone_lists_every_target(make) -> None:
    lines = make().stdout.splitlines()
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert [line.split()[:2] for line in lines] == [["make", target] for target in phony.split()]
    assert all(line.endswith(".") for line in lines)


def test_serve_says_one_line_installs_and_serves(make, tmp_path: Path) -> None:
    done = make("serve")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("Installing topthree and its dependencies into .venv.")
    assert second == "serve on 127.0.0.1 8000"
    assert log(tmp_path) == ["venv", "-m pip install --editable ."]


def test_the_second_start_installs_nothing_and_says_nothing(make, tmp_path: Path) -> None:
    make("serve")
    (tmp_path / "log").unlink()
    assert make("serve").stdout == "serve on 127.0.0.1 8000\n"
    assert not (tmp_path / "log").exists()


def test_cpu_builds_are_taken_where_their_index_answers(make, tmp_path: Path, index: str) -> None:
    assert make("serve", index=index).returncode == 0
    assert log(tmp_path)[1:] == [
        f"-m pip install --index-url {index} torch torchvision",
        "-m pip install --editable .",
    ]


def test_the_size_of_the_ordinary_builds_is_said_before(make, tmp_path: Path) -> None:
    done = make("serve", PREAMBLE="import sys; sys.modules['torch'] = None")
    assert done.returncode == 0
    assert ".venv takes 5.7 GB. To avoid this, press Ctrl-C, and name a mirror: make TORCH_CPU_INDEX=" in done.stdout


def test_an_environment_without_pip_is_made_anew(make, tmp_path: Path) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(tmp_path / "gone")
    assert make("serve").returncode == 0
    assert log(tmp_path)[0] == "venv"


def test_changed_dependencies_go_into_the_same_environment(make, tmp_path: Path) -> None:
    make("serve")
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    make("serve")
    assert log(tmp_path) == ["venv", *["-m pip install --editable ."] * 2]


def test_clean_leaves_nothing_that_was_made_here(make, tmp_path: Path) -> None:
    make("serve")
    (tmp_path / "log").unlink()
    before = {path.name for path in tmp_path.iterdir()} - {".venv"}
    for made in (".hypothesis", ".mypy_cache", "build/lib", "topthree.egg-info", "app/__pycache__", "app/commands"):
        (tmp_path / made).mkdir(parents=True)
    assert make("clean").returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == before | {"app"}
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["commands"]


@pytest.mark.parametrize("arguments", [("HOST=0.0.0.0", "PORT=9000"), ()])
def test_host_and_port_come_from_the_command_or_the_environment(make, arguments: tuple[str, ...]) -> None:
    environment = {} if arguments else {"HOST": "0.0.0.0", "PORT": "9000"}
    assert make("serve", *arguments, **environment).stdout.endswith("serve on 0.0.0.0 9000\n")


@pytest.mark.parametrize(
    ("arguments", "preamble", "said"),
    [
        ((), "import sys; sys.version_info = (3, 10, 12)", "This is Python 3.10. Python 3.11 or newer is needed."),
        ((), "import sys; sys.modules['ensurepip'] = None", "On Debian and Ubuntu: apt install python3-venv"),
        (("PYTHON=no-python",), "", "There is no no-python here. Python 3.11 or newer is needed."),
    ],
)
def test_a_python_that_will_not_do_is_one_sentence(make, tmp_path: Path, arguments, preamble: str, said: str) -> None:
    done = make("serve", *arguments, PREAMBLE=preamble)
    assert done.returncode != 0
    sentence, makes_own = done.stderr.splitlines()
    assert said in sentence
    assert "***" in makes_own
    assert not (tmp_path / ".venv").exists()

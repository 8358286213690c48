"""The command `topthree`: help, settings, and how it behaves on a terminal, in a pipe and on a full disk."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fakes import colour_png
from terminals import FAKE, PIPES, run_on_terminal

from app.commands import cli
from app.version import __version__

COMMANDS = sorted(cli.commands)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(colour_png(0, 1, 2))
    return folder


def invoke(*arguments: str):
    return CliRunner().invoke(cli, arguments)


def test_version() -> None:
    assert invoke("--version").output == f"topthree, version {__version__}\n"


def test_python_m_app_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "app", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"topthree, version {__version__}\n"


def test_help_lists_every_command() -> None:
    for flag in ("-h", "--help"):
        output = invoke(flag).output
        assert [command for command in COMMANDS if f"\n  {command} " not in output] == [], output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_of_one_sentence(command: str) -> None:
    first = (cli.commands[command].help or "").split("\n\n")[0]
    assert first.endswith(".")
    assert invoke(command, "--help").exit_code == 0


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TOPTHREE_PORT", "http", "TOPTHREE_PORT is 'http'; it must be a whole number from 1 to 65535."),
        ("TOPTHREE_FALLBACK", "best", "TOPTHREE_FALLBACK is 'best'; it must be one of efficientnet_lite0, none."),
        ("TOPTHREE_COLOUR", "1", "TOPTHREE_COLOUR is not a setting; 'topthree serve --help' lists them all."),
        (
            "TOPTHREE_PRT",
            "1",
            "TOPTHREE_PRT is not a setting; perhaps TOPTHREE_PORT is meant: 'topthree serve --help' lists them all.",
        ),
    ],
)
@pytest.mark.parametrize(
    "command", [("serve",), ("predict", "x.jpg"), ("evaluate", "."), ("weights",), ("labels", "x")]
)
def test_a_bad_setting_is_one_sentence(monkeypatch, command, variable: str, value: str, said: str) -> None:
    monkeypatch.setenv(variable, value)
    result = invoke(*command)
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {said}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(command: str) -> None:
    assert re.search(rf"Examples?:\n    .*topthree {command}\b", invoke(command, "--help").output)


@pytest.mark.parametrize("command", sorted(cli.commands["keys"].commands))
def test_every_help_about_keys_has_an_example(command: str) -> None:
    assert f"    topthree keys {command} " in invoke("keys", command, "--help").output


def test_no_summary_is_cut_off() -> None:
    for listing in ([], ["keys"], ["models"]):
        shown = CliRunner().invoke(cli, [*listing, "--help"], terminal_width=78)  # as click has it in 80 columns
        assert "..." not in shown.output.partition("\nCommands:\n")[2]


def test_the_list_of_commands_imports_none_of_them() -> None:
    code = "import atexit, sys; from app.commands import cli; "
    code += "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); cli(['--help'])"
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=unmeasured)
    assert [name for name in done.stderr.split() if name.startswith("app.commands.")] == []
    assert {"rich", "numpy", "json", "PIL"}.isdisjoint(done.stderr.split())


@pytest.fixture
def hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more command, in a folder of its own."""
    lines = ['"""Say hello."""', "import click", "@click.command(help=__doc__)"]
    (tmp_path / "hello.py").write_text("\n".join([*lines, "def command(): print('Hello!')", ""]))
    monkeypatch.setattr("app.commands.FOLDER", tmp_path)
    monkeypatch.setattr("app.commands.__path__", [str(tmp_path)])
    yield
    del cli.commands.data["hello"], sys.modules["app.commands.hello"]


def test_a_command_is_one_file(hello: None) -> None:
    assert "\n  hello  Say hello.\n" in invoke("--help").output
    assert invoke("hello").output == "Hello!\n"


@pytest.mark.parametrize("arguments", ["--help", "--version", "labels tabby", "labels dog --json", "predict missing"])
@pytest.mark.parametrize(
    ("redirection", "reason"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_output_that_cannot_be_written_is_one_sentence(arguments: str, redirection: str, reason: str) -> None:
    command = f"{sys.executable} -m app {arguments} {redirection}"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, f"Error: Standard output cannot be written: {reason}.\n")


def test_photos_are_classified_without_an_error_output(photos: Path) -> None:
    command = f"{shlex.join(map(str, FAKE))} predict --csv {shlex.quote(str(photos))} 2>&-"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("file,rank,")


@pytest.mark.parametrize("arguments", [["--version"], ["labels", "tabby"], ["weights"], ["predict", "empty"]])
def test_commands_that_run_no_model_do_not_import_torch(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    code = "import atexit, sys; from app.commands import cli; "
    code += "atexit.register(lambda: print('torch' in sys.modules)); cli()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_a_pipe_that_closes_after_a_line_ends_it_quietly(photos: Path) -> None:
    child = subprocess.Popen([*FAKE, "predict", "--ndjson", "--top", "1000", photos], **PIPES)
    with child:
        assert json.loads(child.stdout.readline())["file"] == str(photos / "0.png")
        child.stdout.close()
        assert child.stderr.read() == b"loaded\n"
    assert child.returncode == 1


@pytest.mark.parametrize("form", ["--json", "--ndjson", "--csv", "--table"])
def test_a_pipe_that_nobody_reads_ends_it_quietly(photos: Path, form: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*FAKE, "predict", form, photos], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"loaded\n")


def test_ctrl_c_ends_it_with_130_and_without_a_word(photos: Path) -> None:
    with subprocess.Popen([*FAKE, "predict", photos / "0.png", "-"], stdin=subprocess.PIPE, **PIPES) as child:
        assert child.stderr.readline() == b"loaded\n"  # for the file; now it waits for standard input
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) == 130
        assert child.stdout.read() + child.stderr.read() == b""


def test_the_progress_bar_is_on_the_terminal_not_in_the_file(photos: Path) -> None:
    shown, output = run_on_terminal([*FAKE, "predict", "--ndjson", photos], stdout_too=False)
    assert "Classifying" in shown
    assert [json.loads(line)["file"] for line in output.splitlines()] == [str(p) for p in sorted(photos.iterdir())]


@pytest.mark.parametrize("form", ["--ndjson", "--csv"])
def test_no_bar_tears_lines_that_stream_to_the_terminal(photos: Path, form: str) -> None:
    shown, _ = run_on_terminal([*FAKE, "predict", form, photos], stdout_too=True)
    assert "tench" in shown
    assert "Classifying" not in shown


def test_no_bar_without_a_terminal(photos: Path) -> None:
    done = subprocess.run([*FAKE, "predict", photos], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"loaded\n")


def test_a_file_name_with_markup_is_literal_on_a_terminal_too(photos: Path) -> None:
    (photos / "[red]x[").mkdir()
    (photos / "0.png").rename(photos / "[red]x[/red].png")
    shown, _ = run_on_terminal([*FAKE, "predict", "[red]x[/red].png"], stdout_too=True, cwd=photos)
    assert "[red]x[/red].png" in shown

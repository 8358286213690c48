"""`topthree keys`: a key is shown once, its file holds a digest, and changing one line leaves the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from app.commands import cli
from app.web.keys import read_keys


def keys(runner: CliRunner, path: Path, *arguments: str, **options: object) -> str:
    """Run a command that succeeds on a file, and return its standard output."""
    result = runner.invoke(cli, ["keys", *arguments, "--file", str(path)], **options)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_new_key_is_shown_once_and_kept_as_a_digest(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    token = keys(runner, path, "new", "alice").strip()
    assert token not in path.read_text(encoding="utf-8")
    assert path.stat().st_mode & 0o777 == 0o600
    assert keys(runner, path, "check", input=token + "\n") == "alice: enabled\n"


def test_a_key_with_a_right_keeps_it(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    keys(runner, path, "new", "bob", "--may", "teach")
    keys(runner, path, "disable", "bob")
    keys(runner, path, "enable", "bob")
    assert read_keys(path).keys[0].rights == ("teach",)
    assert keys(runner, path, "list").split()[-2:] == ["bob", "teach"]


def test_without_a_file_the_line_is_printed(runner: CliRunner, tmp_path: Path) -> None:
    result = runner.invoke(cli, ["keys", "new", "alice"])
    token, line = result.stdout.strip(), next(line for line in result.stderr.splitlines() if line.startswith("alice"))
    (tmp_path / "keys.txt").write_text(line, encoding="utf-8")
    assert read_keys(tmp_path / "keys.txt").find(token)


def test_a_key_is_disabled_and_enabled_in_its_place(runner: CliRunner, tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"# ours\nalice enabled {'ab' * 32}  # the phone\n\nbob enabled {'cd' * 32}\n", encoding="utf-8")
    keys(runner, path, "disable", "alice")
    assert path.read_text(encoding="utf-8") == (
        f"# ours\nalice  disabled  {'ab' * 32}  # the phone\n\nbob enabled {'cd' * 32}\n"
    )
    assert [line.split()[0] for line in keys(runner, path, "list").splitlines()] == ["disabled", "enabled"]
    keys(runner, path, "enable", "alice")
    assert all(key.enabled for key in read_keys(path).keys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "alice"], "the name alice already exists"),
        (["new", "no spaces"], "cannot be a key's name"),
        (["disable", "carol"], "no key named 'carol'"),
        (["check"], "does not have this key"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    runner: CliRunner, tmp_path: Path, arguments: list[str], message: str
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"alice enabled {'ab' * 32}\n", encoding="utf-8")
    result = runner.invoke(cli, ["keys", *arguments, "--file", str(path)], input="tt_unknown\n")
    assert result.exit_code == 1
    assert message in result.output
    assert path.read_text(encoding="utf-8") == f"alice enabled {'ab' * 32}\n"


def test_a_command_that_needs_a_file_says_how_to_name_it(runner: CliRunner) -> None:
    result = runner.invoke(cli, ["keys", "list"])
    assert result.exit_code == 2
    assert "TOPTHREE_API_KEYS_FILE" in result.output


@pytest.mark.parametrize("arguments", [["new", "alice"], ["disable", "alice"]])
def test_a_file_that_is_not_text_is_one_sentence(runner: CliRunner, tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xff\xfe\xff")
    result = runner.invoke(cli, ["keys", *arguments, "--file", str(path)])
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert str(path) in result.output
    assert [each.name for each in tmp_path.iterdir()] == ["keys.txt"]

"""Keys files: digests only, one key a line, and an error that names the line and never quotes it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from app.errors import KeysError
from app.web.keys import Key, digest_of, is_writable_by_others, new_token, parse_keys, read_keys

FILE = Path("keys.txt")
DIGEST = "ab" * 32
OTHER = "cd" * 32


def test_a_new_key_is_256_random_bits_and_can_be_recognised() -> None:
    first, second = new_token(), new_token()
    assert re.fullmatch(r"tt_[A-Za-z0-9_-]{43}", first)
    assert first != second


def test_a_key_is_found_by_its_token() -> None:
    token = new_token()
    keys = parse_keys(f"# ours\nalice  enabled  {hashlib.sha256(token.encode()).hexdigest()}  # the phone\n", FILE)
    found = keys.find(token)
    assert found is not None
    assert (found.name, found.enabled) == ("alice", True)
    assert keys.find(new_token()) is None
    assert keys.lines == (2,)


@pytest.mark.parametrize("token", ["", " ", "tt_ü", "a" * 600, "two words", "tt_\n"])
def test_a_malformed_token_is_no_key(token: str) -> None:
    assert parse_keys(f"alice enabled {DIGEST}", FILE).find(token) is None


def test_a_key_reads_as_it_is_written() -> None:
    key = Key("alice", False, digest_of("tt_x"))
    assert parse_keys(key.as_line(), FILE).keys == (key,)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("alice enabled", "a line has three parts, .*; this one has 2"),
        (f"alice enabled {DIGEST} teach more", "a line has three parts, .*; this one has 5"),
        (f"alice enabled {DIGEST} teach,more", "the fourth part holds rights, separated by commas: teach"),
        (f"alice maybe {DIGEST}", "must be 'enabled' or 'disabled'"),
        (f"-alice enabled {DIGEST}", "begins with a letter or digit"),
        (f"alice enabled {DIGEST[:-1]}", "64 hexadecimal digits"),
        (f"bob enabled {OTHER}", "the name bob already exists"),
        (f"carol enabled {DIGEST}", "bob has the same key"),
    ],
)
def test_a_wrong_line_is_named_with_its_reason(line: str, reason: str) -> None:
    with pytest.raises(KeysError, match=f"keys.txt, line 3: .*{reason}"):
        parse_keys(f"# ours\nbob enabled {DIGEST}\n{line}\n", FILE)


def test_a_line_without_rights_is_of_a_key_without_them() -> None:
    keys = parse_keys(f"alice enabled {DIGEST}\nbob enabled {OTHER} teach\n", Path("keys.txt")).keys
    assert [key.rights for key in keys] == [(), ("teach",)]
    assert [key.as_line().split()[3:] for key in keys] == [[], ["teach"]]


def test_a_key_put_into_the_file_by_mistake_is_not_repeated() -> None:
    token = new_token()
    with pytest.raises(KeysError, match="this is a key itself") as failure:
        parse_keys(f"alice enabled {token}", FILE)
    assert token not in str(failure.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        read_keys(tmp_path / "missing.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KeysError, match="not UTF-8 text"):
        read_keys(tmp_path / "binary")


@pytest.mark.parametrize(("mode", "expected"), [(0o600, False), (0o644, False), (0o664, True), (0o666, True)])
def test_a_file_that_others_may_write_is_noticed(tmp_path: Path, mode: int, expected: bool) -> None:
    path = tmp_path / "keys.txt"
    path.touch()
    path.chmod(mode)
    assert is_writable_by_others(path) is expected

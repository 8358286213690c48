"""API keys: 256 random bits each, of which a file keeps only the SHA-256, with a name and a state, one key a line.

A digest without salt and without deliberate slowness is right here, and wrong for passwords: 256 random bits cannot be
guessed, however fast the guesses are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from ..errors import KeysError

PREFIX = "tt_"  # so that people, and scanners for leaked secrets, recognise a key
RANDOM_BYTES = 32
STATES = ("enabled", "disabled")
NAME_RULE = "a name has at most 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What a key may do besides asking for answers, which every key may.
RIGHTS = ("teach",)
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
# The form of a bearer token (RFC 6750, section 2.1); the length only bounds what is hashed.
MAX_TOKEN = 512
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/-]{{1,{MAX_TOKEN}}}=*")


@dataclass(frozen=True)
class Key:
    """One line of a keys file; `digest` is the SHA-256 of the key itself, which is not stored.

    `rights` are some of `RIGHTS`, in their order; a line without any is of a key that may only ask for answers.
    """

    name: str
    enabled: bool
    digest: bytes
    rights: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """Return the state in the words of the file."""
        return STATES[0] if self.enabled else STATES[1]

    def as_line(self) -> str:
        """Return the key's line in the file, without the line end."""
        line = f"{self.name}  {self.state}  {self.digest.hex()}"
        return f"{line}  {','.join(self.rights)}" if self.rights else line


@dataclass(frozen=True)
class KeySet:
    """All keys of a file, in its order; `lines` holds their line numbers, from 1."""

    keys: tuple[Key, ...] = ()
    lines: tuple[int, ...] = ()

    def find(self, token: str) -> Key | None:
        """Return the key of a token, enabled or not; None if it is unknown.

        Every key is compared, each in constant time, so that the duration says nothing about near matches.
        """
        if not _TOKEN.fullmatch(token):
            return None
        digest, found = digest_of(token), None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def named(self, name: str) -> Key | None:
        """Return the key of this name, or None."""
        return next((key for key in self.keys if key.name == name), None)


class KeyRing:
    """The keys of one process, read and checked as a whole before they are used.

    A reload calls `read()` in every worker, and `use()` only if every `read()` succeeded.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys = self.read()

    @property
    def is_required(self) -> bool:
        """Return whether requests need a key."""
        return self._path is not None

    @property
    def current(self) -> KeySet:
        """Return the keys in use."""
        return self._keys

    def read(self) -> KeySet:
        """Read and check the file as it is now; raises KeysError with the file and the line."""
        return KeySet() if self._path is None else read_keys(self._path)

    def use(self, keys: KeySet) -> None:
        """Use these keys, and no others, from the next request on."""
        self._keys = keys


def new_token() -> str:
    """Create a key of 256 random bits from the system's source: the prefix and base64url."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(token: str) -> bytes:
    """Return a key's SHA-256; nothing else of a key is stored."""
    return hashlib.sha256(token.encode("ascii")).digest()


def check_name(name: str) -> str:
    """Return a name that a key may have, or raise KeysError with the rule."""
    if not _NAME.fullmatch(name):
        raise KeysError(f"{name!r} cannot be a key's name: {NAME_RULE}.")
    return name


def read_keys(path: Path) -> KeySet:
    """Read and check a file of keys.

    Raises KeysError, naming the file and the line, for one that is missing or malformed. The text of a line is
    never repeated, since a key may have been put there by mistake.
    """
    return parse_keys(read_text(path), path)


def read_text(path: Path) -> str:
    """Return the text of a keys file, its lines ended by LF; raises KeysError, naming it, if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise KeysError(f"The keys file {path} is not UTF-8 text.") from error
    except OSError as error:
        raise KeysError(f"The keys file {path} cannot be read: {error.strerror}.") from error


def parse_keys(text: str, path: Path) -> KeySet:
    """Parse the text of a keys file; `path` is only for messages. Raises KeysError as `read_keys` does."""
    by_name: dict[str, Key] = {}
    by_digest: dict[bytes, Key] = {}
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        try:
            key = _parse_line(fields)
            if key.name in by_name:
                raise ValueError(f"the name {key.name} already exists")
            if key.digest in by_digest:
                raise ValueError(f"{by_digest[key.digest].name} has the same key")
        except ValueError as error:
            raise KeysError(f"The keys file {path}, line {number}: {error}.") from error
        by_name[key.name] = by_digest[key.digest] = key
        lines.append(number)
    return KeySet(tuple(by_name.values()), tuple(lines))


def is_writable_by_others(path: Path) -> bool:
    """Return whether users other than the owner may write a file, and so could add their own keys."""
    try:
        return bool(path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError as error:
        raise KeysError(f"The keys file {path} cannot be read: {error.strerror}.") from error


def _parse_line(fields: list[str]) -> Key:
    if any(field.startswith(PREFIX) and len(field) > RANDOM_BYTES for field in fields):
        raise ValueError("this is a key itself; the file holds its SHA-256, as 'topthree keys new' writes it")
    if len(fields) not in (3, 4):
        raise ValueError(
            "a line has three parts, a name, 'enabled' or 'disabled', and a SHA-256, and perhaps rights; "
            f"this one has {len(fields)}"
        )
    name, state, digest = fields[:3]
    if not _NAME.fullmatch(name):
        raise ValueError(NAME_RULE)
    if state not in STATES:
        raise ValueError("the second part must be 'enabled' or 'disabled'")
    if not _DIGEST.fullmatch(digest):
        raise ValueError("the third part must be a SHA-256, 64 hexadecimal digits")
    return Key(name, state == STATES[0], bytes.fromhex(digest), _parse_rights(fields[3:]))


def _parse_rights(fields: list[str]) -> tuple[str, ...]:
    given = fields[0].split(",") if fields else []
    if not set(given) <= set(RIGHTS):
        raise ValueError(f"the fourth part holds rights, separated by commas: {', '.join(RIGHTS)}")
    return tuple(right for right in RIGHTS if right in given)

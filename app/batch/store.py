"""Photos in an object store that speaks S3's protocol, through fsspec.

Where the store is and how to sign in come from the environment or the files that all programs for S3 read
(AWS_ENDPOINT_URL, AWS_PROFILE, …); nothing of it passes through here. Answers of a store are never quoted, since their
texts may name keys and addresses.
"""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import BatchError, BatchStopped, TooLarge
from ..photos.folders import MAX_FILE_BYTES, FileProblem, has_photo_name
from .entries import Entry, entry_of, problem_entry
from .walking import matches, split_pattern

SCHEME = "s3://"
MAX_ATTEMPTS = 4
# The most that a store lists at once.
PAGE = 1000
# Failures one after the other that are no longer those of single objects.
MAX_FAILURES = 20
_CODE = re.compile(r"\w{1,40}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")


class Store:
    """The store, opened with the first request; usable from many threads."""

    def __init__(self) -> None:
        self._opened: Any = None
        self._failures = 0
        self._lock = threading.Lock()

    def list_photos(self, address: str) -> Iterator[Entry]:
        """Yield the photos below an address, or those that match it; `PAGE` names are asked for at a time.

        Raises BatchError for an address that cannot be used, and BatchStopped if the store does not answer.
        """
        bucket, key = split_address(address)
        fixed, wanted = split_pattern(key) if any(sign in key for sign in "*?[") else (key, [])
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": fixed, "MaxKeys": PAGE}
        while True:
            page = self._list_page(asked)
            for found in page.get("Contents", ()):
                name = found["Key"]
                if has_photo_name(name.rpartition("/")[2]) and _is_below(name, fixed, wanted):
                    yield _entry(f"{SCHEME}{bucket}/{name}", found["Size"])
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def read(self, address: str) -> bytes:
        """Read an object.

        Raises FileProblem with the reason if the store does not give it, and BatchStopped if it has given none of the
        last `MAX_FAILURES` objects.
        """
        bucket, key = split_address(address)
        try:
            data: bytes = self._files.cat_file(f"{bucket}/{key}")
        except FileNotFoundError as error:
            self._count(None)
            raise FileProblem("The store has no such object.") from error
        except self._errors as error:
            self._count(_sentence(error))
            raise FileProblem(_sentence(error)) from error
        self._count(None)
        return data

    def _count(self, failure: str | None) -> None:
        """Count failures, and begin again from 0 at an answer; raises BatchStopped if they are too many."""
        with self._lock:
            self._failures = self._failures + 1 if failure else 0
            if self._failures >= MAX_FAILURES:
                raise BatchStopped(f"The last {MAX_FAILURES} photos could not be read. {failure}")

    def _list_page(self, asked: dict[str, Any]) -> dict[str, Any]:
        files = self._files
        try:
            page: dict[str, Any] = files.call_s3("list_objects_v2", **asked)
        except self._errors as error:
            if isinstance(error, FileNotFoundError):
                raise BatchError(f"The store has no bucket {asked['Bucket']}.") from error
            if isinstance(error, PermissionError):
                raise BatchError(f"The bucket {asked['Bucket']} cannot be listed. {_sentence(error)}") from error
            if _lacks_credentials(error):
                raise BatchError(
                    "There are no credentials for the store; AWS_PROFILE, for example, names some."
                ) from error
            raise BatchStopped(f"The photos could not all be listed. {_sentence(error)}") from error
        return page

    @property
    def _files(self) -> Any:
        if self._opened is None:
            if importlib.util.find_spec("s3fs") is None:
                raise BatchError("Addresses that begin with s3:// need s3fs: pip install 'topthree[s3]'")
            import fsspec

            # One request for an object, not two; no listing is kept.
            options = {"retries": {"max_attempts": MAX_ATTEMPTS, "mode": "standard"}, "max_pool_connections": 64}
            self._opened = fsspec.filesystem(
                "s3", max_concurrency=1, use_listings_cache=False, skip_instance_cache=True, config_kwargs=options
            )
        return self._opened

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        from botocore.exceptions import BotoCoreError

        return OSError, BotoCoreError


def split_address(address: str) -> tuple[str, str]:
    """Split an address into bucket and key; raises BatchError, without quoting it, for one that cannot be used."""
    bucket, _, key = address.removeprefix(SCHEME).partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise BatchError("An address of a store is s3://BUCKET/PREFIX, without a key or password in it.")
    return bucket, key


def check_address(name: str) -> None:
    """Raise BatchError for an address that cannot be used; any other path passes."""
    if is_address(name):
        split_address(name)


def _is_below(name: str, fixed: str, wanted: list[str]) -> bool:
    if wanted:
        return matches(name.removeprefix(fixed).split("/"), wanted)
    # The prefix `cats` is the folder cats/ or the object cats, not the folder cats-and-dogs/.
    return not fixed or fixed.endswith("/") or name[len(fixed) :][:1] in ("", "/")


def _entry(address: str, size: int) -> Entry:
    if size > MAX_FILE_BYTES:
        return problem_entry(address, TooLarge.slug, f"The photo has {size:,} bytes; {MAX_FILE_BYTES:,} are allowed.")
    return entry_of(address)


def _sentence(error: Exception) -> str:
    """Return a sentence about the store's answer, with its code alone."""
    answer = getattr(error.__cause__ or error, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = _CODE.fullmatch(str(answer.get("Error", {}).get("Code", "")))
    if status is None:
        return f"The store {_failure(error)} ({type(error).__name__})."
    return f"The store answered {status}{f' ({code[0]})' if code and code[0] != str(status) else ''}."


def _lacks_credentials(error: Exception) -> bool:
    from botocore.exceptions import NoCredentialsError

    return isinstance(error, NoCredentialsError)


def _failure(error: Exception) -> str:
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError

    if isinstance(error, FlexibleChecksumError):
        return "sent damaged bytes"
    return "does not answer" if isinstance(error, OSError | NoConnection | HTTPClientError) else "cannot be used"


def is_address(source: str) -> bool:
    """Return whether a path or source is an address of the store."""
    return source.startswith(SCHEME)

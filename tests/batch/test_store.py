"""Photos in an S3 store: a real server on this machine, that lists page by page, and one that only answers 503."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from batches import batch, rows_of
from fakes import colour_png

from app.batch.listing import list_entries
from app.batch.store import MAX_FAILURES, Store, split_address
from app.errors import BatchError, BatchStopped

SMALL = colour_png(0, 2, 1, size=(30, 20))
KEY, SECRET = "AKIAEXAMPLEEXAMPLE", "secretsecretsecret"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    """A running S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a bucket with some photos, which is filled for the first test."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store_url)
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    name = "photos"
    if files.exists(name):
        return name
    files.mkdir(name)
    for key in ("cats/a.png", "cats/b c.png", "cats/d/猫#1.png", "cats-and-dogs/e.png", "notes.txt", "f.png"):
        files.pipe_file(f"{name}/{key}", SMALL)
    files.pipe_file(f"{name}/empty.png", b"")
    return name


LISTED = {
    "": ["cats-and-dogs/e.png", "cats/a.png", "cats/b c.png", "cats/d/猫#1.png", "empty.png", "f.png"],
    "cats": ["cats/a.png", "cats/b c.png", "cats/d/猫#1.png"],
    "cats/": ["cats/a.png", "cats/b c.png", "cats/d/猫#1.png"],
    "f.png": ["f.png"],
    "cats/*.png": ["cats/a.png", "cats/b c.png"],
    "**/e.png": ["cats-and-dogs/e.png"],
}


def test_a_prefix_is_listed(bucket: str) -> None:
    store = Store()  # whose client takes longer to make than to list
    found = {
        prefix: sorted(entry.name for entry in list_entries([f"s3://{bucket}/{prefix}"], store, ()))
        for prefix in LISTED
    }
    assert found == {prefix: [f"s3://{bucket}/{key}" for key in keys] for prefix, keys in LISTED.items()}


def test_a_bucket_is_listed_page_by_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.batch.store.PAGE", 2)
    assert len(list(list_entries([f"s3://{bucket}/"], Store(), ()))) == 6


def test_photos_of_a_store_are_classified(bucket: str, tmp_path: Path) -> None:
    progress = batch([f"s3://{bucket}/"], tmp_path / "out", format_="parquet")
    rows = {row["path"].removeprefix(f"s3://{bucket}/"): row for row in rows_of(tmp_path / "out")}
    assert (progress.done, {key for key, row in rows.items() if row["error"]}) == (6, {"empty.png"})
    assert rows["cats/d/猫#1.png"]["label_1"] == "tench"
    assert batch([f"s3://{bucket}/"], tmp_path / "out", format_="parquet").computed == 0


def test_a_list_may_name_objects(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"s3://{bucket}/f.png\ns3://{bucket}/gone.png\n")
    batch([tmp_path / "list.txt"], tmp_path / "out")
    assert [row["detail"] for row in rows_of(tmp_path / "out")] == [None, "The store has no such object."]


def test_an_unknown_bucket_is_an_error(bucket: str) -> None:
    with pytest.raises(BatchError, match=r"^The store has no bucket nowhere-at-all\.$"):
        list(list_entries(["s3://nowhere-at-all/"], Store(), ()))


@pytest.mark.parametrize("address", [f"s3://{KEY}:{SECRET}@bucket/x", "s3://", "s3:///x", "s3://B_ucket/x"])
def test_an_address_with_credentials_is_not_quoted(address: str) -> None:
    with pytest.raises(BatchError) as error:
        split_address(address)
    assert SECRET not in str(error.value)


class Unavailable(BaseHTTPRequestHandler):
    """Answer every request with 503, and quote the credentials as no store should."""

    def do_GET(self) -> None:
        body = f"<Error><Code>SlowDown</Code><Message>{KEY} is too fast</Message></Error>".encode()
        self.send_response(503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""


class Damaged(Unavailable):
    """Answer every request with bytes whose checksum is another."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1")
        self.send_header("x-amz-checksum-crc32", "AAAAAA==")
        self.end_headers()
        self.wfile.write(b"1")


@contextmanager
def store_of(handler: type[BaseHTTPRequestHandler], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a store that answers by a handler; each request is tried once only."""
    monkeypatch.setattr("app.batch.store.MAX_ATTEMPTS", 1)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def unavailable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that answers 503."""
    with store_of(Unavailable, monkeypatch):
        yield


def test_no_credentials_are_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with store_of(Unavailable, monkeypatch), pytest.raises(BatchError, match=r"^There are no credentials for the"):
        batch(["s3://bucket/"], tmp_path / "out")


def test_damaged_bytes_are_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("s3://bucket/a.png\n")
    with store_of(Damaged, monkeypatch):
        batch([tmp_path / "list.txt"], tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    assert row["detail"] == "The store sent damaged bytes (FlexibleChecksumError)."


def test_a_store_that_is_gone_stops_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("app.batch.store.MAX_ATTEMPTS", 1)
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with pytest.raises(BatchStopped, match=r"^The photos could not all be listed\. The store does not answer \("):
        batch(["s3://bucket/"], tmp_path / "out")


def test_a_listing_that_gets_503_stops_the_job(unavailable: None, tmp_path: Path) -> None:
    with pytest.raises(BatchStopped) as error:
        batch(["s3://bucket/"], tmp_path / "out")
    assert str(error.value) == "The photos could not all be listed. The store answered 503 (SlowDown)."


def test_an_object_that_gets_503_is_a_row(unavailable: None, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("s3://bucket/a.png\n")
    assert batch([tmp_path / "list.txt"], tmp_path / "out").failed == 1
    (row,) = rows_of(tmp_path / "out")
    assert (row["error"], row["detail"]) == ("unreadable-file", "The store answered 503 (SlowDown).")


def test_a_store_that_fails_again_and_again_stops_the_job(unavailable: None, tmp_path: Path) -> None:
    lines = [f"s3://bucket/{number}.png" for number in range(2 * MAX_FAILURES)]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(BatchStopped, match=r"The last 20 photos could not be read\. The store answered 503"):
        batch([tmp_path / "list.txt"], tmp_path / "out")
    assert rows_of(tmp_path / "out") == []

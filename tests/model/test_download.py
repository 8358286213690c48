"""`fetch` against a real server on this machine that answers well, badly, halfway or not at all."""

from __future__ import annotations

import hashlib
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import file_server as answer
import httpx
import pytest
from file_server import CONTENT, SHA256, FileServer, serving

from app.errors import WeightsError
from app.model import download
from app.model.digests import file_sha256
from app.model.download import Expected, fetch

HALF = len(CONTENT) // 2
NOBODY = "http://127.0.0.1:1/weights.pth"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "resnet18.pth"


@pytest.fixture
def part(target: Path) -> Path:
    target.parent.mkdir()
    return target.with_name("resnet18.pth.part")


def get(url: str, target: Path, **options: object) -> None:
    progress = options.pop("progress", None)
    fetch(url, target, Expected(**{"sha256": SHA256, "size_bytes": len(CONTENT)} | options), progress=progress)


def failure(url: str, target: Path, **options: object) -> str:
    with pytest.raises(WeightsError) as caught:
        get(url, target, **options)
    return str(caught.value)


def files(target: Path) -> set[str]:
    """Name what lies beside the target; the empty lock file does not count."""
    return {path.name for path in target.parent.iterdir()} - {"resnet18.pth.lock"}


def test_file_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert file_sha256(tmp_path / "file") == SHA256


def test_whole_file_arrives_and_nothing_else_is_left(server: FileServer, target: Path) -> None:
    get(server.url, target)
    assert target.read_bytes() == CONTENT
    assert files(target) == {"resnet18.pth"}
    assert server.starts == [0]


def test_file_that_is_there_is_not_fetched_again(server: FileServer, target: Path) -> None:
    get(server.url, target)
    get(server.url, target)
    assert len(server.starts) == 1


def test_damaged_file_is_replaced(server: FileServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-1] + b"x")
    get(server.url, target)
    assert target.read_bytes() == CONTENT


def test_part_of_an_earlier_call_is_resumed(server: FileServer, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT[:HALF])
    get(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.starts == [HALF]


def test_server_without_ranges_sends_everything_again(server: FileServer, target: Path, part: Path) -> None:
    server.answers = [answer.whole]
    part.write_bytes(CONTENT[:HALF])
    get(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.starts == [HALF]


def test_complete_part_needs_no_server(target: Path, part: Path) -> None:
    part.write_bytes(CONTENT)
    get(NOBODY, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "left",
    [b"x" * HALF, b"x" * len(CONTENT), CONTENT + b"more"],
    ids=["of another file", "complete but damaged", "too large"],
)
def test_useless_part_costs_a_fresh_download(server: FileServer, target: Path, part: Path, left: bytes) -> None:
    part.write_bytes(left)
    get(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.starts[-1] == 0


def test_broken_connection_is_resumed_at_once(server: FileServer, target: Path) -> None:
    server.answers = [answer.cut_after(1000), answer.cut_after(500), answer.whole_or_rest]
    get(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.starts == [0, 1000, 1500]


def test_connection_that_always_breaks_keeps_what_came(server: FileServer, target: Path) -> None:
    server.answers = [answer.cut_after(1000)]
    assert "broke off 3 times" in failure(server.url, target)
    assert files(target) == {"resnet18.pth.part"}
    server.answers = [answer.whole_or_rest]
    get(server.url, target)
    assert server.starts == [0, 1000, 2000, 3000]
    assert files(target) == {"resnet18.pth"}


def test_answer_without_length_that_ends_early_is_resumed(server: FileServer, target: Path) -> None:
    server.answers = [answer.body(CONTENT[:1000]), answer.whole_or_rest]
    get(server.url, target)
    assert target.read_bytes() == CONTENT
    assert server.starts == [0, 1000]


def test_server_that_never_answers_is_given_up(
    server: FileServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    server.answers = [answer.hold(threading.Event(), release)]
    monkeypatch.setattr(download, "TIMEOUT", httpx.Timeout(0.05))
    try:
        assert "broke off 3 times: timed out" in failure(server.url, target)
    finally:
        release.set()


def test_wrong_file_is_thrown_away_and_both_digests_named(server: FileServer, target: Path) -> None:
    server.answers = [answer.body(CONTENT[::-1])]
    sentence = failure(server.url, target)
    assert SHA256 in sentence
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in sentence
    assert files(target) == set()


def test_page_instead_of_the_file_is_thrown_away(server: FileServer, target: Path) -> None:
    server.answers = [answer.body(b"<html>Sign in</html>", **{"Content-Length": "20"})]
    assert "it was deleted" in failure(server.url, target)
    assert len(server.starts) == 1
    assert files(target) == set()


def test_file_larger_than_known_is_thrown_away(server: FileServer, target: Path) -> None:
    server.answers = [answer.body(CONTENT + b"more")]
    assert f"more than {len(CONTENT)} bytes" in failure(server.url, target)
    assert files(target) == set()


def test_bytes_after_the_announced_length_are_ignored(server: FileServer, target: Path) -> None:
    server.answers = [answer.body(CONTENT + b"more", **{"Content-Length": str(len(CONTENT))})]
    get(server.url, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "phrase"), [(403, "Forbidden"), (404, "Not Found"), (500, "Internal Server Error")])
def test_refusal_is_named_and_leaves_nothing(server: FileServer, target: Path, code: int, phrase: str) -> None:
    server.answers = [answer.status(code)]
    assert failure(server.url, target) == f"{server.url} answered {code} {phrase}."
    assert files(target) == set()


@pytest.mark.parametrize(("code", "left"), [(404, set()), (416, set()), (206, set()), (503, {"resnet18.pth.part"})])
def test_refusal_of_the_rest(server: FileServer, target: Path, part: Path, code: int, left: set[str]) -> None:
    part.write_bytes(CONTENT[:HALF])
    server.answers = [answer.status(code)]
    assert f"answered {code}" in failure(server.url, target)
    assert files(target) == left


def test_redirect_is_followed_and_still_resumes(server: FileServer, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT[:HALF])
    server.answers = [answer.redirect("/elsewhere"), answer.whole_or_rest]
    get(server.url, target)
    assert server.starts == [HALF, HALF]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("to", ["/weights.pth", "ftp://127.0.0.1/weights.pth"], ids=["for ever", "to ftp"])
def test_redirect_that_leads_nowhere(server: FileServer, target: Path, to: str) -> None:
    server.answers = [answer.redirect(to)]
    assert "cannot be reached" in failure(server.url, target)
    assert files(target) == set()


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:1", "255.255.255.255", "no-such-host.invalid", f"{'a' * 64}.invalid"],
    ids=["refused", "no route", "unknown name", "impossible name"],
)
def test_host_that_cannot_be_reached(target: Path, host: str) -> None:
    url = f"http://{host}/weights.pth"
    assert failure(url, target).startswith(f"{url} cannot be reached: ")
    assert files(target) == set()


def test_connection_that_times_out_is_not_tried_again(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", httpx.Timeout(30, connect=0.05))
    with socket.socket() as deaf, ExitStack() as clients:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # its queue is full then: a further connection gets no answer
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/weights.pth"
        assert failure(url, target) == f"{url} cannot be reached: timed out."


def test_malformed_address_is_one_sentence(target: Path) -> None:
    assert failure("http://[::1/", target) == "The download address of the weights is not valid."


def test_secrets_in_the_address_are_not_repeated(server: FileServer, target: Path) -> None:
    server.answers = [answer.status(404)]
    secret = server.url.replace("//", "//user:password@") + "?token=secret"
    assert failure(secret, target) == f"{server.url} answered 404 Not Found."


def test_folder_that_cannot_be_made(target: Path) -> None:
    target.parent.write_text("a file where the folder should be")
    assert failure(NOBODY, target).startswith(f"{target} cannot be written: ")


def test_full_disk_leaves_nothing(server: FileServer, target: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))  # writing beyond fails, as on a full disk
    try:
        assert failure(server.url, target).startswith(f"{target} cannot be written: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(target) == set()


def test_progress_counts_up_to_the_total(server: FileServer, target: Path) -> None:
    seen: list[tuple[int, int]] = []
    get(server.url, target, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(set(seen))
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_progress_of_a_resumed_download_counts_what_was_there(server: FileServer, target: Path, part: Path) -> None:
    part.write_bytes(CONTENT[:HALF])
    seen: list[int] = []
    get(server.url, target, progress=lambda done, total: seen.append(done))
    assert HALF < seen[0] <= seen[-1] == len(CONTENT)


CHILD = """
import logging, sys, pathlib
from app.model.download import Expected, fetch
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("filelock").setLevel("DEBUG")
fetch(sys.argv[1], pathlib.Path(sys.argv[2]), Expected(sys.argv[3], int(sys.argv[4])))
"""


def test_second_process_waits_for_the_first_and_downloads_nothing(server: FileServer, target: Path) -> None:
    arrived, release = threading.Event(), threading.Event()
    server.answers = [answer.hold(arrived, release)]
    command = [sys.executable, "-c", CHILD, server.url, str(target), SHA256, str(len(CONTENT))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
        assert arrived.wait(60)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
            assert any("not acquired" in line for line in second.stdout)  # filelock says so when it has to wait
            release.set()
            second.stdout.read()
    assert (first.returncode, second.returncode, server.starts) == (0, 0, [0])
    assert target.read_bytes() == CONTENT

"""The real service with its device process, on the CPU: two workers under load while it dies, reloads and is full."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from fakes import colour_png
from servers import PATIENCE_SECONDS, POLL_SECONDS, Server, serving

from app.settings import Settings

pytestmark = [pytest.mark.live, pytest.mark.slow]

CLIENTS = 2
OK, RETRY = (200, False), (503, True)


@pytest.fixture(scope="module")
def server(packaged_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service on one processor, since torch's threads wait for each other where others compute too."""
    log = tmp_path_factory.mktemp("device") / "log"
    options = {"engine": "torch", "workers": 2, "max_waiting": 4, "result_cache_bytes": 0}
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        with serving(packaged_settings.cache, log, **options) as server:
            os.sched_setaffinity(0, allowed)
            server.wait_until_ready()
            yield server
    finally:
        os.sched_setaffinity(0, allowed)


def ask(client: httpx.Client, server: Server, number: int, **headers: str) -> tuple[int, bool]:
    """Send a photo; return the status, and whether the answer says when to try again."""
    headers["Content-Type"] = "image/png"
    answer = client.post(f"{server.url}/api/v1/predict", content=colour_png(number % 256), headers=headers)
    return answer.status_code, "Retry-After" in answer.headers


@contextmanager
def load_on(server: Server) -> Iterator[Counter[object]]:
    """Have clients ask, each as soon as it is answered, until the block ends; yield the counts of their answers."""
    outcomes: Counter[object] = Counter()
    stop = threading.Event()

    def be_a_client(number: int) -> None:
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            while not stop.is_set():
                number += 1
                try:
                    outcome: object = ask(client, server, number)
                except httpx.HTTPError as error:
                    outcome = repr(error)
                outcomes[outcome] += 1
                if outcome == RETRY:
                    stop.wait(POLL_SECONDS)  # to ask at once again would take the processor from what is starting

    with ThreadPoolExecutor(CLIENTS) as pool:
        for number in range(CLIENTS):
            pool.submit(be_a_client, 50 * number)
        try:
            yield outcomes
        finally:
            stop.set()


def device_pid(server: Server) -> int:
    """Return the process id of the newest device process."""
    return int(re.findall(r"\[(\d+)\] \[INFO\] \S+ is on the CPU in fp32", server.log)[-1])


def is_without_device(server: Server) -> bool:
    """Return whether a worker says that it is not ready, since the device process has ended, and when to ask again."""
    answer = httpx.get(f"{server.url}/readyz", timeout=PATIENCE_SECONDS)
    has_ended = "The process that owns the GPU has ended" in answer.text
    return has_ended and (answer.status_code, "Retry-After" in answer.headers) == RETRY


def test_a_killed_device_process_costs_only_answers_to_retry(server: Server) -> None:
    with load_on(server) as outcomes:
        server.wait_for(lambda: outcomes[OK] >= CLIENTS, "answer")
        first = device_pid(server)
        os.kill(first, signal.SIGKILL)
        server.wait_for(lambda: outcomes[RETRY] > 0, "answer 503")
        # Each worker notices it by itself, some milliseconds after a photo of another one has failed.
        server.wait_for(lambda: is_without_device(server), "readiness that knows it")
        server.wait_until_ready()
        before = outcomes[OK]
        server.wait_for(lambda: outcomes[OK] >= before + CLIENTS, "answer")
    assert set(outcomes) == {OK, RETRY}
    assert device_pid(server) != first
    assert "(signal SIGKILL); another is started" in server.log
    assert len(server.workers) == 2


def test_a_reload_goes_on_answering(server: Server) -> None:
    with load_on(server) as outcomes:
        os.kill(server.process.pid, signal.SIGHUP)
        server.wait_for_log("Reload 1 is done: 2 workers")
        before = outcomes[OK]
        server.wait_for(lambda: outcomes[OK] >= before + CLIENTS, "answer")
    assert set(outcomes) == {OK}


def test_more_photos_than_may_wait_are_refused_and_late_ones_end(server: Server) -> None:
    pid = device_pid(server)
    with httpx.Client(timeout=PATIENCE_SECONDS) as client, ThreadPoolExecutor(40) as pool:
        os.kill(pid, signal.SIGSTOP)
        try:
            timeout = {"X-Request-Timeout-Ms": "2000"}
            found = [pool.submit(ask, client, server, number, **timeout) for number in range(40)]
            outcomes = Counter(each.result() for each in found)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert set(outcomes) == {RETRY, (504, False)}
    server.wait_until_ready()
    with httpx.Client(timeout=PATIENCE_SECONDS) as client:
        assert ask(client, server, 1) == OK

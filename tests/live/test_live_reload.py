"""SIGHUP to the real service, two workers under load: not one request fails, and what the files hold now is served."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from colour_graphs import save_graph
from fakes import colour_png
from servers import PATIENCE_SECONDS, Server, serving

from app.web.keys import Key, digest_of, new_token

pytestmark = pytest.mark.live

CLIENTS = 2


class Files:
    """A model file that needs no torch, the names of its classes, and keys."""

    def __init__(self, folder: Path) -> None:
        self.model = save_graph(folder)
        self.labels, self.keys = (folder / name for name in ("labels.txt", "keys.txt"))
        self.tokens = {name: new_token() for name in ("always", "before", "after")}
        self.write("old", "always", "before")

    def write(self, name: str, *keys: str) -> None:
        """Give all classes names that begin with `name`, and write a file of these keys."""
        self.labels.write_text("".join(f"{name} {number}\n" for number in range(4)))
        self.keys.write_text("".join(Key(key, True, digest_of(self.tokens[key])).as_line() + "\n" for key in keys))


class Load:
    """Clients that ask, each as soon as it is answered, until the end."""

    def __init__(self, server: Server, token: str) -> None:
        self.server, self.token = server, token
        self.outcomes: Counter[object] = Counter()
        self.stop = threading.Event()

    def ask(self) -> None:
        """Be one client."""
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            number = 0
            while not self.stop.is_set():
                number += 1
                try:
                    self.outcomes[first_name(client, self.server, self.token, number)] += 1
                except (httpx.HTTPError, KeyError) as error:
                    self.outcomes[repr(error)] += 1


def first_name(client: httpx.Client, server: Server, token: str, number: int = 0) -> object:
    """Send a photo; return how its first class's name begins, or the status."""
    url, headers = f"{server.url}/api/v1/predict", {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}
    answer = client.post(url, content=colour_png(number % 256), headers=headers)
    return answer.json()["predictions"][0]["label"].split()[0] if answer.status_code == 200 else answer.status_code


@contextmanager
def load_on(server: Server, token: str) -> Iterator[Load]:
    """Keep clients asking."""
    load = Load(server, token)
    threads = [threading.Thread(target=load.ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)


def names_of_both(server: Server, token: str) -> set[object]:
    """Ask over twenty connections, which both workers take their part of."""
    found = set()
    for number in range(20):
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            found.add(first_name(client, server, token, number))
    return found


def test_reload_under_load_loses_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path)
    options = {"model": files.model, "labels": files.labels, "api_keys_file": files.keys, "workers": 2}
    with serving(tmp_path / "cache", tmp_path / "log", **options) as server:
        server.wait_until_ready()
        workers = server.workers
        with load_on(server, files.tokens["always"]) as load:
            assert names_of_both(server, files.tokens["before"]) == {"old"}
            files.write("new", "always", "after")
            os.kill(server.process.pid, signal.SIGHUP)
            server.wait_for_log("Reload 1 is done: 2 workers")
            assert names_of_both(server, files.tokens["after"]) == {"new"}
            assert names_of_both(server, files.tokens["before"]) == {401}

            files.write("newest", "always")
            files.model.write_bytes(b"This is no model.")
            os.kill(server.process.pid, signal.SIGHUP)
            server.wait_for_log("Reload 2 failed, and nothing has changed: a worker failed")
            assert names_of_both(server, files.tokens["after"]) == {"new"}
            assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert "model.xml" in server.log.partition("Reload 2 failed")[2]
        assert set(load.outcomes) == {"old", "new"}
        assert server.workers == workers

"""Two workers take a new version of a model without a restart, under load; a damaged default one is said once."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from fakes import colour_png
from own_heads import own_model
from servers import PATIENCE_SECONDS, Server, serving

from app.classifier import Classifier
from app.model.own_format import HEAD, OwnModel
from app.model.own_models import use_version, write_version
from app.settings import Settings

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture
def head(packaged_classifier: Classifier) -> OwnModel:
    """A head of two classes on the packaged backbone, which always answers with the first."""
    model = packaged_classifier.load_model()
    values = {"backbone": model.name, "weights_sha256": model.weights.sha256}
    return own_model("first", "other", weight=np.zeros((2, 1280), np.float32), **values)


@pytest.fixture
def root(head: OwnModel, tmp_path: Path) -> Path:
    """The folder of models, with the head as version 1 of `things`."""
    write_version(tmp_path / "models", "things", head)
    return tmp_path / "models"


def answering_second(head: OwnModel) -> OwnModel:
    """Have a head answer with another class."""
    labels = tuple(dataclasses.replace(label, label="second") for label in head.labels[:1])
    return dataclasses.replace(head, labels=(*labels, head.labels[1]))


def ask(client: httpx.Client, server: Server, number: int) -> str:
    """Send a photo that was not sent before; return version and class, or the status."""
    photo, headers = colour_png(number % 256, number // 256 % 256), {"Content-Type": "image/png"}
    answer = client.post(f"{server.url}/api/v1/predict?model=things", content=photo, headers=headers)
    if answer.status_code != 200:
        return str(answer.status_code)
    return f"{answer.json()['model']['version']} {answer.json()['predictions'][0]['label']}"


@contextmanager
def load_on(server: Server) -> Iterator[Counter[str]]:
    """Keep two clients asking until the block ends, and count their answers."""
    outcomes: Counter[str] = Counter()
    ended = threading.Event()

    def work(first: int) -> None:
        number = first
        while not ended.is_set():
            with httpx.Client(timeout=PATIENCE_SECONDS) as client:  # so that each worker gets its part
                outcomes[ask(client, server, number)] += 1
            number += 2

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        ended.set()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)


def test_two_workers_take_a_new_version_under_load(
    packaged_settings: Settings, head: OwnModel, root: Path, tmp_path: Path
) -> None:
    options = {"models": root, "model": "efficientnet_lite0", "workers": 2}
    with serving(packaged_settings.cache, tmp_path / "log", **options) as server:
        server.wait_until_ready()
        workers = server.workers
        with load_on(server) as outcomes:
            server.wait_for(lambda: outcomes["1 first"] > 5, "answers of version 1")
            write_version(root, "things", answering_second(head))
            server.wait_for_log("The model things answers in version 2 in place of version 1.", times=2)
            server.wait_for(lambda: outcomes["2 second"] > 5, "answers of version 2")
            use_version(root, "things", 1)
            server.wait_for_log("The model things answers in version 1 in place of version 2.", times=2)
        assert set(outcomes) == {"1 first", "2 second"}
        assert server.workers == workers


def test_a_version_that_is_damaged_changes_nothing(packaged_settings: Settings, root: Path, tmp_path: Path) -> None:
    options = {"models": root, "model": "things", "workers": 2}
    with serving(packaged_settings.cache, tmp_path / "log", **options) as server:
        server.wait_until_ready()
        (root / "things/2").mkdir()
        server.wait_for_log("The model things stays as it was: ", times=2)
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:
            assert ask(client, server, 1) == "1 first"
        assert server.wait_until_ready().json()["model"]["version"] == 1


def test_a_default_that_cannot_be_opened_is_not_ready(packaged_settings: Settings, root: Path, tmp_path: Path) -> None:
    whole = (root / "things/1" / HEAD).read_bytes()
    (root / "things/1" / HEAD).write_bytes(b"")
    with serving(packaged_settings.cache, tmp_path / "log", models=root, model="things") as server:
        server.wait_for_log("It is tried again every 30 seconds")
        answer = httpx.get(f"{server.url}/readyz")
        assert answer.status_code == 503
        assert (
            answer.json()["detail"] == "The model that should answer cannot be used. The service's log has the reason."
        )
        assert f"{root / 'things/1'} is damaged" in server.log
        (root / "things/1" / HEAD).write_bytes(whole)
        with httpx.Client(timeout=PATIENCE_SECONDS) as client:  # a request loads the model at once
            assert ask(client, server, 1) == "1 first"

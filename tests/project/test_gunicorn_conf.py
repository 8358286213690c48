"""`gunicorn.conf.py`: only names that gunicorn knows, each with its reason, values from the settings."""

from __future__ import annotations

import ast
import logging
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config, make_settings

PATH = Path(__file__).resolve().parents[2] / "gunicorn.conf.py"
KNOWN = {setting.name: setting for setting in KNOWN_SETTINGS}
SOURCE = PATH.read_text(encoding="utf-8")


@pytest.fixture
def conf() -> dict[str, Any]:
    """The file's names, as gunicorn reads them."""
    return runpy.run_path(str(PATH))


def own_names(conf: dict[str, Any]) -> set[str]:
    """Leave out what the file imports, and what begins with an underscore."""
    imported = {
        alias.asname or alias.name for node in ast.walk(ast.parse(SOURCE)) for alias in getattr(node, "names", [])
    }
    return {name for name in conf if not name.startswith("_")} - imported


def test_every_name_is_one_that_gunicorn_knows(conf: dict[str, Any]) -> None:
    names = own_names(conf)
    assert {"bind", "workers", "post_worker_init"} <= names
    assert names - KNOWN.keys() == set()


def test_every_value_is_one_that_gunicorn_takes(conf: dict[str, Any]) -> None:
    settings = make_settings()
    for name in own_names(conf):
        settings[name].set(conf[name])


def test_every_value_has_its_reason() -> None:
    lines = SOURCE.splitlines()
    assignments = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.Assign)]
    for node in assignments:
        paragraph = node.lineno - 1
        while lines[paragraph - 1] and not lines[paragraph - 1].startswith("#"):
            paragraph -= 1
        name = node.targets[0].id
        assert name.startswith("_") or lines[paragraph - 1].startswith("#"), f"{name} has no comment above it"


def test_every_hook_says_what_it_does() -> None:
    hooks = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef)]
    assert [hook.name for hook in hooks if not ast.get_docstring(hook)] == []


def test_values_follow_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOST": "::1",
        "PORT": "9001",
        "WORKERS": "3",
        "MAX_WAITING": "5000",
        "LOG_LEVEL": "debug",
    }.items():
        monkeypatch.setenv(f"TOPTHREE_{name}", "[::1]" if name == "HOST" else value)
    conf = runpy.run_path(str(PATH))
    assert conf["bind"] == ["[::1]:9001"]
    assert (conf["workers"], conf["loglevel"]) == (3, "debug")
    assert conf["threads"] > 5000


def test_default_is_loopback_and_one_process(conf: dict[str, Any]) -> None:
    assert (conf["bind"], conf["workers"], conf["worker_class"]) == (
        ["127.0.0.1:8000"],
        1,
        "app.server.worker.Worker",
    )


def test_nothing_runs_before_the_fork(conf: dict[str, Any]) -> None:
    assert conf["preload_app"] is False


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_open_address_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str, warned: bool
) -> None:
    monkeypatch.setenv("TOPTHREE_HOST", host)
    ours = logging.getLogger("app")
    before = ours.handlers, ours.level
    log = logging.getLogger("server")
    try:
        runpy.run_path(str(PATH))["on_starting"](
            SimpleNamespace(cfg=Config(), log=SimpleNamespace(error_log=log, warning=log.warning, info=log.info))
        )
    finally:
        ours.handlers, ours.level = before[0], before[1]
    assert ("anyone who can reach" in caplog.text) == warned


def test_workers_get_free_slots_and_give_them_back(conf: dict[str, Any]) -> None:
    first, second, third = (SimpleNamespace(slot=None, SIGNALS=[signal.SIGHUP, signal.SIGTERM]) for _ in range(3))
    server = SimpleNamespace(WORKERS={})
    for pid, worker in ((1, first), (2, second)):
        conf["pre_fork"](server, worker)
        server.WORKERS[pid] = worker
        conf["_readiness"].mark(worker.slot, True)
    assert (first.slot, second.slot, conf["_readiness"].warm_workers) == (0, 1, 2)
    conf["child_exit"](server, server.WORKERS.pop(1))
    assert conf["_readiness"].warm_workers == 1
    assert first.SIGNALS == [signal.SIGTERM]  # while it starts, a reload must not end it
    conf["pre_fork"](server, third)
    assert third.slot == 0


def test_workers_do_not_collect_what_the_master_shares() -> None:
    code = (
        "import gc, runpy; runpy.run_path('gunicorn.conf.py')['post_fork'](None, None); print(gc.get_freeze_count())"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=PATH.parent, capture_output=True, text=True, check=True)
    assert int(run.stdout) > 10_000

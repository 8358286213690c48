"""All that is overridden or used of gunicorn, waitress and prometheus_client is there as it was read.

An override whose name is gone upstream would no longer be called, without any error. Each name is listed here with the
signature with which it was read; a bound in pyproject.toml holds back the minor versions that were not.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers import base
from prometheus_client import exposition, multiprocess, values
from waiting import wait_until
from waitress import buffers, channel, parser, receiver, server, task, trigger, utilities, wasyncore
from workers import POST, Running

from app.server import connections, requests, worker

# Each with the class that defines it.
OVERRIDDEN = {
    "Channel.__init__": (channel.HTTPChannel, "(self, server, sock, addr, adj, map=None)"),
    "Channel.handle_read": (channel.HTTPChannel, "(self)"),
    "Channel.received": (channel.HTTPChannel, "(self, data)"),
    "Channel.readable": (channel.HTTPChannel, "(self)"),
    "Channel.send": (wasyncore.dispatcher, "(self, data, do_close=True)"),
    "Channel.del_channel": (channel.HTTPChannel, "(self, map=None)"),
    "Channel.service": (channel.HTTPChannel, "(self)"),
    "Channel.check_client_disconnected": (channel.HTTPChannel, "(self)"),
    "Request.__init__": (parser.HTTPRequestParser, "(self, adj)"),
    "Request.received": (parser.HTTPRequestParser, "(self, data)"),
    "Request.parse_header": (parser.HTTPRequestParser, "(self, header_plus)"),
    "Request.close": (parser.HTTPRequestParser, "(self)"),
    "Task.get_environment": (task.WSGITask, "(self)"),
    "Task.service": (task.Task, "(self)"),
    "Task.build_response_header": (task.Task, "(self)"),
    "Rejection.execute": (task.ErrorTask, "(self)"),
    "Rejection.service": (task.Task, "(self)"),
    "Rejection.build_response_header": (task.Task, "(self)"),
    "Threads.add_task": (task.ThreadedTaskDispatcher, "(self, task)"),
    "Worker.__init__": (base.Worker, "(self, age, ppid, sockets, app, timeout, cfg, log)"),
    "Worker.run": (base.Worker, "(self)"),
}
OURS = (connections.Channel, requests.Request, requests.Task, requests.Rejection, worker.Worker)

CALLED = {
    "ErrorTask.write": (task.ErrorTask.write, "(self, data)"),
    "HTTPChannel.handle_close": (channel.HTTPChannel.handle_close, "(self)"),
    "HTTPChannel.writable": (channel.HTTPChannel.writable, "(self)"),
    "MultiProcessCollector": (multiprocess.MultiProcessCollector, "(registry, path=None)"),
    "MultiProcessValue": (values.MultiProcessValue, "(process_identifier=<built-in function getpid>)"),
    "ReceivedBody.__len__": (receiver.ChunkedReceiver.__len__, "(self)"),
    "TcpWSGIServer.add_task": (server.TcpWSGIServer.add_task, "(self, task)"),
    "TcpWSGIServer.handle_accept": (server.TcpWSGIServer.handle_accept, "(self)"),
    "TcpWSGIServer.pull_trigger": (server.TcpWSGIServer.pull_trigger, "(self)"),
    "UnixWSGIServer.handle_accept": (server.UnixWSGIServer.handle_accept, "(self)"),
    "Worker.handle_exit": (base.Worker.handle_exit, "(self, sig, frame)"),
    "Worker.notify": (base.Worker.notify, "(self)"),
    "Arbiter.handle_hup": (Arbiter.handle_hup, "(self)"),
    "Arbiter.handle_usr1": (Arbiter.handle_usr1, "(self)"),
    "Arbiter.kill_workers": (Arbiter.kill_workers, "(self, sig)"),
    "Arbiter.murder_workers": (Arbiter.murder_workers, "(self)"),
    "Arbiter.reap_workers": (Arbiter.reap_workers, "(self)"),
    "Arbiter.wait_for_signals": (Arbiter.wait_for_signals, "(self, timeout=1.0)"),
    "choose_encoder": (
        exposition.choose_encoder,
        "(accept_header: str) -> Tuple[Callable[[prometheus_client.registry.Collector], bytes], str]",
    ),
    "create_server": (
        server.create_server,
        "(application, map=None, _start=True, _sock=None, _dispatcher=None, **kw)",
    ),
    "dispatcher.close": (wasyncore.dispatcher.close, "(self)"),
    "dispatcher.handle_error": (wasyncore.dispatcher.handle_error, "(self)"),
    "dispatcher.handle_read_event": (wasyncore.dispatcher.handle_read_event, "(self)"),
    "disable_created_metrics": (prometheus_client.disable_created_metrics, "()"),
    "mark_process_dead": (multiprocess.mark_process_dead, "(pid, path=None)"),
    "trigger.close": (trigger.trigger.close, "(self)"),
    "wasyncore.read": (wasyncore.read, "(obj)"),
    "wasyncore.write": (wasyncore.write, "(obj)"),
}

# Settings of waitress, of which a wrong name raises at the start, and attributes, of which it may not.
ATTRIBUTES: Mapping[str, tuple[object, tuple[str, ...]]] = {
    "waitress's task": (task.ErrorTask, ("close_on_finish", "content_length", "status")),
    "waitress's parser": (
        parser.HTTPRequestParser,
        ("body_bytes_received", "body_rcv", "chunked", "completed", "content_length", "empty", "error")
        + ("expect_continue", "header_bytes_received", "header_plus", "headers_finished", "version"),
    ),
    "waitress's chunks": (receiver.ChunkedReceiver, ("control_line", "trailer")),
    "waitress's error": (utilities.BadRequest("text"), ("body", "code")),
    "waitress's server": (server.TcpWSGIServer, ("channel_class",)),
    "gunicorn's configuration": (
        Config(),
        ("backlog", "graceful_timeout", "is_ssl", "keepalive", "limit_request_fields", "limit_request_line")
        + ("threads", "worker_connections"),
    ),
    "gunicorn's master": (Arbiter, ("APP_LOAD_ERROR", "SIG_QUEUE", "WORKERS")),
    "gunicorn's worker": (base.Worker, ("SIGNALS",)),
    "prometheus_client": (values, ("ValueClass",)),
}


def foreign_overrides(own: type) -> set[str]:
    """List what a class of ours, or a base of ours, defines although a foreign base of it does too."""
    ours = [each for each in own.__mro__ if each.__module__.startswith("app.")]
    foreign = [each for each in own.__mro__ if each.__module__.partition(".")[0] in ("gunicorn", "waitress")]
    names = {name for each in ours for name, value in vars(each).items() if inspect.isfunction(value)}
    return {f"{own.__name__}.{name}" for name in names if any(name in vars(each) for each in foreign)}


def test_every_override_is_listed() -> None:
    found = set().union(*(foreign_overrides(own) for own in OURS))
    assert found | {"Threads.add_task"} == set(OVERRIDDEN)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_overridden_method_is_as_it_was_read(name: str) -> None:
    parent, signature = OVERRIDDEN[name]
    assert str(inspect.signature(vars(parent)[name.partition(".")[2]])) == signature


@pytest.mark.parametrize("name", CALLED)
def test_called_function_is_as_it_was_read(name: str) -> None:
    function: Callable[..., Any]
    function, signature = CALLED[name]
    assert str(inspect.signature(function)) == signature


@pytest.mark.parametrize("owner", ATTRIBUTES)
def test_used_attributes_are_there(owner: str) -> None:
    found, names = ATTRIBUTES[owner]
    if inspect.isclass(found):
        source = inspect.getsource(found)
        missing = [name for name in names if not hasattr(found, name) and f"self.{name}" not in source]
    else:
        missing = [name for name in names if not hasattr(found, name)]
    assert missing == []


def test_a_live_channel_has_what_is_used_of_it(run_worker: Callable[..., Running]) -> None:
    server = run_worker()
    with server.connect() as connection:
        connection.sendall(POST % (9, b""))
        wait_until(lambda: [each.wait for each in server.worker.connections.channels] == ["body"])
        (found,) = server.worker.connections.channels
        for name in ("addr", "connected", "request", "requests", "requests_lock", "server", "socket"):
            assert name in vars(found)
        assert isinstance(found.total_outbufs_len, int)
        assert isinstance(found.request.body_rcv.getbuf(), buffers.OverflowableBuffer)
        assert {"command", "path", "headers"} <= set(vars(found.request))
        assert found.server.task_dispatcher.add_task
        assert found.server.trigger.close
        assert found.server.socket.fileno() == server.worker.listeners[0].file


@pytest.mark.parametrize("package", ["gunicorn", "prometheus-client", "waitress"])
def test_minor_versions_that_were_not_read_are_excluded(package: str) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    (requirement,) = [each for each in project["project"]["dependencies"] if each.startswith(package)]
    found = re.fullmatch(r"[\w-]+>=(\d+)\.(\d+)\.\d+,<(\d+)\.(\d+)", requirement)
    assert found is not None
    assert (int(found[3]), int(found[4])) == (int(found[1]), int(found[2]) + 1)


def test_no_private_name_of_a_foreign_class_is_used() -> None:
    """In app/server a name that begins with one underscore is always our own."""
    for module in (connections, requests, worker):
        source = inspect.getsource(module)
        own = set(re.findall(r"self\.(_[a-z]\w*)\b[^\n]* = ", source)) | set(re.findall(r"def (_[a-z]\w*)\(", source))
        assert set(re.findall(r"\.(_[a-z]\w*)\b", source)) <= own

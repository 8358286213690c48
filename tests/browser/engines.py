"""Firefox and WebKitGTK as Debian ships them, driven by the commands of W3C WebDriver.

Playwright drives neither: it needs builds of its own. Firefox takes the commands over its Marionette protocol, JSON
with a length in front over TCP, and WebKitGTK through Debian's WebKitWebDriver, over HTTP.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
from server import free_port

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
WEBKIT_DRIVER = shutil.which("WebKitWebDriver")
MINI_BROWSER = next(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"), None)
XVFB = shutil.which("Xvfb")
STARTS_WITHIN_SECONDS = 90
ENTER, ESCAPE, TAB = "\ue007", "\ue00c", "\ue004"
# The name of an element's reference, from the standard.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.page": 0,
    "startup.homepage_welcome_url": "about:blank",
    "app.normandy.enabled": False,
    "messaging-system.rsexperimentloader.enabled": False,
    "services.settings.server": "",
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.disabledForTesting": True,
    "toolkit.startup.max_resumed_crashes": -1,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "intl.accept_languages": "en",
}


class Transport(Protocol):
    """Carries a command of WebDriver to a browser."""

    def send(self, command: str, method: str, path: str, parameters: dict[str, Any]) -> Any:
        """Return the value that answers a command, by its name or by its HTTP method and path."""

    def close(self) -> None:
        """Close the connection."""


class Marionette:
    """Firefox's own way to take commands."""

    def __init__(self, port: int) -> None:
        self._socket = _connect(port)
        self._file = self._socket.makefile("rwb")
        self._id = 0
        self._receive()  # the greeting
        self.send("NewSession", "", "", {"capabilities": {"alwaysMatch": {}}})

    def send(self, command: str, method: str, path: str, parameters: dict[str, Any]) -> Any:
        """Send `[0, id, name, parameters]`, and receive `[1, id, error, result]`."""
        self._id += 1
        message = json.dumps([0, self._id, f"WebDriver:{command}", parameters]).encode()
        self._file.write(b"%d:%s" % (len(message), message))
        self._file.flush()
        _, _, error, result = self._receive()
        if error:
            raise RuntimeError(f"{command}: {error['error']}: {error['message']}")
        return result["value"] if isinstance(result, dict) and "value" in result else result

    def close(self) -> None:
        """Close the connection, with which the session ends."""
        self._file.close()
        self._socket.close()

    def _receive(self) -> Any:
        length = b""
        while (character := self._file.read(1)) != b":":
            if not character:
                raise ConnectionError("Firefox has closed the connection.")
            length += character
        return json.loads(self._file.read(int(length)))


class HttpDriver:
    """A driver that takes commands over HTTP."""

    def __init__(self, port: int, capabilities: dict[str, Any]) -> None:
        _connect(port).close()
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        self._session = ""
        answer = self.send("NewSession", "POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/session/{answer['sessionId']}"

    def send(self, command: str, method: str, path: str, parameters: dict[str, Any]) -> Any:
        """Send a request for the session."""
        body = parameters if method == "POST" else None
        answer = self._client.request(method, self._session + path, json=body).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}: {answer.get('message')}")
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class Visitor:
    """A visitor in one of these browsers: what the tests do and see."""

    def __init__(self, name: str, transport: Transport, folder: Path) -> None:
        self.name = name
        self._transport = transport
        self._folder = folder

    def open(self, address: str) -> None:
        """Open a page and wait until it is loaded."""
        self._transport.send("Navigate", "POST", "/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page and return its value."""
        parameters = {"script": script, "args": list(arguments)}
        return self._transport.send("ExecuteScript", "POST", "/execute/sync", parameters)

    def wait_for(self, expression: str, value: object = True, seconds: float = 60) -> None:
        """Wait until an expression of JavaScript has a value; a new window has no document at first."""
        deadline = time.monotonic() + seconds
        script = f"return document.documentElement ? ({expression}) : null"
        while (found := self.run(script)) != value:
            assert time.monotonic() < deadline, f"{self.name}: {expression} is {found!r}, not {value!r}"
            time.sleep(0.1)

    def text(self, selector: str) -> str:
        """Read the text of an element."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def choose(self, **files: bytes) -> None:
        """Choose files, named by the keywords with `_` for the dot, through the page's file field."""
        paths = []
        for name, data in files.items():
            path = self._folder / ".".join(name.rsplit("_", 1))
            path.write_bytes(data)
            paths.append(str(path))
        self.type("#file", "\n".join(paths))

    def type(self, selector: str, text: str) -> None:
        """Type into an element, which gets the focus."""
        element = self._find(selector)
        self._transport.send("ElementSendKeys", "POST", f"/element/{element}/value", {"id": element, "text": text})

    def click(self, selector: str) -> None:
        """Scroll to an element and click on it."""
        self.run(
            "document.querySelector(arguments[0]).scrollIntoView({ behavior: 'instant', block: 'center' })", selector
        )
        element = self._find(selector)
        self._transport.send("ElementClick", "POST", f"/element/{element}/click", {"id": element})

    @contextmanager
    def popup(self, width: int, height: int) -> Iterator[None]:
        """Open the same page in a popup whose page has this size, and work there until the block ends.

        A usual window cannot be as narrow as a phone in either browser, because of its toolbar. A popup has none.
        """
        opener = self._transport.send("GetWindowHandle", "GET", "/window", {})
        features = f"popup,width={width},height={height}"
        self.run(
            "const features = arguments[0]; document.querySelector('h1')"
            ".addEventListener('click', () => open(location.href, '', features), { once: true })",
            features,
        )
        self.click("h1")  # without which the popup is blocked
        self._enter(self._other_window(opener))
        try:
            yield
        finally:
            self._transport.send("CloseWindow", "DELETE", "/window", {})
            self._enter(opener)

    def _other_window(self, known: str) -> str:
        deadline = time.monotonic() + 30
        while True:
            handles = self._transport.send("GetWindowHandles", "GET", "/window/handles", {})
            if others := [handle for handle in handles if handle != known]:
                return str(others[0])
            assert time.monotonic() < deadline, f"{self.name}: no popup was opened"
            time.sleep(0.1)

    def _enter(self, handle: str) -> None:
        self._transport.send("SwitchToWindow", "POST", "/window", {"handle": handle})

    def source(self) -> str:
        """Return the page's HTML as it is now."""
        return str(self._transport.send("GetPageSource", "GET", "/source", {}))

    def _find(self, selector: str) -> str:
        found = self._transport.send("FindElement", "POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])


@contextmanager
def firefox(folder: Path, *, has_script: bool = True) -> Iterator[Visitor]:
    """Start Firefox with a profile of its own, without a window."""
    port, profile = free_port(), folder / "profile"
    profile.mkdir()
    preferences = PREFERENCES | {"marionette.port": port, "javascript.enabled": has_script}
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [str(FIREFOX), "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    with _running(command, folder, MOZ_DISABLE_CONTENT_SANDBOX="1"), closing(Marionette(port)) as transport:
        yield Visitor("Firefox", transport, folder)


@contextmanager
def webkit(folder: Path, *, has_script: bool = True) -> Iterator[Visitor]:
    """Start WebKitGTK's MiniBrowser on a screen that nobody sees."""
    port, number = free_port(), os.getpid() % 10_000 + 100
    arguments = ["--automation"] + ([] if has_script else ["--enable-javascript-markup=FALSE"])
    capabilities = {"webkitgtk:browserOptions": {"binary": str(MINI_BROWSER), "args": arguments}}
    screen = [str(XVFB), f":{number}", "-screen", "0", "1400x1100x24", "-nolisten", "tcp"]
    driver = [str(WEBKIT_DRIVER), f"--port={port}"]
    with (
        _running(screen, folder),
        _running(
            driver,
            folder,
            DISPLAY=f":{number}",
            GDK_BACKEND="x11",
            LIBGL_ALWAYS_SOFTWARE="1",
            WEBKIT_DISABLE_COMPOSITING_MODE="1",
            WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS="1",  # it needs rights that a container does not have
            LANGUAGE="en",
        ),
        closing(HttpDriver(port, capabilities)) as transport,
    ):
        yield Visitor("WebKitGTK", transport, folder)


ENGINES: dict[str, Callable[..., Any]] = {"firefox": firefox, "webkit": webkit}


def is_installed(engine: str) -> bool:
    """Return whether all that an engine needs is on this machine."""
    return bool(FIREFOX) if engine == "firefox" else bool(WEBKIT_DRIVER and MINI_BROWSER and XVFB)


@contextmanager
def _running(command: list[str], folder: Path, **environment: str) -> Iterator[None]:
    """Run a program, with all that it starts, until the block ends."""
    inherited = {name: value for name, value in os.environ.items() if name != "WAYLAND_DISPLAY"}
    with (folder / "browser.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            env=inherited | {"HOME": str(folder)} | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _connect(port: int) -> socket.socket:
    """Connect to a program that is starting."""
    deadline = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=120)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)

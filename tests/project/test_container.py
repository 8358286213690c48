"""The container: what goes in, what its last stage promises, and a lock that follows pyproject.toml."""

from __future__ import annotations

import http.server
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pillow_heif
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
CUDA_LOCK = (ROOT / "requirements-cuda.txt").read_text(encoding="utf-8")
PIN = re.compile(r"^([a-z0-9-]+)==([^ ]+)(?: ; [^\\]+)? \\\n((?:    --hash=.*\n)*)", re.MULTILINE)
PINS = PIN.findall(LOCK)
IMAGE_PACKAGES = "/opt/topthree/venv/lib/python3.*/site-packages"
LOCKED_NAMES = {name for name, _, _ in PINS}

spec = importlib.util.spec_from_file_location("lock", ROOT / "scripts" / "lock.py")
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)


def read_stages() -> list[list[tuple[str, str]]]:
    """Read the Dockerfile: for what comes before the first FROM, then for each stage, its (keyword, rest) pairs."""
    lines = [line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    stages: list[list[tuple[str, str]]] = [[]]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).split("\n"):
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            stages.append([])
        if keyword:
            stages[-1].append((keyword, rest.strip()))
    return stages


STAGES = read_stages()
LAST = STAGES[-1]
LAST_SETTINGS = dict(LAST)


@pytest.mark.parametrize("name", sorted(DEPENDENCIES.keys() - (lock.BUILD_ONLY - lock.CUDA)))
def test_every_dependency_is_locked_within_pyproject_s_bounds(name: str) -> None:
    text = CUDA_LOCK if name in lock.CUDA else LOCK
    versions = [version for locked, version, _ in PIN.findall(text) if locked == name]
    assert versions, f"{name} is not locked; run make lock"
    assert [v for v in versions if not DEPENDENCIES[name].specifier.contains(Version(v))] == []


def test_build_only_packages_are_dependencies_but_not_locked() -> None:
    assert DEPENDENCIES.keys() >= lock.BUILD_ONLY
    assert LOCKED_NAMES.isdisjoint(lock.BUILD_ONLY | lock.UNWANTED)
    assert [name for name in LOCKED_NAMES if name.startswith(("torch", "nvidia", "triton", "cuda"))] == []


@pytest.mark.parametrize("text", [LOCK, CUDA_LOCK], ids=["serve", "cuda"])
def test_every_pin_has_hashes_and_no_host_is_named(text: str) -> None:
    pins = PIN.findall(text)
    assert len(pins) == text.count("==") - text.count("== '")
    assert [name for name, _, hashes in pins if "--hash=sha256:" not in hashes] == []
    assert "://" not in text


def test_both_locks_together_have_all_that_torch_needs() -> None:
    needed = [Requirement(each) for each in importlib.metadata.requires("torch") or ()]
    names = {canonicalize_name(each.name) for each in needed if "extra" not in str(each.marker)}
    cuda = {name for name, _, _ in PIN.findall(CUDA_LOCK)}
    assert names - cuda - LOCKED_NAMES == set()
    assert cuda & LOCKED_NAMES == set()


@pytest.mark.parametrize(("device", "status"), [("cpu", 0), ("cuda", 0), ("gpu", 1)])
def test_an_unknown_device_ends_the_build(device: str, status: int) -> None:
    step = next(rest for keyword, rest in STAGES[1] if keyword == "RUN" and rest.startswith("case"))
    done = subprocess.run(["sh", "-c", step], env={"DEVICE": device}, check=False, capture_output=True, text=True)
    assert done.returncode == status
    assert ("DEVICE is cpu or cuda" in done.stderr) == bool(status)


@pytest.mark.parametrize(
    ("device", "locks"),
    [("cpu", ["requirements-serve.txt"]), ("cuda", ["requirements-serve.txt", "requirements-cuda.txt"])],
)
def test_a_gpu_s_packages_are_installed_only_for_one(tmp_path: Path, device: str, locks: list[str]) -> None:
    (step,) = [rest for stage in STAGES for keyword, rest in stage if keyword == "RUN" and "--require-hashes" in rest]
    loop = step.partition("&& ")[2].replace("/tools/bin/pip", "echo")
    done = subprocess.run(["sh", "-c", loop], env={"DEVICE": device}, check=True, capture_output=True, text=True)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == locks


def test_the_build_sees_only_what_the_image_is_made_of() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    allowed = {line[1:] for line in lines if line[0] == "!"}
    needed = {"app", "templates", "static", "gunicorn.conf.py", "pyproject.toml", "requirements-serve.txt"}
    assert lines[0] == "*"
    assert allowed == needed | {"LICENSE", "README.md", "requirements-cuda.txt", "weights"}


def test_the_base_is_named_by_a_version_and_all_else_is_a_stage() -> None:
    bases = [stage[0][1].partition(" AS ")[0] for stage in STAGES[1:]]
    names = {stage[0][1].partition(" AS ")[2] for stage in STAGES[1:]}
    assert re.fullmatch(r"BASE=python:3\.1[1-9]-slim", dict(STAGES[0])["ARG"])
    assert [base for base in bases if base not in names | {"${BASE}"}] == []


def test_the_lock_is_installed_with_its_hashes() -> None:
    runs = [rest for stage in STAGES for keyword, rest in stage if keyword == "RUN"]
    installs = [rest for rest in runs if "install" in rest and '-r "$lock"' in rest]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]


def test_the_last_stage_installs_nothing() -> None:
    commands = [rest for keyword, rest in LAST if keyword == "RUN"]
    assert [command for command in commands if re.search(r"\bapt\b|\bpip\b.* install\b", command)] == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the image's build stage installs gcc")
def test_heic_is_read_without_the_encoder_that_its_library_needs(tmp_path: Path) -> None:
    step = next(rest for stage in STAGES for keyword, rest in stage if keyword == "RUN" and "libx265" in rest)
    packages = tmp_path / "packages"
    installed = Path(pillow_heif.__file__).parent.parent
    for path in installed.glob("*pillow_heif*"):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        packages.mkdir(exist_ok=True)
        copy(path, packages / path.name)
    subprocess.run(["sh", "-c", step.replace(IMAGE_PACKAGES, str(packages))], check=True)
    encoder = next((packages / "pillow_heif.libs").glob("libx265-*"))
    assert encoder.stat().st_size < 64 * 1024
    photo = Path(__file__).parent.parent / "data" / "drawn.heic"
    shown = {size_and_digest(photo, path) for path in ("", str(packages))}
    assert len(shown) == 1
    assert "(320, 240)" in shown.pop()


def size_and_digest(photo: Path, packages: str) -> str:
    """Decode a HEIC in a process that looks into the folder `packages` first."""
    code = (
        "import hashlib, sys, pillow_heif as p; photo = p.open_heif(sys.argv[1]); assert sys.argv[2] in p.__file__; "
    )
    code += "print(photo.size, hashlib.sha256(photo.data).hexdigest())"
    command = [sys.executable, "-c", code, str(photo), packages]
    environment = os.environ | {"PYTHONPATH": packages}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_service_runs_as_a_fixed_user_that_is_not_root() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", LAST_SETTINGS["USER"])


def test_gunicorn_itself_gets_the_signal_to_stop() -> None:
    assert json.loads(LAST_SETTINGS["CMD"])[0] == "gunicorn"
    assert LAST_SETTINGS["STOPSIGNAL"] == "SIGTERM"


def test_image_listens_to_all_and_substitutes_no_model_unasked() -> None:
    values = dict(re.findall(r"(\w+)=(\S*)", LAST_SETTINGS["ENV"].replace("${FALLBACK}", "none")))
    environment = {name: "" if "$" in value else value for name, value in values.items()}
    settings = Settings.from_environment(environment)
    assert (settings.host, settings.port, settings.fallback) == ("0.0.0.0", 8000, "none")
    fallbacks = {rest for stage in STAGES for keyword, rest in stage if keyword == "ARG" and rest[:8] == "FALLBACK"}
    assert fallbacks == {"FALLBACK=none"}


@pytest.fixture
def probed_port(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that answers /readyz with the given status, and all else with 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(request.param if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the output clean."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("probed_port", "healthy"), [(200, True), (503, False)], indirect=["probed_port"])
def test_the_health_check_tells_ready_from_not_ready(probed_port: int, healthy: bool) -> None:
    command = json.loads(LAST_SETTINGS["HEALTHCHECK"].partition(" CMD ")[2])
    environment = {"TOPTHREE_PORT": str(probed_port), "http_proxy": "http://127.0.0.1:1"}
    done = subprocess.run([sys.executable, *command[1:]], env=environment, check=False)
    assert (done.returncode == 0) is healthy


def test_the_image_check_says_in_one_sentence_that_it_needs_root(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    command = [ROOT / "scripts" / "image_check.sh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["image-check: it must run as root, to make a base image and run a container."]
    assert [path.name for path in tmp_path.iterdir()] == ["id"]

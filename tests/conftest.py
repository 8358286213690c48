"""What tests share: a clean environment, settings, an application with a fake engine, real photos and models."""

from __future__ import annotations

import os
import sys

# Numpy and torch read these when they are imported. Threads that wait for each other beside other tests spin: an
# eigendecomposition of 1,281 rows took 5 s of processor time with two of them, and 0.45 s with one.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# All processes that tests start take what one of them has compiled; else each compiles the whole service again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

import dataclasses
import functools
import io
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr
from pathlib import Path

import flask
import pytest
import skimage.data
from click.testing import CliRunner
from colour_graphs import save_graph
from fakes import be_patient, encode, fake_classifier
from filelock import FileLock
from flask.testing import FlaskClient
from PIL import Image
from references import TEST_WEIGHTS
from workers import Running, running

from app import create_app
from app.classifier import Classifier
from app.commands import cli
from app.commands.weights import make_ready
from app.processes.plan import available_cpus
from app.settings import Settings

# A shell has its background jobs ignore Ctrl-C, and these have the programs that they start ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are processors, since tests wait for servers, deadlines and disks."""
    return available_cpus() + 1


@pytest.fixture(autouse=True, scope="session")
def no_settings() -> Iterator[None]:
    """Remove all `TOPTHREE_` variables; those that tests need (`TOPTHREE_TEST_…`) were read at import."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("TOPTHREE_"):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True, scope="session")
def certificates_read_once() -> Iterator[None]:
    """Read the certificates of the system once: httpx reads them for each request, in ten times the request's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(autouse=True, scope="session")
def patience() -> None:
    """Let decoders start as slowly as they do on a busy machine."""
    be_patient()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point every cache to a folder of this test's own."""
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def make_settings() -> Callable[..., Settings]:
    """Make settings from the environment and some variables, written without their prefix in lower case."""

    def make(**values: object) -> Settings:
        return Settings.from_environment(os.environ | {f"TOPTHREE_{k.upper()}": str(v) for k, v in values.items()})

    return make


@pytest.fixture
def app(make_settings: Callable[..., Settings]) -> flask.Flask:
    """An application whose engine is fake: it answers with the colours of the photo."""
    return create_app(make_settings(), fake_classifier())


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory: pytest.TempPathFactory) -> flask.Flask:
    """An application like `app` for all tests of a module that only ask: to make one takes longer than most tests."""
    return create_app(
        Settings.from_environment({"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}), fake_classifier()
    )


@pytest.fixture
def client(request: pytest.FixtureRequest) -> FlaskClient:
    """A client, without cookies, of the test's own `app` if it has one, or of `shared_app`."""
    app: flask.Flask = request.getfixturevalue("app" if "app" in request.fixturenames else "shared_app")
    return app.test_client()


@pytest.fixture
def runner() -> CliRunner:
    """Runs the command line in this process."""
    return CliRunner()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def first_start(base: Path) -> str:
    """What was said when the packaged model was prepared, which one process does for all."""
    cache, said = base / "packaged-cache", base / "first-start"
    with FileLock(base / "first-start.lock"):
        if not said.exists():
            cache.mkdir()
            (cache / "fallback-in-use").write_text("A test asked for it.")
            settings = Settings.from_environment({"TOPTHREE_CACHE": str(cache), "XDG_CACHE_HOME": str(cache)})
            with redirect_stderr(io.StringIO()) as errors:
                make_ready(settings)
            said.write_text(errors.getvalue(), encoding="utf-8")
    return said.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def packaged_settings(base: Path, first_start: str) -> Settings:
    """Settings under which the packaged model serves, which is prepared."""
    cache = base / "packaged-cache"
    return Settings.from_environment({"TOPTHREE_CACHE": str(cache), "XDG_CACHE_HOME": str(cache)})


@pytest.fixture(scope="session")
def small_settings(base: Path) -> Settings:
    """Settings of a model file of four classes, which starts and answers sooner than the packaged model."""
    folder = base / "small"
    with FileLock(base / "small.lock"):
        if not folder.exists():
            folder.mkdir()
            save_graph(folder)
            (folder / "names.txt").write_text("red\ngreen\nblue\nother\n", encoding="utf-8")
    settings = Settings.from_environment({"TOPTHREE_CACHE": str(folder), "XDG_CACHE_HOME": str(folder)})
    return dataclasses.replace(settings, model=str(folder / "model.xml"), labels=folder / "names.txt")


@pytest.fixture(scope="session")
def packaged_classifier(packaged_settings: Settings) -> Classifier:
    """The real packaged model, loaded once."""
    classifier = Classifier.from_settings(packaged_settings)
    classifier.warm_up()
    return classifier


@pytest.fixture(scope="session")
def resnet18_settings(base: Path, packaged_settings: Settings) -> Settings:
    """Settings under which the real ResNet-18 serves, where its file is; it too is prepared once."""
    settings = dataclasses.replace(packaged_settings, weights=Path(str(TEST_WEIGHTS)), precision="fp32")
    with FileLock(base / "resnet18.lock"):
        done = CliRunner().invoke(cli, ["prepare", "--quiet"], env=settings.as_environment(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return settings


@pytest.fixture(scope="session")
def real_photos() -> dict[str, bytes]:
    """Real CC0 photos that scikit-image ships, as JPEG, by what they show."""
    images = {"cat": skimage.data.chelsea, "coffee": skimage.data.coffee, "rocket": skimage.data.rocket}
    return {name: encode(Image.fromarray(load()), "JPEG", quality=95) for name, load in images.items()}


@pytest.fixture
def run_worker(make_settings: Callable[..., Settings]) -> Iterator[Callable[..., Running]]:
    """Run workers until the test ends; `configuration` is gunicorn's, the rest are our settings."""
    with ExitStack() as stack:

        def start(configuration: dict[str, object] | None = None, **settings: object) -> Running:
            return stack.enter_context(running(make_settings(**settings), configuration or {}))

        yield start

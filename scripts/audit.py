"""Compare requirements-serve.txt with the public advisories, by pip-audit and the OSV service.

`make audit` runs this before a release. The exit status is 0 if there is no advisory, 1 if there is one, and 2 if
nothing could be compared; one sentence on standard error then gives the reason. Pins for all versions of Python are
compared. OSV knows little about the libraries inside wheels: CONTRIBUTING.md lists where to read about them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-serve.txt"
NONE_KNOWN, FOUND, NOT_COMPARED = 0, 1, 2


class NotComparedError(Exception):
    """pip-audit could not do its work; the message is one sentence."""


def split_pins(lock: str) -> list[str]:
    """Return the pins of a lock with their hashes but without their markers, in files that name each package once."""
    files: list[dict[str, str]] = []
    for name, version, hashes in re.findall(
        r"^([a-z0-9.-]+)==([^ ]+)(?: ; [^\\]+)? \\\n((?:    --hash=.*\n)*)", lock, re.MULTILINE
    ):
        place = next((pins for pins in files if name not in pins), None)
        if place is None:
            files.append(place := {})
        place[name] = f"{name}=={version} \\\n{hashes}"
    return ["".join(pins.values()) for pins in files]


def audit(pins: str, url: str | None) -> list[str]:
    """Return one line for each advisory about one of the pins; raises NotComparedError if OSV does not answer."""
    with tempfile.TemporaryDirectory() as work:
        requirements, found = Path(work) / "pins.txt", Path(work) / "found.json"
        requirements.write_text(pins, encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--require-hashes"]
        command += ["--disable-pip", "--strict", "--vulnerability-service", "osv", "--progress-spinner", "off"]
        command += ["--format", "json", "--output", found, *(["--osv-url", url] if url else [])]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if found.exists():
            return list_advisories(json.loads(found.read_text(encoding="utf-8")))
        if done.returncode == 0:
            return []
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise NotComparedError(f"{url or 'the advisory service'} gave no usable answer ({reason.partition(': ')[0]}).")


def list_advisories(report: dict[str, list[dict[str, object]]]) -> list[str]:
    """Write pip-audit's report as one line for each advisory: the pin, its names, and the versions without it."""
    return [
        f"{package['name']} {package['version']}: {' '.join([advisory['id'], *advisory['aliases']])}, "
        f"fixed in {' or '.join(advisory['fix_versions']) or 'no version yet'}"
        for package in report["dependencies"]
        for advisory in package["vulns"]
    ]


def main(arguments: list[str]) -> int:
    """Print the advisories about the lock, and return whether there are any."""
    parser = argparse.ArgumentParser(description="Compare requirements-serve.txt with the public advisories.")
    parser.add_argument("--url", help="address of the OSV service's query, instead of the public one")
    parser.add_argument("--lock", type=Path, default=LOCK, help="another lock in the same form")
    options = parser.parse_args(arguments)
    files = split_pins(options.lock.read_text(encoding="utf-8"))
    count = sum(pins.count("==") for pins in files)
    if not count:
        parser.error(f"{options.lock} holds no pins with hashes")
    try:
        lines = [line for pins in files for line in audit(pins, options.url)]
    except NotComparedError as error:
        sys.stderr.write(f"{options.lock.name} was not compared with the advisories: {error}\n")
        return NOT_COMPARED
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.write(f"Pins compared with the advisories: {count}. Advisories known: {len(lines)}.\n")
    return FOUND if lines else NONE_KNOWN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Compare this checkout with another one under the same load, in turns, on the same machine.

usage: python scripts/compare_versions.py OTHER PHOTOS [--seconds 3] [--rounds 5]

OTHER is a checkout with its own `.venv`, such as one of the commit before. Both services run at the same time and take
turns, round by round, first with one client and then with eight, so that a drift of the machine's speed affects both
alike; ratios of this one to the other are medians over the rounds. Processor time is that of all processes of a
service. TOPTHREE_* variables hold for both; the result cache is off.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from service_watch import members, processor_seconds

from app.measuring.load import Load, closed_loop, http_sender
from app.measuring.own_server import free_port, process_memory_mb

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (1, 8)
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Turn:
    """The measurements of one service in one turn."""

    load: Load
    processor_ms: float


@dataclass(frozen=True)
class Service:
    """A running checkout: its address, and its session."""

    url: str
    session: int

    def take_turn(self, photos: list[bytes], clients: int, seconds: float) -> Turn:
        """Keep some photos in flight, and measure."""
        before = processor_seconds(self.session)
        load = closed_loop(http_sender(self.url), photos, clients=clients, seconds=seconds)
        used = processor_seconds(self.session) - before
        return Turn(load, 1000 * used / (load.throughput * seconds))

    def memory_mb(self) -> float:
        """Return the sum of the proportional set sizes of all its processes."""
        return sum(process_memory_mb(pid) for pid in members(self.session))


@contextmanager
def serving(checkout: Path) -> Iterator[Service]:
    """Run a checkout's service until the end of the block."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = os.environ | {"TOPTHREE_PORT": str(port), "TOPTHREE_RESULT_CACHE_BYTES": "0"}
    command = [str(checkout / ".venv/bin/topthree"), "serve"]
    process = subprocess.Popen(
        command, cwd=checkout, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_until_ready(url, process)
        yield Service(url, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(httpx.TransportError):  # not listening yet
            if httpx.get(f"{url}/readyz").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise SystemExit(f"{process.args} did not become ready.")


def report(turns: dict[tuple[str, int], list[Turn]]) -> None:
    """Print medians, and the ratios of each round's turns."""
    for (name, clients), found in turns.items():
        throughput = statistics.median(turn.load.throughput for turn in found)
        p50 = statistics.median(turn.load.p50 for turn in found)
        used = statistics.median(turn.processor_ms for turn in found)
        errors = sum(turn.load.errors for turn in found)
        print(
            f"{name:6} {clients} client(s): {throughput:6.1f} photos/s, p50 {p50:6.1f} ms, {errors} errors,", end=" "
        )
        print(f"{used:.1f} ms of processor time a photo")
    for clients in CLIENTS:
        pairs = list(zip(turns["this", clients], turns["other", clients], strict=True))
        faster = statistics.median(this.load.throughput / other.load.throughput for this, other in pairs)
        later = statistics.median(this.load.p50 - other.load.p50 for this, other in pairs)
        dearer = statistics.median(this.processor_ms - other.processor_ms for this, other in pairs)
        print(
            f"{clients} client(s): throughput x{faster:.3f}, p50 {later:+.2f} ms, processor {dearer:+.2f} ms a photo"
        )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    photos = [path.read_bytes() for path in sorted(options.photos.glob("*.jpg"))]
    turns: dict[tuple[str, int], list[Turn]] = {}
    with ExitStack() as stack:
        checkouts = {"this": ROOT, "other": options.other.absolute()}
        services = {name: stack.enter_context(serving(checkout)) for name, checkout in checkouts.items()}
        for service in services.values():
            service.take_turn(photos, clients=4, seconds=1)
        for _ in range(options.rounds):
            for clients in CLIENTS:
                for name, service in services.items():
                    turn = service.take_turn(photos, clients, options.seconds)
                    turns.setdefault((name, clients), []).append(turn)
        report(turns)
        for name, service in services.items():
            print(f"{name:6} {service.memory_mb():.0f} MB in {len(members(service.session))} processes")


if __name__ == "__main__":
    main()

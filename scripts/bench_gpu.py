"""The measurements of bench_gpu.sh: the engine alone, then the service, each in several configurations.

The service is started as `topthree serve` starts it, without the result cache. Photos go to it as raw bodies. For each
configuration there are 1, 256 and 512 clients, and a ladder of which one comes nearest to half of the best throughput.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from app.measuring.load import Load, closed_loop, http_sender
from app.measuring.own_server import OwnServer, own_server
from app.settings import Settings

CONFIGURATIONS = ("bf16", "bf16-gpu", "fp32-gpu", "fp16-gpu")
ENGINES = ("fp32", "tf32", "bf16", "fp16")
BATCHES = (1, 8, 32, 64)
SMALL_LOADS = (8, 16, 32, 64)
LOAD_PROCESSES = 4
# wrk's script: the photos of a folder in rotation, as raw bodies. Each has a comment of its own, since one computation
# answers all requests that ask for the same bytes at once. At its end the script writes a line, which `_wrk` reads.
LUA = """
local bodies = {}
for name in io.popen('ls "' .. os.getenv("PHOTOS") .. '"/*.jpg'):lines() do
  local file = io.open(name, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
local next_body, number
function init()
  math.randomseed(os.time() * 1000 + tonumber(tostring({}):match("0x(%x+)"), 16) % 1000)
  next_body, number = math.random(#bodies), math.random(99999999)
end
function request()
  next_body, number = next_body % #bodies + 1, number + 1
  local body = bodies[next_body]
  local comment = string.format("\\255\\254\\0\\14%012d", number)
  return wrk.format("POST", nil, {["Content-Type"] = "image/jpeg"}, body:sub(1, 2) .. comment .. body:sub(3))
end
function response(status, headers)
  if status ~= 200 and (status ~= 503 or not headers["Retry-After"]) then strange = (strange or 0) + 1 end
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("FOUND %d %d %d %d %.3f %.3f %.3f\\n", summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""


@dataclass(frozen=True)
class Found:
    """One load: answered photos a second, latencies in milliseconds, refusals and other errors."""

    clients: int
    rate: float
    p50: float
    p99: float
    refused: int
    errors: int


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("configurations", nargs="*", default=CONFIGURATIONS)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--skip-engine", action="store_true")
    parser.add_argument("--engine", help="Measure only the engine, in this precision.")
    options = parser.parse_args()
    if options.engine:
        run_engine(options.engine)
        return
    if not options.skip_engine:
        for precision in ENGINES:  # each in a process of its own, as the service has it
            subprocess.run([sys.executable, __file__, str(options.folder), "--engine", precision], check=False)
    for name in options.configurations:
        measure_service(name, options.folder, options.seconds)


def run_engine(precision: str) -> None:
    """Print how many photos the engine computes in a second, copies included, by batch."""
    from app.model.backbones import find_weights_to_load
    from app.model.engines.torch_engine import TorchEngine
    from app.model.labels import load_labels

    settings = Settings.from_environment(os.environ)
    started = time.monotonic()
    labels = load_labels(settings.labels)
    engine = TorchEngine(
        find_weights_to_load(settings), classes=len(labels), precision=precision, cpus=os.cpu_count() or 1
    )
    line = [f"engine {precision:5s} on {engine.device_name}, ready after {time.monotonic() - started:.1f} s:"]
    engine.stage[:] = np.random.default_rng(0).integers(0, 256, engine.stage.shape, dtype=np.uint8)
    for batch in BATCHES:
        begin, runs = time.monotonic(), 0
        while time.monotonic() - begin < 1.0:
            engine.run(batch)
            runs += 1
        seconds = (time.monotonic() - begin) / runs
        line.append(f"batch {batch} {batch / seconds:.0f}/s {1000 * seconds:.2f} ms;")
    print(*line, flush=True)


def measure_service(name: str, folder: Path, seconds: float) -> None:
    """Start the service in one configuration, and print a table of its loads."""
    precision, _, decode = name.partition("-")
    settings = Settings.from_environment(os.environ)
    changes: dict[str, object] = {"precision": precision, "result_cache_bytes": 0}
    if decode:
        changes["decode"] = decode
    photos = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    print(f"\n{name}: {len(photos)} photos of {sum(map(len, photos)) / len(photos) / 1000:.0f} KB", flush=True)
    with own_server(dataclasses.replace(settings, **changes)) as server:
        print(f"  ready after {server.wait_until_ready():.1f} s", flush=True)
        _one_photo(server, photos[0])
        _load(server, folder, photos, 64, 3.0)  # a warm-up
        found = [_load(server, folder, photos, clients, seconds) for clients in (1, *SMALL_LOADS, 256, 512)]
        for each in found:
            print(
                f"  {each.clients:4d} clients: {each.rate:7.0f} photos/s, p50 {each.p50:6.1f} ms, "
                f"p99 {each.p99:6.1f} ms, 503 {each.refused}, other errors {each.errors}"
            )
        best = max(each.rate for each in found)
        half = min(found, key=lambda each: abs(each.rate - best / 2))
        print(f"  best {best:.0f}; near half of it, {half.rate:.0f} at {half.clients} clients: p99 {half.p99:.1f} ms")
        print(f"  512 clients: {found[-1].rate / best:.0%} of the best")
        print(f"  GPU memory: {_gpu_memory()}; all processes: {server.memory_mb():.0f} MB (PSS)", flush=True)
        _print_warnings(server)


def _one_photo(server: OwnServer, photo: bytes) -> None:
    """Print the stages of a photo that comes alone, the first and the fifth time."""
    with httpx.Client() as client:
        for number in range(5):
            answer = client.post(f"{server.url}/api/v1/predict", content=photo, headers={"Content-Type": "image/jpeg"})
            if number in (0, 4):
                print("  alone:", answer.status_code, answer.headers.get("Server-Timing"), flush=True)
    print("  model:", httpx.get(f"{server.url}/api/v1/model").json()["precision"], flush=True)


def _load(server: OwnServer, folder: Path, photos: list[bytes], clients: int, seconds: float) -> Found:
    if shutil.which("wrk"):
        return _wrk(server.url, folder, clients, seconds)
    shares = [clients // LOAD_PROCESSES + (place < clients % LOAD_PROCESSES) for place in range(LOAD_PROCESSES)]
    with ProcessPoolExecutor(LOAD_PROCESSES) as pool:
        work = [pool.submit(_closed_loop, server.url, photos, share, seconds) for share in shares if share]
        loads = [each.result() for each in work]
    middle = sorted(loads, key=lambda each: each.p50)[len(loads) // 2]
    errors = sum(each.errors for each in loads)
    worst = max(each.p99 for each in loads)
    return Found(clients, sum(each.throughput for each in loads), middle.p50, worst, errors, 0)


def _closed_loop(url: str, photos: list[bytes], clients: int, seconds: float) -> Load:
    numbers = random.sample(range(10**9), 10)
    marked = [photo[:2] + b"\xff\xfe\0\x0e%012d" % number + photo[2:] for number in numbers for photo in photos]
    return closed_loop(http_sender(url), marked, clients=clients, seconds=seconds)


def _wrk(url: str, folder: Path, clients: int, seconds: float) -> Found:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(LUA)
        script.flush()
        threads = min(clients, LOAD_PROCESSES)
        command = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", script.name]
        done = subprocess.run(
            [*command, f"{url}/api/v1/predict"],
            env=os.environ | {"PHOTOS": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        )
    line = re.search(r"^FOUND (.*)$", done.stdout, re.MULTILINE)
    if line is None:
        raise SystemExit(f"wrk said: {done.stdout} {done.stderr}")
    requests, micros, status, other, p50, p99, _ = map(float, line[1].split())
    rate = (requests - status) / (micros / 1e6)
    return Found(clients, rate, p50, p99, int(status), int(other))


def _gpu_memory() -> str:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no GPU"


def _print_warnings(server: OwnServer) -> None:
    for line in _first([line for line in server.log.splitlines() if not re.search(r"\bINFO\b", line)], 8):
        print("  log:", line[:300], flush=True)


def _first(lines: Sequence[str], count: int) -> Iterator[str]:
    yield from lines[:count]


if __name__ == "__main__":
    main()

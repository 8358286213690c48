"""Measure `topthree batch`: pace, kills, memory and broken files. docs/bench/batch.txt holds what it printed.

    python scripts/bench_batch.py pace PHOTOS INT8.tar             # batch, and the same engine and decoders in a loop
    python scripts/bench_batch.py curl PHOTOS INT8.tar             # batch, and one curl after another
    python scripts/bench_batch.py torch PHOTOS FP32.tar FILE.pth   # batch, and torch with a DataLoader of 2 workers
    python scripts/bench_batch.py kills PHOTOS INT8.tar --photos 100000
    python scripts/bench_batch.py memory PHOTOS INT8.tar
    python scripts/bench_batch.py broken PHOTOS INT8.tar --broken FOLDER

What is compared takes turns in one run, since other work on the machine slows both. PHOTOS is a folder; its photos are
linked under as many names as are needed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import pty
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from pyarrow.parquet import read_metadata

from app.batch.answering import Options
from app.batch.entries import Entry, entry_of
from app.batch.parts import Parts
from app.batch.rows import ERROR, PATH, Columns
from app.batch.runs import read_run
from app.batch.start import begin
from app.batch.tables import PARQUET, read_table
from app.classifier import Classifier
from app.measuring.own_server import own_server
from app.photos.folders import MAX_FILE_BYTES, has_photo_name, list_photos
from app.settings import Settings

KILLS = 10
# As long as one shard takes on a busy machine, so that a kill may come anywhere in it.
MAX_MORE_SECONDS = 10.0
_BAR = re.compile(rb"(\d+)/(\d+)")


def link(photos: list[Path], folder: Path, count: int) -> None:
    """Link photos in turn under `count` names."""
    folder.mkdir(parents=True)
    for number, photo in zip(range(count), itertools.cycle(photos), strict=False):
        (folder / f"{number:07}{photo.suffix}").symlink_to(photo.resolve())


def settings_of(bundle: Path, **values: object) -> Settings:
    """Return the settings that serve a bundle."""
    variables = {f"TOPTHREE_{name.upper()}": str(value) for name, value in values.items()}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOPTHREE_")}
    return Settings.from_environment(kept | {"TOPTHREE_BUNDLE": str(bundle)} | variables)


def run_job(classifier: Classifier, folder: Path, output: Path) -> float:
    """Run a batch in this process; return its photos per second, listing and writing included."""
    output.mkdir()
    models = classifier.find_models(())
    options = Options(Columns(3, tuple(model.name for model in models), embeddings=False), 64_000_000)
    start = time.monotonic()
    job, entries = begin(classifier, models, [str(folder)], output, options, format_=PARQUET, shards=None)
    progress = job.run(entries)
    return progress.computed / (time.monotonic() - start)


def run_loop(classifier: Classifier, photos: list[bytes], count: int) -> float:
    """Classify photos that are in memory in as many threads as a batch has; return the photos per second."""
    threads = classifier.max_parallel + classifier.slots.count
    start = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        work = (photos[number % len(photos)] for number in range(count))
        for _ in pool.map(lambda photo: classifier.classify(photo, max_pixels=64_000_000), work):
            pass
    return count / (time.monotonic() - start)


def run_curl(url: str, photos: list[Path], count: int) -> float:
    """Send photos by one curl after another; return the photos per second."""
    start = time.monotonic()
    for photo in itertools.islice(itertools.cycle(photos), count):
        command = ["curl", "-sS", "--fail-with-body", "-o", os.devnull, "-F", f"file=@{photo}", url]
        subprocess.run(command, check=True)
    return count / (time.monotonic() - start)


def torch_runner(weights: Path, folder: Path) -> Callable[[], float]:
    """Return a function that does what PyTorch's tutorials show, and returns the photos per second."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms
    from torchvision.models import resnet18

    model = resnet18()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    prepare = transforms.Compose(steps)
    paths = sorted(folder.iterdir())

    class Photos(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return len(paths)

        def __getitem__(self, place: int) -> torch.Tensor:
            return prepare(Image.open(paths[place]).convert("RGB"))

    def run() -> float:
        start = time.monotonic()
        with torch.inference_mode():
            for batch in DataLoader(Photos(), batch_size=32, num_workers=2):
                model(batch).softmax(1).topk(3)
        return len(paths) / (time.monotonic() - start)

    return run


def compare(names: tuple[str, str], runs: tuple[Callable[[], float], Callable[[], float]], rounds: int) -> None:
    """Let two programs take turns; print each pace and the median of the ratios."""
    ratios = []
    for number in range(rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        paces = {place: runs[place]() for place in order}
        ratios.append(paces[0] / paces[1])
        print(
            f"{names[0]} {paces[0]:7.1f} photos/s   {names[1]} {paces[1]:7.1f} photos/s   {ratios[-1]:.3f}", flush=True
        )
    print(f"median {statistics.median(ratios):.3f}, of {rounds} rounds", flush=True)


def compare_paces(options: argparse.Namespace, work: Path) -> None:
    """Compare a batch with a loop, with curl, or with torch."""
    photos = [Path(path) for path in list_photos([str(options.folder)])]
    link(photos, work / "photos", options.photos)
    outputs = (work / f"out-{number}" for number in itertools.count())
    settings = settings_of(options.bundle, result_cache_bytes=0)  # or the service would compute each photo once only
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        classifier.warm_up()

        def batch() -> float:
            return run_job(classifier, work / "photos", next(outputs))

        if options.what == "pace":
            content = [photo.read_bytes() for photo in photos]
            other: Callable[[], float] = lambda: run_loop(classifier, content, options.photos)  # noqa: E731
            compare(("batch", "loop"), (batch, other), options.rounds)
        elif options.what == "torch":
            compare(("batch", "torch"), (batch, torch_runner(options.weights, work / "photos")), options.rounds)
        else:
            with own_server(settings) as server:
                server.wait_for_answer(photos[0].read_bytes())
                url = f"{server.url}/api/v1/predict"
                compare(
                    ("batch", "curl"),
                    (batch, lambda: run_curl(url, photos, max(30, options.photos // 10))),
                    options.rounds,
                )


def command_of(options: argparse.Namespace, work: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command of a batch of `work/photos`, and its environment, in which a bar is wide enough."""
    command = [sys.executable, "-m", "app", "batch", str(work / "photos"), "--output", str(work / "out")]
    return command, os.environ | {"TOPTHREE_BUNDLE": str(options.bundle), "TERM": "xterm", "COLUMNS": "160"}


def rows_of(output: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of all parts; a part that is torn raises BatchError."""
    run = read_run(output)
    for part in Parts(output, run).all() if run else ():
        yield from read_table(part, run.format, (PATH, ERROR), run.digest)


def run_until_killed(command: list[str], variables: dict[str, str], output: Path, wanted: int) -> int:
    """Kill a batch at random, once this number of rows is in its parts; return the photos that its bar has as done."""
    controller, terminal = pty.openpty()
    seen = bytearray()

    def read() -> None:
        with suppress(OSError):  # at the end of the terminal
            while data := os.read(controller, 2**16):
                seen[:] = seen[-1000:] + data

    reader = threading.Thread(target=read)
    with subprocess.Popen(command, env=variables, stderr=terminal) as job:
        os.close(terminal)
        reader.start()
        while job.poll() is None and count_rows(output) < wanted:
            time.sleep(0.5)
        time.sleep(random.uniform(0, MAX_MORE_SECONDS))
        job.kill()
    reader.join()
    os.close(controller)
    return max((int(done) for done, _ in _BAR.findall(seen)), default=0)


def kill_often(options: argparse.Namespace, work: Path) -> None:
    """Kill a batch at random times, go on each time, and count paths and repeated photos at the end."""
    photos = [Path(path) for path in list_photos([str(options.folder)])]
    link(photos, work / "photos", options.photos)
    command, variables = command_of(options, work)
    random.seed(options.seed)
    output = work / "out"
    moments = sorted(random.sample(range(options.photos), KILLS))
    for number, wanted in enumerate(moments, 1):
        before = count_rows(output)
        shown = run_until_killed(command, variables, output, wanted)
        after = sum(1 for _ in rows_of(output))
        lost = f"{max(0, shown - after)} more were done"
        print(f"kill {number}: {after:,} rows in whole parts, {after - before:,} of them new; {lost}", flush=True)
    done = subprocess.run(command, env=variables, stderr=subprocess.PIPE, text=True, check=False)
    paths = Counter(str(row[PATH]) for row in rows_of(output))
    wanted_paths = {str(path) for path in (work / "photos").iterdir()}
    leftovers = [path.name for path in output.iterdir() if path.name.startswith(".part")]
    print(done.stderr.splitlines()[-1], f"exit status {done.returncode}")
    print(f"{len(paths):,} paths of {len(wanted_paths):,}, each {set(paths.values())} times, left over: {leftovers}")
    run = read_run(output)
    assert run is not None
    print(f"{run.shards} shards of about {options.photos // run.shards} photos; a kill costs at most those begun")
    assert set(paths) == wanted_paths
    assert set(paths.values()) == {1}
    assert not leftovers


def count_rows(output: Path) -> int:
    """Count the rows of all parts, by their ends alone."""
    return sum(read_metadata(part).num_rows for part in output.glob("part-*"))


def measure_memory(options: argparse.Namespace, work: Path) -> None:
    """Print the memory of processes that list and plan 10,000 and 1,000,000 names, and compute none."""
    for names in (10_000, 1_000_000):
        command = [sys.executable, __file__, "plan", str(options.folder), str(options.bundle), "--photos", str(names)]
        subprocess.run(command, check=True)


class NoAnswers:
    """Take all photos that are planned, and give no rows."""

    count = 0

    def rows(self, items: Iterable[tuple[object, Entry]], *, from_store: bool) -> Iterator[tuple[object, dict]]:
        """Count the photos."""
        self.count += sum(1 for _ in items)
        yield from ()


def plan(options: argparse.Namespace, work: Path) -> None:
    """List and plan this number of names, with the model loaded, and print this process's largest memory."""
    settings = settings_of(options.bundle)
    with closing(Classifier.from_settings(settings, max_bytes=MAX_FILE_BYTES)) as classifier:
        models = classifier.find_models(())
        columns = Columns(3, tuple(model.name for model in models), embeddings=False)
        answers = NoAnswers()
        job, _ = begin(
            classifier,
            models,
            [str(options.folder)],
            work,
            Options(columns, 64_000_000),
            format_=PARQUET,
            shards=512,
            answers=answers,
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.monotonic()
        job.run(entry_of(f"photos/of/a/folder/with/a/long/name/{number:09}.jpg") for number in range(options.photos))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.monotonic() - start
    print(f"{answers.count:,} names: {before:.0f} MB before, {after:.0f} MB at most, {seconds:.1f} s", flush=True)


def mix_broken(options: argparse.Namespace, work: Path) -> None:
    """Let batches of good photos, and of good ones with broken files among them, 1% or each once, take turns."""
    photos = [Path(path) for path in list_photos([str(options.folder)])]
    broken = [path for path in sorted(options.broken.rglob("*")) if has_photo_name(path.name)]
    link(photos, work / "good", options.photos)
    link(photos, work / "mixed", options.photos)
    for number in range(max(len(broken), options.photos // 100)):
        bad = broken[number % len(broken)].resolve()
        (work / "mixed" / f"bad-{number:04}{bad.suffix}").symlink_to(bad)
    with closing(Classifier.from_settings(settings_of(options.bundle), max_bytes=MAX_FILE_BYTES)) as classifier:
        classifier.warm_up()
        outputs = (work / f"out-{number}" for number in itertools.count())

        def run(folder: str) -> float:
            output = next(outputs)
            pace = run_job(classifier, work / folder, output)
            rows = list(rows_of(output))
            slugs = Counter(str(row[ERROR]) for row in rows if row[ERROR])
            count = len(list((work / folder).iterdir()))
            print(f"{folder}: {len(rows)} rows of {count} files, failed: {dict(slugs)}", flush=True)
            return pace

        compare(("mixed", "good"), (lambda: run("mixed"), lambda: run("good")), options.rounds)


ACTIONS = {
    "pace": compare_paces,
    "curl": compare_paces,
    "torch": compare_paces,
    "kills": kill_often,
    "memory": measure_memory,
    "plan": plan,
    "broken": mix_broken,
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=ACTIONS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("weights", type=Path, nargs="?")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--broken", type=Path)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="An empty folder to work in, which is kept.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        ACTIONS[options.what](options, options.keep or Path(work))


if __name__ == "__main__":
    main()

"""The command `topthree`. Each command imports its job when it is called, so that all start at once."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import TopthreeError
from ..settings import ROOT, SETTINGS, Settings, SettingsError
from ..version import __version__
from .key_commands import keys

Number = TypeVar("Number", int, float)

INTERRUPTED = 130  # what a shell expects after Ctrl-C: 128 and the number of SIGINT


def _settings_help() -> str:
    rows = "\n".join(f"  {row.variable} [{row.default or 'not set'}]: {row.help}" for row in SETTINGS)
    return f"\b\nSettings are environment variables:\n{rows}"


class _Group(click.Group):
    """Turn our own failures into one sentence and a status, never a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A file name that is no UTF-8 is shown with escapes; in JSON they are the valid ones.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None
        except SettingsError as error:
            raise click.UsageError(str(error)) from error
        except TopthreeError as error:
            click.ClickException(str(error)).show()
            raise SystemExit(error.exit_status) from error
        finally:
            # Where nobody reads any more, click ends quietly here; at the interpreter's end it would be loud.
            sys.stdout.flush()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="topthree")
def main() -> None:
    """Tell what is on a photo: the three most likely of ImageNet's 1000 classes."""


@main.command(epilog=_settings_help())
def serve() -> None:
    """Serve the page and the API with gunicorn, fetching the weights first where there are none."""
    settings = _read_settings()
    _require_free_ports(settings)
    from .weights import announce, make_ready

    announce(make_ready(settings))
    click.echo(f"Serving http://{settings.host}:{settings.port} (Ctrl-C stops)", err=True)
    environment = os.environ | settings.as_environment()
    gunicorn = Path(sys.executable).with_name("gunicorn")
    # From our own folder, where the package is: another project's `app` in the current one would shadow it.
    os.chdir(ROOT)
    os.execve(gunicorn, [str(gunicorn), "--config", str(ROOT / "gunicorn.conf.py")], environment)


@main.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE… | FOLDER | -")
@click.option("--top", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many answers a photo.")
@click.option("--json", "form", flag_value="json", help="One JSON document.")
@click.option("--ndjson", "form", flag_value="ndjson", help="One JSON line a photo, each as soon as it is ready.")
@click.option("--csv", "form", flag_value="csv", help="CSV, one line an answer.")
@click.option("--table", "form", flag_value="table", default="table", help="A table (the default).")
def predict(sources: tuple[str, ...], top: int, form: str) -> None:
    """Classify files, all photos below a folder, or standard input (-).

    A file that cannot be read is reported in its place, the rest go on, and the status is 1 at the end.
    """
    from .predict import run

    if not run(_read_settings(), sources, top=top, form=form):
        raise SystemExit(1)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a report.")
def evaluate(folder: Path, as_json: bool) -> None:
    """Measure accuracy on labelled photos.

    FOLDER holds one folder for each class, named by its WordNet id or English name, or files whose names begin
    with the WordNet id. A photo that cannot be read is listed and left out, and the status is 1 at the end.
    """
    from .evaluate import run

    if not run(_read_settings(), folder, as_json=as_json):
        raise SystemExit(1)


@main.command()
@click.option("--fetch", is_flag=True, help="Download the ResNet-18 weights; they replace a fallback in use.")
def weights(fetch: bool) -> None:
    """Show which weights would serve, and why; touches the network only with --fetch."""
    from .weights import fetch_with_progress, report

    settings = _read_settings()
    if fetch:
        fetch_with_progress(settings)
    if not report(settings):
        raise SystemExit(1)


@main.command()
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True, help="What to prepare."
)
@click.option(
    "--calibrate",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photos to quantise to int8 with: half calibrate, the others judge.",
)
@click.option(
    "--max-drop", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Most points of top-1 lost."
)
@click.option("--rebuild", is_flag=True, help="Prepare again what is prepared already.")
@click.option("--quiet", is_flag=True, help="Say nothing unless it fails.")
def prepare(precision: str, calibrate: Path | None, max_drop: float, rebuild: bool, quiet: bool) -> None:
    """Turn the weights into the graph that serves; happens by itself at the first start.

    An int8 model is refused when it loses more than --max-drop points of top-1 on labelled photos, or when fewer
    than 93% of its answers are those of float32.
    """
    if (precision == "int8") != (calibrate is not None):
        raise click.UsageError("--precision int8 and --calibrate FOLDER go together.")
    from .prepare import run

    run(_read_settings(), precision=precision, calibrate=calibrate, max_drop=max_drop, rebuild=rebuild, quiet=quiet)


@main.command()
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to; named after the model if not given."
)
@click.option(
    "--precision", type=click.Choice(["fp32", "int8"]), help="Which model; TOPTHREE_PRECISION's if not given."
)
@click.option("--force", is_flag=True, help="Replace a file that is there already.")
@click.option(
    "--check",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Verify and describe a bundle instead.",
)
@click.option("--json", "as_json", is_flag=True, help="With --check: JSON instead of lines.")
def bundle(output: Path | None, precision: str | None, force: bool, check: Path | None, as_json: bool) -> None:
    """Write one archive that serves without a network: prepared model, labels, manifest and checksums.

    TOPTHREE_BUNDLE=FILE serves from it. With --check nothing is written, and the status is 1 where the bundle is
    damaged or does not serve with this installation.
    """
    if (check and (output or precision or force)) or (as_json and not check):
        raise click.UsageError("--check takes a bundle that is there, with --json or alone.")
    from . import bundle as job

    settings = _read_settings()
    if check:
        job.check(check, sha256=settings.bundle_sha256, as_json=as_json)
    else:
        job.run(settings, output=output, precision=precision, force=force)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--url", help="A running server; without it one is started, measured and stopped.")
@click.option("--in-process", is_flag=True, help="No server: measure the classifier in this process.")
@click.option("--clients", default="1,8,32", show_default=True, help="Closed loop: so many photos in flight.")
@click.option("--rates", default="", help="Open loop: so many photos a second, for example 20,40,80.")
@click.option("--seconds", type=click.FloatRange(0.1), default=6.0, show_default=True, help="Length of each load.")
@click.option(
    "--warm-up", type=click.FloatRange(0), default=3.0, show_default=True, help="Seconds before, not counted."
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw latency against load into a file.")
def bench(
    folder: Path,
    *,
    url: str | None,
    in_process: bool,
    clients: str,
    rates: str,
    seconds: float,
    warm_up: float,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure latency, throughput, memory and start-up time with the photos of FOLDER."""
    if url and in_process:
        raise click.UsageError("--url and --in-process exclude each other.")
    from .bench import Options, run

    options = Options(tuple(_numbers(clients, int)), tuple(_numbers(rates, float)), seconds, warm_up)
    run(_read_settings(), folder, options, url=url, in_process=in_process, as_json=as_json, plot=plot)


@main.command()
@click.option("--seconds", type=click.FloatRange(0), default=10.0, show_default=True, help="Least time to wait.")
@click.option("--at-most", type=click.FloatRange(0), default=25.0, show_default=True, help="Longest time to wait.")
@click.option("--undo", is_flag=True, help="Be ready again.")
def drain(seconds: float, at_most: float, undo: bool) -> None:
    """Have the running service say that it is not ready, and wait until it may be stopped.

    It goes on answering. This returns when --seconds have passed, in which balancers take notice, and nothing is in
    flight. The status is 3 where nothing runs at TOPTHREE_HOST and TOPTHREE_PORT, and 1 where requests are in flight
    still after --at-most seconds.
    """
    from .drain import run

    run(_read_settings(), os.environ, seconds=seconds, at_most=at_most, undo=undo)


@main.command()
def plan() -> None:
    """Print how this machine's processors and memory would be used."""
    from ..photos.decoders import Decoders
    from ..processes.plan import describe_plan, make_plan
    from ..processes.sandbox import describe

    planned = make_plan(_read_settings())
    click.echo(describe_plan(planned))
    with closing(Decoders(1, max_bytes=1, memory_bytes=planned.photo_memory_bytes)) as decoders:
        click.echo(f"enforced in each of these: {describe(decoders.start())}")


@main.command()
@click.argument("query", metavar="SEARCH")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
def labels(query: str, as_json: bool) -> None:
    """Find classes by number, WordNet id, or part of a name in English or Chinese."""
    from ..model.labels import load_labels, search_labels
    from ..model.opening import open_bundle

    settings = _read_settings()
    own = open_bundle(settings.bundle, settings).labels if settings.bundle else settings.labels
    found = search_labels(load_labels(own), query)
    if as_json:
        click.echo(json.dumps([vars(label) for label in found], ensure_ascii=False))
    else:
        for label in found:
            click.echo(
                "  ".join([f"{label.class_id:4}", label.wnid or "", label.label, label.label_zh or ""]).rstrip()
            )
    if not found:
        raise click.ClickException(f"No class matches {query!r}.")


main.add_command(keys)


def _numbers(text: str, kind: type[Number]) -> list[Number]:
    try:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise click.UsageError(f"{text!r} is not a list of numbers such as 1,8,32.") from error
    if any(number <= 0 for number in numbers):
        raise click.UsageError(f"The numbers in {text!r} must be more than zero.")
    return numbers


def _read_settings() -> Settings:
    return Settings.from_environment(os.environ)


def _require_free_ports(settings: Settings) -> None:
    """Say at once that a port is taken; gunicorn would try for five seconds and then show a traceback."""
    _require_free_port(settings.host, settings.port, "TOPTHREE_HOST and TOPTHREE_PORT (with make: HOST and PORT)")
    if settings.metrics_address:
        host, _, port = settings.metrics_address.rpartition(":")
        _require_free_port(host, int(port), "TOPTHREE_METRICS_ADDRESS")


def _require_free_port(host: str, port: int, variables: str) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another with {variables}."
        ) from error

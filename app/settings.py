"""The settings: each is declared once, with type, default, parser and help, and read once from `TOPTHREE_*`."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import parsers
from .errors import SettingsError

PREFIX = "TOPTHREE_"
MEBI = 1024 * 1024

# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

_PACKAGE = Path(__file__).resolve().parent
# The folder that holds the package. Child processes start there, so that they import this package and no other `app`.
ROOT = _PACKAGE.parent
# The folder of templates, static files and gunicorn.conf.py: in an installed wheel the package, else its parent.
RESOURCES = _PACKAGE if (_PACKAGE / "templates").is_dir() else ROOT


def setting(default: str | int, parse: Callable[[str], Any], help: str) -> Any:
    """Declare a field of `Settings`; `default` is text as in the environment, and empty means not set."""
    return dataclasses.field(metadata={"default": str(default), "parse": parse, "help": help})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process, as `from_environment` reads them.

    The variable of a field is `TOPTHREE_` with its name in capitals.
    `torch_hub` has no variable of its own: PyTorch's `TORCH_HOME` moves it. An empty `precision` is the bundle's own.
    """

    host: str = setting("127.0.0.1", parsers.host, "address to listen on")
    port: int = setting(8000, parsers.integer(1, 65535), "port to listen on")
    model: str = setting(
        "",
        parsers.model,
        "model to serve, one of docs/backbones.md, timm/NAME, a file that ends in .onnx or .xml, or one of"
        " TOPTHREE_MODELS; the default is resnet18 or its fallback",
    )
    models: Path | None = setting(
        "",
        parsers.path,
        "folder of models of your own; the default is topthree/models in the user's data folder",
    )
    weights: Path | None = setting(
        "", parsers.path, "weights file to serve, such as .pth, .ckpt or .safetensors; no fallback is used"
    )
    weights_sha256: str | None = setting("", parsers.sha256, "SHA-256 that the file of TOPTHREE_WEIGHTS must have")
    weights_url: str | None = setting("", parsers.url, "mirror to download the model's weights from")
    labels: Path | None = setting(
        "", parsers.path, "class names of a custom model: one per line, or CSV with a column 'label'"
    )
    bundle: Path | None = setting(
        "", parsers.path, "bundle to serve, made by 'topthree bundle'; nothing is downloaded or prepared"
    )
    bundle_sha256: str | None = setting("", parsers.sha256, "SHA-256 that the file of TOPTHREE_BUNDLE must have")
    fallback: str = setting(
        "efficientnet_lite0",
        parsers.one_of("efficientnet_lite0", "none"),
        "model to use if TOPTHREE_MODEL is not set and the default model cannot be downloaded;"
        " with none the service does not become ready",
    )
    cache: Path = setting(
        "", parsers.path, "folder for weights and prepared models; the default is topthree in the user's cache folder"
    )
    torch_hub: Path
    engine: str = setting(
        "auto",
        parsers.one_of("auto", "openvino", "torch"),
        "inference engine; auto is OpenVINO, or torch if there is a GPU",
    )
    precision: str = setting(
        "fp32",
        parsers.one_of("fp32", "tf32", "bf16", "fp16", "int8", "auto"),
        "number format; auto is bf16 on a GPU or if the processor has it in hardware, else fp32; tf32 and fp16 are"
        " torch's; int8 needs 'topthree prepare'; with a bundle the default is the bundle's own",
    )
    decode: str = setting(
        "cpu",
        parsers.one_of("cpu", "gpu"),
        "where JPEG files are decoded; gpu is faster there, and brings the bytes of strangers to the GPU's driver"
        " (SECURITY.md)",
    )
    max_upload_bytes: int = setting(10 * MEBI, parsers.integer(1, 1024 * MEBI), "maximum size of a photo, in bytes")
    max_batch_bytes: int = setting(
        64 * MEBI, parsers.integer(1, 4096 * MEBI), "maximum size of a batch request, in bytes"
    )
    max_batch_items: int = setting(64, parsers.integer(1, 1000), "maximum number of photos in a batch request")
    max_pixels: int = setting(
        64_000_000, parsers.integer(1, 1_000_000_000), "maximum number of pixels in a photo, width times height"
    )
    max_waiting: int = setting(
        64, parsers.integer(1, 100_000), "maximum number of queued requests per process; further requests get 503"
    )
    max_waiting_bytes: int = setting(
        256 * MEBI,
        parsers.integer(1, 64 * 1024 * MEBI),
        "maximum bytes of uploads in flight per process, fewer in little memory; further requests get 503",
    )
    deadline_ms: int = setting(
        30_000,
        parsers.integer(1, 600_000),
        "maximum wait of a request for its turn, in milliseconds; the header X-Request-Timeout-Ms can shorten it",
    )
    stall_seconds: int = setting(
        10, parsers.integer(1, 600), "timeout for request headers and for stalled bodies or responses, in seconds"
    )
    min_bytes_per_second: int = setting(
        1000,
        parsers.integer(1, 1_000_000_000),
        "minimum transfer rate of a body or response, in bytes per second; slower clients are disconnected",
    )
    result_cache_bytes: int = setting(
        16 * MEBI,
        parsers.integer(0, 64 * 1024 * MEBI),
        "maximum size of the result cache per process, in bytes; 0 turns it off",
    )
    workers: int | None = setting(
        "auto",
        parsers.workers,
        "number of server processes, of which each loads its own model unless there is a device process; auto is 1,"
        " and on a machine with a GPU half as many as processors",
    )
    trusted_proxies: int = setting(
        0, parsers.integer(0, 10), "number of trusted proxies in front, whose X-Forwarded-* headers are used"
    )
    page: str = setting("on", parsers.one_of("on", "off"), "the web page; off leaves only the API")
    api_keys_file: Path | None = setting(
        "", parsers.path, "file of API keys, as 'topthree keys new' writes it; without it no key is needed"
    )
    rate_limit: str | None = setting(
        "",
        parsers.rate_limit,
        "requests allowed per key, or per address without a key, such as 60/minute or 10/second;1000/day",
    )
    rate_limit_per_address: str | None = setting(
        "", parsers.rate_limit, "requests allowed per address, with any key; written like TOPTHREE_RATE_LIMIT"
    )
    rate_limit_storage: str = setting(
        "memory://",
        parsers.rate_limit_storage,
        "where requests are counted: memory:// in each process separately, redis://… for all processes together",
    )
    cors_origins: tuple[str, ...] = setting(
        "",
        parsers.origins,
        "web origins whose pages may call the API, such as https://photos.example, separated by commas",
    )
    log_level: str = setting(
        "info", parsers.one_of("debug", "info", "warning", "error"), "minimum level of logged messages"
    )
    log_format: str = setting("text", parsers.one_of("text", "json"), "log format; json writes one object per line")
    access_log: str = setting("off", parsers.one_of("on", "off"), "one log line per request")
    log_addresses: str = setting("off", parsers.one_of("on", "off"), "client addresses in the log")
    teach: str = setting(
        "off",
        parsers.one_of("off", "on"),
        "teaching in the browser, at /teach; with keys it needs one with that right",
    )
    projects: Path | None = setting(
        "",
        parsers.path,
        "folder of the projects of teaching; the default is topthree/projects in the user's data folder",
    )
    teach_max_bytes: int = setting(
        1024 * MEBI, parsers.integer(1, 1024 * 1024 * MEBI), "maximum size of all projects together, in bytes"
    )
    hosts: tuple[str, ...] = setting(
        "",
        parsers.hosts,
        "host names by which browsers reach the service, separated by commas, besides those of this machine;"
        " teaching, and search without keys, answer no others",
    )
    index: Path | None = setting(
        "", parsers.path, "index of photos to search, made by 'topthree index'; with keys any of them may search it"
    )
    metrics_address: str | None = setting(
        "", parsers.address, "host:port that serves /metrics and the probes; /metrics is served nowhere else"
    )
    traces: str | None = setting(
        "", parsers.otlp_endpoint, "address of an OpenTelemetry collector that accepts OTLP over HTTP"
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises SettingsError, naming the variable, for a value out of range, for a `TOPTHREE_` variable that
        does not exist (a misspelling would otherwise do nothing), and for combinations that cannot work. Ignores
        `service_links`.
        """
        links = service_links(environment)
        environment = {key: value for key, value in environment.items() if key not in links}
        _refuse_unknown(environment)
        values = {row.name: _read(row, environment) for row in SETTINGS}
        user_cache = _user_cache(environment, values["cache"])
        torch_home = _folder(environment, "TORCH_HOME", str(user_cache / "torch"))
        values["cache"] = values["cache"] or user_cache / "topthree"
        values["models"] = values["models"] or _user_data(environment, "models")
        values["projects"] = values["projects"] or _user_data(environment, "projects")
        if values["bundle"]:
            values |= _defaults_of_a_bundle(values, environment)
        if parsers.is_model_file(values["model"]) and values["engine"] == "auto":
            values["engine"] = "openvino"
        settings = cls(torch_hub=torch_home / "hub" / "checkpoints", **values)
        _refuse_impossible(settings)
        return settings

    def as_environment(self) -> dict[str, str]:
        """Write the settings as variables, with absolute paths, for a child process in any folder."""
        return {row.variable: _as_text(getattr(self, row.name)) for row in SETTINGS}

    def for_child(self, **changes: Any) -> dict[str, str]:
        """Return the environment of a child process: this process's own, with these settings and changes to them.

        `service_links` stay as they are unless they are changed, so that the child can name them.
        """
        changed = {row.variable for row in SETTINGS if row.name in changes}
        links = {name: os.environ[name] for name in service_links(os.environ) if name not in changed}
        return os.environ | dataclasses.replace(self, **changes).as_environment() | links

    def of_model(self, name: str, **changes: Any) -> Settings:
        """Return the settings with another model, for which no weights, labels and bundle are named, and changes."""
        none: dict[str, Any] = dict.fromkeys(("weights", "weights_sha256", "labels", "bundle", "bundle_sha256"))
        return dataclasses.replace(self, model=name, **none, **changes)

    @property
    def url(self) -> str:
        """Return the address at which this machine reaches the service."""
        address = parsers.ip_address(self.host)
        if address is not None and address.is_unspecified:
            return f"http://{'127.0.0.1' if address.version == 4 else '[::1]'}:{self.port}"
        return f"http://{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach the service."""
        address = parsers.ip_address(self.host)
        return self.host == "localhost" if address is None else address.is_loopback


@dataclasses.dataclass(frozen=True)
class Setting:
    """One declaration of `Settings`, for code that reads or lists all of them."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def variable(self) -> str:
        """Return the name of the environment variable."""
        return PREFIX + self.name.upper()


SETTINGS = tuple(Setting(field.name, **field.metadata) for field in dataclasses.fields(Settings) if field.metadata)


def service_links(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that Kubernetes sets for a service named topthree or topthree-…, which are no settings.

    One of them is `TOPTHREE_PORT`, unless the pod sets it itself: its value is an address then, not a number.
    """
    return sorted(
        key
        for key, value in environment.items()
        if key.startswith(PREFIX)
        and (_SERVICE_LINK.fullmatch(key) or (key.endswith("PORT") and _SERVICE_ADDRESS.match(value)))
    )


def _read(row: Setting, environment: Mapping[str, str]) -> Any:
    text = environment.get(row.variable, row.default).strip()
    try:
        return row.parse(text or row.default)
    except ValueError as error:
        shown = re.sub(r"//[^/@]*@", "//…@", text)  # the password of an address stays out of logs
        raise SettingsError(f"{row.variable} is {shown!r}; it must be {error}.") from error


def _as_text(value: object) -> str:
    """Write a value as it would be given in the environment."""
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value.absolute() if isinstance(value, Path) else value)


def _user_cache(environment: Mapping[str, str], cache: Path | None) -> Path:
    """Return the user's cache folder, or `cache` for a user without a home, as containers have them."""
    try:
        return Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:
        if cache is None:
            raise SettingsError(
                "The home folder cannot be found; set TOPTHREE_CACHE to a folder that can be written."
            ) from error
        return cache


def _user_data(environment: Mapping[str, str], name: str) -> Path | None:
    """Return our folder of this name in the user's data folder (XDG Base Directory Specification), if there is one."""
    try:
        return Path(environment.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "topthree" / name
    except RuntimeError:  # a user without a home folder has none unless a setting names a folder
        return None


def _folder(environment: Mapping[str, str], variable: str, default: str) -> Path:
    """Read a folder that other programs use too."""
    try:
        return Path(environment.get(variable) or default).expanduser()
    except RuntimeError as error:  # a user without a home folder, as containers have them
        raise SettingsError(f"The home folder cannot be found; set {variable} to a folder that exists.") from error


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    names = [row.name.upper() for row in SETTINGS]
    given = sorted(key.removeprefix(PREFIX) for key in environment if key.startswith(PREFIX))
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, names, n=1, cutoff=0.75)
        advice = f"perhaps {PREFIX}{near[0]} is meant: " if near else ""
        raise SettingsError(f"{PREFIX}{unknown} is not a setting; {advice}'topthree serve --help' lists them all.")


def _refuse_impossible(settings: Settings) -> None:
    if settings.bundle:
        _refuse_beside_a_bundle(settings)
    if settings.bundle_sha256 and not settings.bundle:
        raise SettingsError("TOPTHREE_BUNDLE_SHA256 checks the file of TOPTHREE_BUNDLE, which is not set.")
    is_file = parsers.is_model_file(settings.model)
    if settings.labels and not settings.weights and not is_file:
        raise SettingsError("TOPTHREE_LABELS names a custom model's classes, so TOPTHREE_WEIGHTS must be set too.")
    if is_file and settings.weights:
        raise SettingsError("The file of TOPTHREE_MODEL has its own weights; unset TOPTHREE_WEIGHTS.")
    if is_file and settings.engine == "torch":
        raise SettingsError("TOPTHREE_MODEL names a file, which TOPTHREE_ENGINE=torch cannot run.")
    if settings.weights_sha256 and not settings.weights:
        raise SettingsError("TOPTHREE_WEIGHTS_SHA256 checks the file of TOPTHREE_WEIGHTS, which is not set.")
    if settings.engine == "torch" and settings.precision == "int8":
        raise SettingsError(
            "TOPTHREE_PRECISION=int8 needs TOPTHREE_ENGINE=openvino; torch computes in fp32, tf32, bf16 or fp16."
        )
    if settings.max_batch_bytes < settings.max_upload_bytes:
        raise SettingsError("TOPTHREE_MAX_BATCH_BYTES must be at least TOPTHREE_MAX_UPLOAD_BYTES.")
    if settings.max_waiting_bytes < settings.max_batch_bytes:
        raise SettingsError("TOPTHREE_MAX_WAITING_BYTES must be at least TOPTHREE_MAX_BATCH_BYTES.")
    if settings.max_waiting_bytes < parsers.base64_length(settings.max_upload_bytes):
        raise SettingsError(
            "TOPTHREE_MAX_WAITING_BYTES must have room for TOPTHREE_MAX_UPLOAD_BYTES as base64 in lines, 17/12 of it."
        )
    is_limited = settings.rate_limit or settings.rate_limit_per_address
    if settings.rate_limit_storage != "memory://" and not is_limited:
        raise SettingsError("TOPTHREE_RATE_LIMIT_STORAGE keeps the counts of TOPTHREE_RATE_LIMIT, which is not set.")
    if settings.teach == "on" and settings.projects is None:
        raise SettingsError("The home folder cannot be found; set TOPTHREE_PROJECTS to a folder that can be written.")
    if settings.metrics_address and settings.metrics_address.rpartition(":")[2] == str(settings.port):
        raise SettingsError("TOPTHREE_METRICS_ADDRESS must have another port than TOPTHREE_PORT.")


def _defaults_of_a_bundle(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the engine and precision of a bundle, unless the environment sets them; an empty precision is its own."""
    is_asked = environment.get(f"{PREFIX}PRECISION", "").strip()
    return {
        "engine": "openvino" if values["engine"] == "auto" else values["engine"],
        "precision": values["precision"] if is_asked else "",
    }


def _refuse_beside_a_bundle(settings: Settings) -> None:
    for variable in ("WEIGHTS", "LABELS"):
        if getattr(settings, variable.lower()):
            raise SettingsError(f"TOPTHREE_BUNDLE has its own weights and labels; unset TOPTHREE_{variable}.")
    if parsers.is_model_file(settings.model):
        raise SettingsError("TOPTHREE_MODEL names a file, and TOPTHREE_BUNDLE has its own model; unset one of them.")
    if settings.engine == "torch":
        raise SettingsError("TOPTHREE_BUNDLE holds an OpenVINO model, which TOPTHREE_ENGINE=torch cannot run.")

"""Settings: one table, read once from `TOPTHREE_*`, frozen."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import parsers

PREFIX = "TOPTHREE_"


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names its variable."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table: field name, default as a user would write it, parser, and help."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def variable(self) -> str:
        """Name the environment variable of this setting."""
        return PREFIX + self.name.upper()


MEBI = 1024 * 1024
# The folder that holds templates, static files and gunicorn.conf.py beside the package.
ROOT = Path(__file__).resolve().parent.parent

SETTINGS: tuple[Setting, ...] = (
    Setting("host", "127.0.0.1", parsers.host, "address to listen on"),
    Setting("port", "8000", parsers.integer(1, 65535), "port to listen on"),
    Setting(
        "weights",
        "",
        parsers.path,
        "weights file to serve, .pth or .safetensors; if it fails, nothing else is tried",
    ),
    Setting("weights_sha256", "", parsers.sha256, "SHA-256 that the weights file of TOPTHREE_WEIGHTS must have"),
    Setting("weights_url", "", parsers.url, "mirror to download the ResNet-18 weights from"),
    Setting("labels", "", parsers.path, "names of a custom model's classes: one a line, or CSV with a column 'label'"),
    Setting(
        "bundle", "", parsers.path, "bundle to serve, made by 'topthree bundle'; nothing is downloaded or prepared"
    ),
    Setting("bundle_sha256", "", parsers.sha256, "SHA-256 that the bundle of TOPTHREE_BUNDLE must have"),
    Setting(
        "fallback",
        "efficientnet_lite0",
        parsers.one_of("efficientnet_lite0", "none"),
        "model that serves where the ResNet-18 weights cannot be had; 'none' refuses to become ready",
    ),
    Setting("cache", "", parsers.path, "folder for weights; empty means topthree in the user's cache folder"),
    Setting(
        "engine",
        "auto",
        parsers.one_of("auto", "openvino", "torch"),
        "what computes; auto is OpenVINO, or torch on a GPU",
    ),
    Setting(
        "precision",
        "fp32",
        parsers.one_of("fp32", "bf16", "int8", "auto"),
        "number format; auto is bf16 where the processor has it in hardware, else fp32; int8 needs 'topthree prepare';"
        " not set beside a bundle means the bundle's own",
    ),
    Setting("max_upload_bytes", str(10 * MEBI), parsers.integer(1, 1024 * MEBI), "largest photo, in bytes"),
    Setting("max_batch_bytes", str(64 * MEBI), parsers.integer(1, 4096 * MEBI), "largest batch request, in bytes"),
    Setting("max_batch_items", "64", parsers.integer(1, 1000), "most photos in one batch request"),
    Setting("max_pixels", "64000000", parsers.integer(1, 1_000_000_000), "most pixels in a photo, width times height"),
    Setting(
        "max_waiting",
        "64",
        parsers.integer(1, 100_000),
        "most requests that wait in one process; more are refused at once",
    ),
    Setting(
        "max_waiting_bytes",
        str(256 * MEBI),
        parsers.integer(1, 64 * 1024 * MEBI),
        "most bytes of uploads in one process at once; more are refused at once",
    ),
    Setting(
        "deadline_ms",
        "30000",
        parsers.integer(1, 600_000),
        "longest wait of a request for its turn, in milliseconds; the header X-Request-Timeout-Ms can shorten it",
    ),
    Setting(
        "stall_seconds",
        "10",
        parsers.integer(1, 600),
        "longest time for a request's head, and in which a body or an answer must move on, in seconds",
    ),
    Setting(
        "min_bytes_per_second",
        "1000",
        parsers.integer(1, 1_000_000_000),
        "slowest pace of a body or an answer, in bytes a second; slower clients are let go",
    ),
    Setting(
        "result_cache_bytes",
        str(16 * MEBI),
        parsers.integer(0, 64 * 1024 * MEBI),
        "most bytes of answers kept in one process for photos that come again; 0 keeps none",
    ),
    Setting("workers", "1", parsers.integer(1, 64), "server processes; each holds a model of its own"),
    Setting(
        "trusted_proxies", "0", parsers.integer(0, 10), "proxies in front whose X-Forwarded-* headers are believed"
    ),
    Setting("page", "on", parsers.one_of("on", "off"), "the page for people; off leaves only the API"),
    Setting(
        "api_keys_file", "", parsers.path, "file of the keys that callers must show, as 'topthree keys new' writes it"
    ),
    Setting(
        "rate_limit",
        "",
        parsers.rate_limit,
        "requests that each key, or each address without one, may make, such as 60/minute or 10/second;1000/day",
    ),
    Setting(
        "rate_limit_per_address",
        "",
        parsers.rate_limit,
        "requests that each address may make, whatever its keys; written like TOPTHREE_RATE_LIMIT",
    ),
    Setting(
        "rate_limit_storage",
        "memory://",
        parsers.rate_limit_storage,
        "where requests are counted: memory:// in each process by itself, redis://… for all processes together",
    ),
    Setting(
        "cors_origins",
        "",
        parsers.origins,
        "web origins whose pages may call the API, such as https://photos.example, separated by commas",
    ),
    Setting("log_level", "info", parsers.one_of("debug", "info", "warning", "error"), "least serious message to log"),
    Setting(
        "log_format",
        "text",
        parsers.one_of("text", "json"),
        "how the log is written: text, or json for one object a line",
    ),
    Setting("access_log", "off", parsers.one_of("on", "off"), "a line in the log for each request that is answered"),
    Setting("log_addresses", "off", parsers.one_of("on", "off"), "addresses of clients in the log"),
    Setting(
        "metrics_address",
        "",
        parsers.address,
        "host:port where /metrics is served, with the probes and nothing else; /metrics is nowhere else",
    ),
    Setting("traces", "", parsers.otlp_endpoint, "address of an OpenTelemetry collector that takes OTLP over HTTP"),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one process; `SETTINGS` holds what each means, `from_environment` reads them.

    An empty `precision` is the bundle's own.
    """

    host: str
    port: int
    weights: Path | None
    weights_sha256: str | None
    weights_url: str | None
    labels: Path | None
    bundle: Path | None
    bundle_sha256: str | None
    fallback: str
    cache: Path
    torch_hub: Path
    engine: str
    precision: str
    max_upload_bytes: int
    max_batch_bytes: int
    max_batch_items: int
    max_pixels: int
    max_waiting: int
    max_waiting_bytes: int
    deadline_ms: int
    stall_seconds: int
    min_bytes_per_second: int
    result_cache_bytes: int
    workers: int
    trusted_proxies: int
    page: str
    api_keys_file: Path | None
    rate_limit: str | None
    rate_limit_per_address: str | None
    rate_limit_storage: str
    cors_origins: tuple[str, ...]
    log_level: str
    log_format: str
    access_log: str
    log_addresses: str
    metrics_address: str | None
    traces: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises SettingsError, naming the variable, for a value out of range, for a `TOPTHREE_` variable that
        does not exist (a misspelling would otherwise do nothing), and for combinations that cannot work.
        """
        _refuse_unknown(environment)
        values = {setting.name: _read(setting, environment) for setting in SETTINGS}
        user_cache = _folder(environment, "XDG_CACHE_HOME", "~/.cache")
        torch_home = _folder(environment, "TORCH_HOME", str(user_cache / "torch"))
        values["cache"] = values["cache"] or user_cache / "topthree"
        if values["bundle"]:
            values |= _left_to_the_bundle(values, environment)
        settings = cls(torch_hub=torch_home / "hub" / "checkpoints", **values)
        _refuse_impossible(settings)
        return settings

    def as_environment(self) -> dict[str, str]:
        """Write the settings as variables, paths made absolute, for a child process in any folder."""
        values = {setting.variable: getattr(self, setting.name) for setting in SETTINGS}
        return {key: _as_text(value) for key, value in values.items()}

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach the service."""
        address = parsers.ip_address(self.host)
        return self.host == "localhost" if address is None else address.is_loopback


def _read(setting: Setting, environment: Mapping[str, str]) -> Any:
    text = environment.get(setting.variable, setting.default).strip()
    try:
        return setting.parse(text or setting.default)
    except ValueError as error:
        shown = re.sub(r"//[^/@]*@", "//…@", text)  # the password of an address stays out of logs
        raise SettingsError(f"{setting.variable} is {shown!r}; it must be {error}.") from error


def _as_text(value: object) -> str:
    """Write a value as it would be given in the environment."""
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value.absolute() if isinstance(value, Path) else value)


def _folder(environment: Mapping[str, str], variable: str, default: str) -> Path:
    """Read a folder that other programs use too."""
    try:
        return Path(environment.get(variable) or default).expanduser()
    except RuntimeError as error:  # a user without a home folder, as containers have them
        raise SettingsError(f"The home folder cannot be found; set {variable} to a folder that exists.") from error


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {setting.variable for setting in SETTINGS}
    unknown = sorted(key for key in environment if key.startswith(PREFIX) and key not in known)
    # TOPTHREE_TEST_* belongs to the test suite, which runs the real command in child processes.
    unknown = [key for key in unknown if not key.startswith(PREFIX + "TEST_")]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a setting; 'topthree serve --help' lists them all.")


def _refuse_impossible(settings: Settings) -> None:
    if settings.bundle:
        _refuse_beside_a_bundle(settings)
    if settings.bundle_sha256 and not settings.bundle:
        raise SettingsError("TOPTHREE_BUNDLE_SHA256 checks the file of TOPTHREE_BUNDLE, which is not set.")
    if settings.labels and not settings.weights:
        raise SettingsError("TOPTHREE_LABELS names a custom model's classes, so TOPTHREE_WEIGHTS must be set too.")
    if settings.weights_sha256 and not settings.weights:
        raise SettingsError("TOPTHREE_WEIGHTS_SHA256 checks the file of TOPTHREE_WEIGHTS, which is not set.")
    if settings.engine == "torch" and settings.precision == "int8":
        raise SettingsError("TOPTHREE_PRECISION=int8 needs TOPTHREE_ENGINE=openvino; torch computes in fp32 or bf16.")
    if settings.max_batch_bytes < settings.max_upload_bytes:
        raise SettingsError("TOPTHREE_MAX_BATCH_BYTES must be at least TOPTHREE_MAX_UPLOAD_BYTES.")
    if settings.max_waiting_bytes < settings.max_batch_bytes:
        raise SettingsError("TOPTHREE_MAX_WAITING_BYTES must be at least TOPTHREE_MAX_BATCH_BYTES.")
    is_limited = settings.rate_limit or settings.rate_limit_per_address
    if settings.rate_limit_storage != "memory://" and not is_limited:
        raise SettingsError("TOPTHREE_RATE_LIMIT_STORAGE keeps the counts of TOPTHREE_RATE_LIMIT, which is not set.")
    if settings.metrics_address and settings.metrics_address.rpartition(":")[2] == str(settings.port):
        raise SettingsError("TOPTHREE_METRICS_ADDRESS must have another port than TOPTHREE_PORT.")


def _left_to_the_bundle(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Say what a bundle decides where nobody does: it is OpenVINO's, and of the precision that it was made in."""
    is_asked = environment.get(f"{PREFIX}PRECISION", "").strip()
    return {
        "engine": "openvino" if values["engine"] == "auto" else values["engine"],
        "precision": values["precision"] if is_asked else "",
    }


def _refuse_beside_a_bundle(settings: Settings) -> None:
    for variable in ("WEIGHTS", "LABELS"):
        if getattr(settings, variable.lower()):
            raise SettingsError(f"TOPTHREE_BUNDLE holds weights and labels of its own; unset TOPTHREE_{variable}.")
    if settings.engine == "torch":
        raise SettingsError("TOPTHREE_BUNDLE holds a model of OpenVINO, which TOPTHREE_ENGINE=torch cannot compute.")

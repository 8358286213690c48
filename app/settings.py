"""Settings: one table, read once from `TOPTHREE_*`, frozen."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import parsers
from .setting_table import PREFIX, SETTINGS, Setting

# The folder that holds templates, static files and gunicorn.conf.py beside the package.
ROOT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A setting has a value that cannot be used; the message names its variable."""


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
    known = [setting.variable for setting in SETTINGS]
    unknown = sorted(key for key in environment if key.startswith(PREFIX) and key not in known)
    # TOPTHREE_TEST_* belongs to the test suite, which runs the real command in child processes.
    unknown = [key for key in unknown if not key.startswith(PREFIX + "TEST_")]
    if unknown:
        names = [name.removeprefix(PREFIX) for name in known]
        near = difflib.get_close_matches(unknown[0].removeprefix(PREFIX), names, n=1, cutoff=0.75)
        advice = f"perhaps {PREFIX}{near[0]} is meant: " if near else ""
        raise SettingsError(f"{unknown[0]} is not a setting; {advice}'topthree serve --help' lists them all.")


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
    if settings.max_waiting_bytes < parsers.base64_length(settings.max_upload_bytes):
        raise SettingsError(
            "TOPTHREE_MAX_WAITING_BYTES must have room for TOPTHREE_MAX_UPLOAD_BYTES in base64, 4/3 of it."
        )
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

"""The table of all settings: field name, default, parser and help; `settings` reads the environment by it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from . import parsers

PREFIX = "TOPTHREE_"
MEBI = 1024 * 1024


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


SETTINGS: tuple[Setting, ...] = (
    Setting("host", "127.0.0.1", parsers.host, "address to listen on"),
    Setting("port", "8000", parsers.integer(1, 65535), "port to listen on"),
    Setting(
        "model",
        "",
        parsers.model,
        "model to serve, of 'topthree backbones' or timm/NAME; empty is the default one, for which a packaged one may"
        " stand in",
    ),
    Setting(
        "weights",
        "",
        parsers.path,
        "weights file to serve, .pth or .safetensors; if it fails, nothing else is tried",
    ),
    Setting("weights_sha256", "", parsers.sha256, "SHA-256 that the weights file of TOPTHREE_WEIGHTS must have"),
    Setting("weights_url", "", parsers.url, "mirror to download the model's weights from"),
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
    Setting(
        "cache",
        "",
        parsers.path,
        "folder for weights and prepared models; empty means topthree in the user's cache folder",
    ),
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

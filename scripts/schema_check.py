"""Send requests that schemathesis makes from the OpenAPI document to servers; fail on any broken promise.

usage: python scripts/schema_check.py [--seconds 300] [--seed 1]

Half of the time goes to a server without keys, half to one that requires a key. Every check of schemathesis is on: no
5xx, and no status, type, shape or header that the document does not have; requests that break the document are
rejected, others accepted; keys are required, and undeclared methods rejected. A photo in the document is mostly a good
photo, and sometimes a bad one. A declared type that never came with a 200 is a failure, too. The seed determines the
requests, the time their number. Projects and search are left out: teaching is off here, and there is no index, so that
each of their routes is a 404.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import io
import os
import random
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import schemathesis
from hypothesis import strategies
from PIL import Image
from schemathesis.cli import schemathesis as command

from app.measuring.own_server import own_server
from app.settings import Settings
from app.web.keys import Key, digest_of, new_token
from app.web.uploads import TIMEOUT_HEADER

OFF = ("/api/v1/projects", "/api/v1/search")
KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# Maximum size of a photo; a failure prints the request.
MAX_BYTES = 20_000
# A response that takes longer, in milliseconds, is late because of the service.
ENOUGH_MS = 10_000
# The metrics have an address of their own, and schemathesis reads the document only once.
NOT_ASKED = ("GET /metrics", "GET /api/v1/openapi.json")
CONFIGURATION = """
continue-on-failure = true
[cache]
enabled = false
[generation]
database = "none"
[checks.positive_data_acceptance]
# A schema cannot say which bytes are a photo, which keys are known, nor how long an address may be; the metrics are at
# another address.
expected-statuses = [200, 401, 404, 413, 414, 415, 422, 504]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 404, 405, 413, 414, 415, 422, 431]
"""
KEY = """
[auth.openapi.key]
bearer = "{}"
"""


def encode(picture: Image.Image, kind: str) -> bytes:
    """Write a picture as a file."""
    encoded = io.BytesIO()
    picture.save(encoded, kind)
    return encoded.getvalue()


def pack(photos: Sequence[bytes]) -> bytes:
    """Write an archive of photos."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, photo in enumerate(photos):
            archive.writestr(f"{number}.jpg", photo)
    return packed.getvalue()


GOOD = [encode(Image.radial_gradient("L").resize((40, 30)), kind) for kind in KINDS]
BAD = [b"text", GOOD[1][:300], encode(Image.new("1", (9_000, 8_000)), "PNG"), bytes(MAX_BYTES + 1)]


# The promises and responses of the current server, noted by the hooks below.
promised: set[tuple[str, str]] = set()
answers: Counter[tuple[str, int, str]] = Counter()
draw = random.Random(0)


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, document: dict) -> None:
    """Note the promises, and mark each string that must be a photo: JSON Schema cannot express it."""
    document["components"]["schemas"]["Base64Photo"]["properties"]["image"]["format"] = "base64-photo"
    for path in [path for path in document["paths"] if path.startswith(OFF)]:
        del document["paths"][path]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            promised.update((f"{method.upper()} {path}", kind) for kind in operation["responses"]["200"]["content"])
            form = operation.get("requestBody", {"content": {}})["content"].get("multipart/form-data")
            if form:
                file = form["schema"]["properties"]["file"]
                file.get("items", file)["format"] = "photo"


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, arguments: dict) -> None:
    """Ask for one of the declared types if schemathesis asks for none."""
    kinds = sorted(kind for label, kind in promised if label == case.operation.label)
    case.headers["Accept"] = draw.choice(kinds)


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Count an answer."""
    label = f"{case.method.upper()} {case.operation.path}"
    kind = (response.headers.get("content-type") or ["nothing"])[0].partition(";")[0]
    answers[label if label == case.operation.label else "other methods", response.status_code, kind] += 1


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: object, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Keep every failure but a 504 to a request with too short a deadline."""
    asked = str(case.headers.get(TIMEOUT_HEADER, ENOUGH_MS))
    return not (response.status_code == 504 and asked.isdecimal() and int(asked) < ENOUGH_MS)


def describe_photos() -> None:
    """Define photos and archives of photos for schemathesis."""
    photo = strategies.sampled_from(GOOD * 3 + BAD)
    archive = strategies.lists(photo, min_size=1, max_size=4).map(pack)
    schemathesis.openapi.media_type("image/png", photo)
    schemathesis.openapi.media_type("application/octet-stream", photo)
    schemathesis.openapi.media_type("application/zip", archive | archive.map(lambda packed: packed[:-9]))
    schemathesis.openapi.format("photo", photo)
    schemathesis.openapi.format("base64-photo", photo.map(lambda data: base64.b64encode(data).decode()))


def check(settings: Settings, configuration: str, options: argparse.Namespace) -> bool:
    """Check one server with these settings, print its responses, and return whether every promise was kept."""
    held = False
    promised.clear()
    answers.clear()
    with own_server(settings) as server, tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        server.wait_until_ready()
        file.write(configuration)
        file.flush()
        limits = [f"--seed={options.seed}", f"--max-time={options.seconds // 2}"]
        try:
            command(["--no-color", "--config-file", file.name, "run", f"{server.url}/api/v1/openapi.json", *limits])
        except SystemExit as end:
            held = end.code == 0
    for (label, status, kind), count in sorted(answers.items()):
        print(f"{label:27} {status} {kind:25} {count:6}")
    print(f"{sum(answers.values())} answers")
    missing = {(label, kind) for label, kind in promised if label not in NOT_ASKED and not answers[label, 200, kind]}
    for label, kind in sorted(missing):
        print(f"broken: {label} never answered 200 with {kind}")
    return held and not missing


def main() -> int:
    """Check both servers; return 0 if every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    describe_photos()
    settings, token = Settings.from_environment(os.environ), new_token()
    settings = dataclasses.replace(settings, max_upload_bytes=MAX_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys"
        file.write_text(Key("schema-check", True, digest_of(token)).as_line() + "\n", encoding="utf-8")
        guarded = dataclasses.replace(settings, api_keys_file=file)
        held = [check(settings, CONFIGURATION, options), check(guarded, CONFIGURATION + KEY.format(token), options)]
    return int(not all(held))


if __name__ == "__main__":
    sys.exit(main())

"""A module for the fork server that makes replies senseless, in a way that the photo's width chooses."""

from __future__ import annotations

import dataclasses
import math

from app.photos.protocol import Reply

LIES: dict[int, dict[str, float]] = {
    301: {"width": 0},
    302: {"height": 0},
    303: {"seconds": math.nan},
    304: {"seconds": -1.0},
    305: {"seconds": math.inf},
    306: {"thumbnail_width": 0},
    307: {"thumbnail_height": 1024},
    308: {"thumbnail_width": 1025},
    309: {"status": 3},
}
_honest = Reply.pack


def _pack(reply: Reply) -> bytes:
    return _honest(dataclasses.replace(reply, **LIES.get(reply.width, {})))  # type: ignore[arg-type]


Reply.pack = _pack  # type: ignore[method-assign]

"""Python imports this at its start where the folder is on PYTHONPATH: in a fork server of decoders it adds a flaw.

So a service can be tried whose own decoder has a flaw that no guard knows, though nothing in the service allows that.
"""

from __future__ import annotations

import sys

if "app.photos.decoder" in sys.orig_argv:
    import hostile_plugin  # noqa: F401

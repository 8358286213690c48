"""A module for the fork server that puts it under a limit of memory which no process without rights can raise."""

from __future__ import annotations

import resource

resource.setrlimit(resource.RLIMIT_DATA, (512 * 2**20, 512 * 2**20))

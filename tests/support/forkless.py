"""A module for the fork server that makes its forks fail: as an ordinary user, it may start no process more."""

from __future__ import annotations

import os
import resource

if os.getuid() == 0:
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

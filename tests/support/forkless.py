"""A module for the fork server that takes its right to fork away: as an ordinary user, it may have no process more."""

from __future__ import annotations

import os
import resource

if os.getuid() == 0:
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

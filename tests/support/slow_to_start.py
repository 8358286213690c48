"""A module for the fork server that takes long to import, as all modules do on a busy machine."""

from __future__ import annotations

import time

time.sleep(2)

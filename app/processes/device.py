"""`Device`: the device process as the master sees it, and the way by which workers reach it.

The device process owns the GPU for all workers. The master starts it by `exec`, since neither CUDA nor torch survives
a fork, and starts another when it ends. Workers are forks of the master, and send it a socket and a block of memory
for each channel that they open (`processes.channel`), through one end of a socket that the master has made. The
other end outlives a device process: what was sent while none ran waits for the next.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from ..errors import ModelUnavailable
from ..settings import Settings
from .channel import Channel, shared_block
from .memory import words_of

log = logging.getLogger(__name__)

MODULE = "app.queueing.device_start"
# With each channel: how many bytes of its block are input.
OPEN = struct.Struct("=Q")
# A batch takes milliseconds. A device that computes for so long hangs, and its process is ended.
MAX_BATCH_SECONDS = 20.0
# A process that ends soon after its start would do so again.
MIN_LIFE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.5, 30.0
# How long a worker waits for room in the socket, which holds hundreds of channels.
_MAX_SEND_SECONDS = 1.0


class Device:
    """The device process of one service; its methods are for the master, `connect` for its forks too.

    `environment` is that of the process, which reads its settings from its standard input instead: they may hold
    passwords. Nothing runs before `start`.
    """

    def __init__(self, environment: Mapping[str, str], settings: Settings, module: str = MODULE) -> None:
        self._environment = {**environment, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
        variables = settings.as_environment() | {"TORCH_HOME": str(settings.torch_hub.parents[1])}
        self._variables = json.dumps(variables).encode()
        self._module = module
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(_MAX_SEND_SECONDS)
        self._words_file = shared_block(mmap.PAGESIZE)
        self._words = words_of(self._words_file)
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._retry_at = 0.0

    @property
    def pid(self) -> int | None:
        """Return the process id of the device process, None while none runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process, unless it runs; it loads a model when a worker asks for it. Raises OSError."""
        if self._process is None:
            self._start()

    def _start(self) -> None:
        self._words[0] = 0
        self._started = time.monotonic()
        files = self._theirs.fileno(), self._words_file
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", self._module, *map(str, files)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=files,
            env=self._environment,
            cwd="/",
            process_group=0,  # Ctrl-C in a terminal is for the master
        )
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:  # it has ended already, as the next look will see
            process.stdin.write(self._variables)
        self._process = process

    def look(self) -> None:
        """Start another process if the last has ended, and end one that hangs; to be called often, from one thread."""
        if self._process is not None:
            self._look_at(self._process)
        if self._process is None and self._started and time.monotonic() >= self._retry_at:
            with suppress(OSError):  # the system has no memory or processes left for it; the next look tries again
                self._start()

    def _look_at(self, process: subprocess.Popen[bytes]) -> None:
        began = self._words[0] / 1e9
        if began and time.monotonic() - began > MAX_BATCH_SECONDS:
            log.critical("The device process has computed one batch for %g s; it is replaced.", MAX_BATCH_SECONDS)
            process.kill()
            process.wait()
        if process.poll() is None:
            return
        lived = time.monotonic() - self._started
        self._pause = _FIRST_PAUSE_SECONDS if lived > MIN_LIFE_SECONDS else min(2 * self._pause, _LAST_PAUSE_SECONDS)
        self._retry_at = time.monotonic() + (0.0 if lived > MIN_LIFE_SECONDS else self._pause)
        log.error("The device process has ended after %.0f s (%s); another is started.", lived, _cause(process))
        self._process = None

    def connect(self, input_bytes: int, output_bytes: int) -> Channel:
        """Open a channel to the device process, the present one or the next; raises ModelUnavailable.

        The process may take seconds to answer on it, if it starts.
        """
        ours, theirs = socket.socketpair()
        block = shared_block(input_bytes + output_bytes)
        with theirs:
            try:
                channel = Channel(ours, block, input_bytes)
                socket.send_fds(self._ours, [OPEN.pack(input_bytes)], [theirs.fileno(), block])
            except OSError as error:
                ours.close()
                raise ModelUnavailable("The device process takes no more connections.") from error
            finally:
                os.close(block)
        return channel

    def close(self) -> None:
        """End the process, and wait for its end; it is not started again."""
        process, self._process, self._started = self._process, None, 0.0
        if process is not None:
            process.kill()
            process.wait()
        for each in (self._ours, self._theirs):
            each.close()
        if self._words_file >= 0:
            os.close(self._words_file)
            self._words_file = -1


def _cause(process: subprocess.Popen[bytes]) -> str:
    status = process.returncode
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"

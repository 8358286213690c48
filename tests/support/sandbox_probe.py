"""A service for a fork server that tries, inside the sandbox, what a decoder must not do; it answers with an errno."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable

from app.processes import sandbox
from app.processes.channel import Channel, Disconnected

HELLO = struct.Struct("=B")
REQUEST = struct.Struct("=B")
REPLY = struct.Struct("=H")
MAP_GROWSDOWN = 0x0100  # <linux/mman.h>; Python has no name for it


def start_a_thread() -> None:
    """Do what decoders of HEIC need."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def system_call(name: str, *arguments: int) -> Callable[[], None]:
    """Make an attempt of a call that Python has no function for."""

    def attempt() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(*arguments) < 0:
            raise OSError(ctypes.get_errno(), name)

    return attempt


def fork() -> None:
    """Fork, and end the child at once where that works."""
    if os.fork() == 0:
        os._exit(0)


def map_memory(flags: int) -> Callable[[], None]:
    """Make an attempt to map memory that the limit of data would not count."""

    def attempt() -> None:
        mmap.mmap(-1, mmap.PAGESIZE, flags | mmap.MAP_ANONYMOUS).close()

    return attempt


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open a file to read": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "create a file": lambda: os.open("/tmp/topthree-sandbox", os.O_CREAT | os.O_WRONLY, 0o600),
    "list a folder": lambda: os.listdir("/"),
    "delete a file": lambda: os.unlink("/tmp/topthree-sandbox"),
    "make a socket": lambda: socket.socket(socket.AF_INET),
    "make a pair of sockets": socket.socketpair,
    "fork": fork,
    "run a program": lambda: os.execv("/bin/true", ["true"]),
    "signal its parent": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "signal a thread of its parent": system_call("tgkill", 234, os.getppid(), os.getppid(), 15),
    "raise its own limit of memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
    "map memory that can be shared": map_memory(mmap.MAP_SHARED),
    "map a stack that grows": map_memory(mmap.MAP_PRIVATE | MAP_GROWSDOWN),
    "make a file in memory": lambda: os.memfd_create("x"),
    "raise its priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, -1),
    "start a thread": start_a_thread,
    "read a limit": lambda: resource.getrlimit(resource.RLIMIT_STACK),
}


def serve(channel: Channel) -> None:
    """Enter the sandbox, and make the attempts that are asked for."""
    attempts = list(ATTEMPTS.values())
    channel.send(HELLO.pack(sandbox.enter()))
    try:
        while True:
            (index,) = channel.receive(REQUEST)
            try:
                attempts[index]()
                number = 0
            except OSError as error:
                number = error.errno or errno.EIO
            except ValueError:  # how `resource` reports EPERM
                number = errno.EPERM
            except RuntimeError:  # what a thread that cannot be started raises
                number = errno.EAGAIN
            channel.send(REPLY.pack(number))
    except Disconnected:
        return

"""The sandbox: rights that a process gives up before it reads hostile bytes, as far as the kernel enforces that.

A seccomp filter (seccomp(2), kernel documentation "Seccomp BPF") allows the system calls that decoding needs and no
others: memory, threads, clocks, and reading and writing what is open already. Any other call fails with EPERM, so that
a library that asks for more than it needs goes on without it. Two cases differ: `clone3` fails with ENOSYS, so that
glibc falls back to `clone`, and a call by the rules of another architecture kills the process.

The numbers of the calls are those of the kernel's tables for x86-64 and arm64. The filter is written here since the
only binding on PyPI, pyseccomp, needs the library libseccomp, which slim images lack.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from enum import IntFlag
from pathlib import Path

# From <linux/prctl.h>, <linux/seccomp.h>, <linux/audit.h>, <linux/sched.h>, <linux/mman.h> and
# <linux/bpf_common.h>.
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_ALLOW, _FAIL, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000
_MAP_SHARED, _MAP_GROWSDOWN = 0x01, 0x0100
_X32_BIT = 0x40000000
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _JUMP_IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Where struct seccomp_data has the call's number, the architecture, and the low half of its arguments.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# Name: number on x86-64, on arm64; -1 where there is none.
_ALLOWED = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, -1),
    "lseek": (8, 62),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "writev": (20, 66),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "exit": (60, 93),
    "uname": (63, 160),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getaffinity": (204, 123),
    "set_tid_address": (218, 96),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "ppoll": (271, 73),
    "set_robust_list": (273, 99),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "rseq": (334, 293),
}
_CLONE, _CLONE3, _TGKILL, _PRLIMIT64, _MMAP = (56, 220), (435, 435), (234, 131), (302, 261), (9, 222)


class Measures(IntFlag):
    """The measures that are in force in a process."""

    NO_NEW_RIGHTS = 1
    NO_CORE_DUMPS = 2
    SYSTEM_CALLS = 4


ALL_MEASURES = Measures.NO_NEW_RIGHTS | Measures.NO_CORE_DUMPS | Measures.SYSTEM_CALLS


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends (Linux only)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def be_killed_first() -> None:
    """Have the kernel end this process before any other when memory runs out (Linux only)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def enter() -> Measures:
    """Give up permanently the rights that decoding does not need; return what the kernel enforces from now on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    measures = Measures.NO_CORE_DUMPS
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1) and _prctl(_PR_SET_DUMPABLE, 0):
        measures |= Measures.NO_NEW_RIGHTS
        if _install_filter():
            measures |= Measures.SYSTEM_CALLS
    return measures


def describe(measures: Measures) -> str:
    """Describe in one line what a decoder cannot do, and what could not be enforced."""
    texts = {
        Measures.SYSTEM_CALLS: "no files, sockets or processes (seccomp)",
        Measures.NO_NEW_RIGHTS: "no new rights",
        Measures.NO_CORE_DUMPS: "no core dumps",
    }
    enforced = ", ".join(text for measure, text in texts.items() if measure in measures)
    missing = ", ".join(text for measure, text in texts.items() if measure not in measures)
    return f"{enforced or 'nothing'}; not enforced: {missing}" if missing else enforced


def _prctl(option: int, value: int) -> bool:
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    return prctl is not None and prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0


class _Program(ctypes.Structure):
    """struct sock_fprog: how many instructions there are, and where."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _install_filter() -> bool:
    machine = os.uname().machine
    if sys.platform != "linux" or machine not in _ARCHITECTURES:
        return False
    column, architecture = _ARCHITECTURES[machine]
    code = b"".join(_filter(column, architecture, os.getpid()))
    program = _Program(len(code) // 8, code)
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(column: int, architecture: int, pid: int) -> list[bytes]:
    """Write the filter: most calls are allowed by their number; mmap, clone, tgkill and prlimit64 by an argument."""
    allowed = [numbers[column] for numbers in _ALLOWED.values() if numbers[column] >= 0]
    return [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_IF_EQUAL, architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_IF_GREATER_OR_EQUAL, _X32_BIT, 0, 1),
        _step(_RETURN, _FAIL | errno.EPERM),
        *(line for number in allowed for line in (_step(_JUMP_IF_EQUAL, number, 0, 1), _step(_RETURN, _ALLOW))),
        # No shared memory and no stack that grows may be mapped, since the limit of data counts neither.
        *_where(_MMAP[column], 3, _step(_JUMP_IF_ANY_BIT, _MAP_SHARED | _MAP_GROWSDOWN, 1, 0)),
        # glibc asks for clone3 first and falls back to clone, whose flags a filter can read.
        _step(_JUMP_IF_EQUAL, _CLONE3[column], 0, 1),
        _step(_RETURN, _FAIL | errno.ENOSYS),
        *_where(_CLONE[column], 0, _step(_JUMP_IF_ANY_BIT, _CLONE_THREAD, 0, 1)),
        # abort(3) sends a signal to its own process; no other process may get one.
        *_where(_TGKILL[column], 0, _step(_JUMP_IF_EQUAL, pid, 0, 1)),
        # A thread reads the limit of its stack. No limit may be changed: the pointer to the new one must be null, in
        # both halves.
        *_where(_PRLIMIT64[column], 2, _step(_JUMP_IF_EQUAL, 0, 0, 3), also_high_half=True),
        _step(_RETURN, _FAIL | errno.EPERM),
    ]


def _where(number: int, argument: int, test: bytes, *, also_high_half: bool = False) -> list[bytes]:
    """Allow a call if its argument passes a test; the steps behind these find the call's number loaded again."""
    at = _ARGUMENTS + 8 * argument
    body = [_step(_LOAD, at), test]
    if also_high_half:
        body += [_step(_LOAD, at + 4), _step(_JUMP_IF_EQUAL, 0, 0, 1)]
    body += [_step(_RETURN, _ALLOW), _step(_LOAD, _NUMBER)]
    return [_step(_JUMP_IF_EQUAL, number, 0, len(body)), *body]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)

"""Settings of the process: threads and memory, to be made before torch is loaded; its end."""

from __future__ import annotations

import ctypes
import os
import signal

_THRESHOLD = 1 << 30  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's options of mallopt
_PR_SET_PDEATHSIG = 1  # Linux's option of prctl
# A single arena, because glibc returns those of further threads whatever the thresholds are.
_MALLOC = {_M_MMAP_THRESHOLD: _THRESHOLD, _M_TRIM_THRESHOLD: _THRESHOLD, _M_ARENA_MAX: 1}


def settle() -> None:
    """Let idle OpenMP threads sleep, and keep freed memory for reuse.

    OpenMP threads do not spin while they wait: a robot's cores have other work, and spinning makes
    the network several times slower on a busy machine. Freed memory is kept for the next image: a
    network's feature maps are tens of MB, and Linux clears every page that it hands out anew, which
    takes a seventh of the network's time. Settings in the user's environment take precedence.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        for option, value in _MALLOC.items():
            mallopt(option, value)


def end_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent ends, however that ends (Linux).

    Args:
        parent: process id; if it has ended already, so does this process.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

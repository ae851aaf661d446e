"""Settings of the process for threads and memory, to be made before torch is loaded."""

from __future__ import annotations

import ctypes
import os

_THRESHOLD = 1 << 30  # bytes
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc's options of mallopt
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

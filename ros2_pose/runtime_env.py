"""How a process of ours treats its machine; to be settled before torch is loaded."""

from __future__ import annotations

import ctypes
import os

_HISTORY = 1 << 30  # bytes
# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_ARENA_MAX: the arenas of further threads are
# given back whatever the thresholds say.
_MALLOC = {-3: _HISTORY, -1: _HISTORY, -8: 1}


def settle() -> None:
    """Share the cores, and keep memory that was used once.

    Threads of OpenMP that wait do not spin: on a robot the cores have other work, and spinning
    made a busy machine's network several times slower. Freed memory is kept for the next image:
    a network's feature maps are tens of MB, and Linux clears every page that it hands out anew,
    which took a seventh of the network's time. The user's own settings of both win.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        for option, value in _MALLOC.items():
            mallopt(option, value)

"""The definition of a jump back in time: a recording that starts again.

Stamps are integers, ns. A stamp that is earlier than the newest one by up to `JUMP_S` belongs to a
message that is late or came twice; one that is earlier by more says that time has started again.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

JUMP_S = 1.0


def jumps_back(stamp: int, newest: int | None, limit_s: float = JUMP_S) -> bool:
    """Return True if a stamp (ns) is earlier than the newest one by more than `limit_s` seconds.

    Args:
        newest: ns; None if there was no stamp before.
    """
    return newest is not None and stamp < newest - limit_s * 1e9


def steps_back(stamp: int, latest: int) -> bool:
    """Return True, and log it, if a stamp (ns) is earlier at all than the latest tracked frame's.

    Frames reach a tracker in the order of their stamps: there an earlier one is always a jump.
    """
    if stamp >= latest:
        return False
    log.warning("time went back by %.3f s: all people are forgotten", (latest - stamp) * 1e-9)
    return True

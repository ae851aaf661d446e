"""A slot that holds only the newest item: how images wait for the worker thread.

Callbacks call `put` and return at once; the worker thread calls `take`. Nothing queues.
"""

from __future__ import annotations

import threading
from typing import Any


class LatestSlot:
    """Thread-safe slot for one item; a new item overwrites an unread one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Any = None
        self.closed = False

    def put(self, item: Any) -> bool:
        """Store an item. Returns True if an unread item was overwritten."""
        with self._changed:
            overwritten = self._item is not None
            self._item = item
            self._changed.notify()
            return overwritten

    def take(self) -> Any:
        """Wait for an item and remove it. Returns None once the slot is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._item is not None)
            item, self._item = self._item, None
            return None if self.closed else item

    def close(self) -> None:
        """Wake the waiting threads; `take` returns None from now on."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

"""A slot in which the newest item replaces the one before: how images wait for the worker.

Callbacks put and return at once; the worker thread takes. Nothing ever queues.
"""

from __future__ import annotations

import threading
from typing import Any


class Newest:
    """Holds one item at most."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Any = None
        self.closed = False

    def put(self, item: Any) -> bool:
        """Leave an item; whether it took the place of one that nobody took."""
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
            return replaced

    def take(self) -> Any:
        """Wait for an item; None once the slot is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or self._item is not None)
            item, self._item = self._item, None
            return None if self.closed else item

    def close(self) -> None:
        """Let whoever waits go."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

"""Forwarding of the package's Python logging to a node's logger."""

from __future__ import annotations

import logging
import time

from rclpy.node import Node

_REPEAT_S = 5.0


class RosLogHandler(logging.Handler):
    """Sends log records to a node's logger, from each source line at most once in five seconds.

    A camera that fails does so thirty times a second.
    """

    def __init__(self, node: Node):
        super().__init__()
        self._logger = node.get_logger()
        self._last_s: dict[tuple[str, int], float] = {}  # monotonic, by file and line

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record's source line has not logged within the last seconds."""
        line, now_s = (record.pathname, record.lineno), time.monotonic()
        if now_s - self._last_s.get(line, -_REPEAT_S) < _REPEAT_S:
            return False
        self._last_s[line] = now_s
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record. rclpy requires that each source line logs with one severity only."""
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)


def log_to(node: Node) -> logging.Handler:
    """Forward the package's log to a node; pass the result to `stop_logging` at the end."""
    handler = RosLogHandler(node)
    logging.getLogger("ros2_pose").addHandler(handler)
    logging.getLogger("ros2_pose").setLevel(logging.INFO)
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to`."""
    logging.getLogger("ros2_pose").removeHandler(handler)

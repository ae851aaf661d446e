"""The core's logging, shown as the node's."""

from __future__ import annotations

import logging
import time

from rclpy.node import Node

_REPEAT_S = 5.0


class RosLogHandler(logging.Handler):
    """Sends what the package logs to a node's logger; what one line of code says, not more often
    than each five seconds: a camera that fails does so thirty times a second."""

    def __init__(self, node: Node):
        super().__init__()
        self._logger = node.get_logger()
        self._last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record's line has not spoken just now."""
        line, now = (record.pathname, record.lineno), time.monotonic()
        if now - self._last.get(line, -_REPEAT_S) < _REPEAT_S:
            return False
        self._last[line] = now
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """One record. rclpy wants each line of code to keep to one severity."""
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
    """Show the package's log as the node's; give the result to `stop_logging` at the end."""
    handler = RosLogHandler(node)
    logging.getLogger("ros2_pose").addHandler(handler)
    logging.getLogger("ros2_pose").setLevel(logging.INFO)
    return handler


def stop_logging(handler: logging.Handler) -> None:
    """Undo `log_to`."""
    logging.getLogger("ros2_pose").removeHandler(handler)

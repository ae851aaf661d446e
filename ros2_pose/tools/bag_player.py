"""Player of rosbag2 bags at their recorded times, for machines without `ros2 bag play`.

    bag_player BAG [--rate R] [--wait] [--times FILE] [--ros-args -r /old:=/new ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import rclpy
from rclpy.duration import Duration
from rclpy.node import Node
from rosbags.highlevel import AnyReader

from ros2_pose.nodes.message_factory import message_class
from ros2_pose.offline.rosbag_files import typestore

_PATIENCE_S = 120.0  # limit for waiting for subscribers
_DRAIN_S = 2.0  # for the last messages to be acknowledged


class BagPlayer(Node):
    """Publishes every topic of a bag, reliable, at the recorded intervals divided by `rate`.

    Attributes:
        times: publication times by topic, ns since 1970.
    """

    def __init__(self, path: Path, rate: float = 1.0):
        super().__init__("bag_player")
        self.rate = rate
        self.times: dict[str, list[int]] = {}
        self.reader = AnyReader([path], default_typestore=typestore())
        self.reader.open()
        self.topic_publishers = {
            c.topic: self.create_publisher(message_class(c.msgtype), c.topic, 10)
            for c in self.reader.connections}

    def wait_for_subscribers(self) -> list[str]:
        """Wait until every topic has a subscriber. Returns the topics without one at the limit."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            missing = [topic for topic, publisher in self.topic_publishers.items()
                       if not publisher.get_subscription_count()]
            if not missing or time.monotonic() >= deadline:
                return missing
            time.sleep(0.05)

    def play(self) -> None:
        """Publish the whole bag; returns when the last message is acknowledged."""
        begin_s, first_ns = time.monotonic(), self.reader.start_time
        for connection, recorded_ns, data in self.reader.messages():
            due_s = begin_s + (recorded_ns - first_ns) * 1e-9 / self.rate
            time.sleep(max(due_s - time.monotonic(), 0))
            self.times.setdefault(connection.topic, []).append(time.time_ns())
            self.topic_publishers[connection.topic].publish(bytes(data))
        for publisher in self.topic_publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=_DRAIN_S))


def main(args=None) -> int:
    """Play the bag that the command line names. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="bag_player", description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.0, help="2 plays twice as fast")
    parser.add_argument("--wait", action="store_true", help="wait for a subscriber of every topic")
    parser.add_argument("--times", type=Path, help="write publication times to this JSON file")
    rclpy.init(args=args)
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    player = BagPlayer(options.bag, options.rate)
    try:
        missing = player.wait_for_subscribers() if options.wait else []
        if missing:
            print(f"bag_player: no subscriber to {', '.join(missing)} for {_PATIENCE_S:g} s",
                  file=sys.stderr)
            return 1
        player.play()
        if options.times:
            options.times.write_text(json.dumps(player.times))
    except KeyboardInterrupt:
        return 130
    finally:
        player.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Publishes a rosbag2 bag in its own time, for machines that have no `ros2 bag play`.

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
from ros2_pose.offline.rosbag_reader import typestore

_PATIENCE_S = 120.0  # for subscribers to come
_DRAIN_S = 2.0  # for the last messages to be acknowledged


class BagPlayer(Node):
    """Publishes every topic of a bag, reliable, each message as many seconds after the first as it
    was recorded, divided by rate."""

    def __init__(self, path: Path, rate: float = 1.0):
        super().__init__("bag_player")
        self.rate = rate
        self.times: dict[str, list[int]] = {}  # ns since 1970 of each publication, by topic
        self.reader = AnyReader([path], default_typestore=typestore())
        self.reader.open()
        self.outlets = {c.topic: self.create_publisher(message_class(c.msgtype), c.topic, 10)
                        for c in self.reader.connections}

    def wait_for_subscribers(self) -> list[str]:
        """Until every topic has one, or patience ends; the topics that still have none."""
        until = time.monotonic() + _PATIENCE_S
        while (unheard := [topic for topic, outlet in self.outlets.items()
                           if not outlet.get_subscription_count()]) and time.monotonic() < until:
            time.sleep(0.05)
        return unheard

    def play(self) -> None:
        """Publish the whole bag; returns when the last message was sent."""
        begin, first = time.monotonic(), self.reader.start_time
        for connection, recorded, data in self.reader.messages():
            due = begin + (recorded - first) * 1e-9 / self.rate
            time.sleep(max(due - time.monotonic(), 0))
            self.times.setdefault(connection.topic, []).append(time.time_ns())
            self.outlets[connection.topic].publish(bytes(data))
        for outlet in self.outlets.values():
            outlet.wait_for_all_acked(Duration(seconds=_DRAIN_S))


def main(args=None) -> int:
    """Play the bag that the command line names."""
    parser = argparse.ArgumentParser(prog="bag_player", description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.0, help="2 plays twice as fast")
    parser.add_argument("--wait", action="store_true", help="for a subscriber of every topic")
    parser.add_argument("--times", type=Path, help="JSON file for the times of publication")
    rclpy.init(args=args)
    options = parser.parse_args(rclpy.utilities.remove_ros_args(sys.argv)[1:])
    player = BagPlayer(options.bag, options.rate)
    try:
        if options.wait and (unheard := player.wait_for_subscribers()):
            print(f"bag_player: nobody subscribed to {', '.join(unheard)} for {_PATIENCE_S:g} s",
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

"""What others than our own subscribers hear of people: navigation, ROS4HRI, users of vision_msgs.

Each output is published for images that were looked at, and for those alone. While the node cannot
look (a bad image, a failure, no camera, no transform) nothing comes, so that a costmap keeps what
it had: an empty list says that someone looked and the people have gone, or that the node was told
to stop (deactivate, cleanup, shutdown), or that `people_timeout_s` is over. Whoever relies on these
topics watches their stamps. A package that is missing costs its own output alone.
"""

from __future__ import annotations

import logging
import os

from rclpy.node import Node

from ros2_pose.messages import external as interop
from ros2_pose.messages.people import person_id
from ros2_pose.messages.standard import stamp_of
from ros2_pose.nodes.message_factory import make, message_class
from ros2_pose.nodes.params import NodeConfig
from ros2_pose.nodes.qos_events import PublisherEventCallbacks
from ros2_pose.nodes.tf_listener import PeopleByFrame

log = logging.getLogger(__name__)

_DEPTH = 5
_KEEP_NS = 10_000_000_000  # the topics of someone who left; the tracker gives ids again after that


def optional_outputs(node: Node, config: NodeConfig) -> list:
    """Those of the outputs that are asked for and whose messages are installed."""
    outputs = []
    for wanted, output in ((config.navigation_frame, NavigationOutput),
                           (config.rep155, BodiesOutput),
                           (config.detections, DetectionsOutput)):
        try:
            outputs += [output(node)] if wanted else []
        except ImportError as error:
            log.warning("%s: %s is not published; sudo apt install ros-%s-%s, or build that "
                        "package in your workspace", error, output.topic,
                        os.environ.get("ROS_DISTRO", "$ROS_DISTRO"),
                        output.package.replace("_", "-"))
    return outputs


class _ListOutput:
    """An output whose topic lists people; an empty list ends what the last one said.

    list_topic: where the list is published, `topic` itself or below it.
    """

    topic: str
    kind: str

    def __init__(self, node: Node, list_topic: str = ""):
        self.node = node
        self._last_header = None  # of a list with people
        self._publisher = node.create_publisher(message_class(self.kind),
                                                list_topic or self.topic, _DEPTH)

    def empty(self) -> None:
        """Publish an empty list, if the last one was not."""
        if self._last_header is not None:
            self._publisher.publish(make(self.kind, header=self._last_header))
            self._last_header = None

    def _say(self, message, members) -> None:
        self._publisher.publish(message)
        self._last_header = message.header if members else None

    def close(self) -> None:
        """Take the topic away."""
        self.node.destroy_publisher(self._publisher)


class NavigationOutput(_ListOutput):
    """/people (people_msgs/People) in navigation_frame, for costmap layers."""

    topic, package = "/people", "people_msgs"
    kind = "people_msgs/msg/People"

    def publish(self, views: PeopleByFrame, size: tuple[int, int]) -> None:
        """The people of an image; nothing if there are some and nobody could be placed."""
        message = interop.navigation_people(make, *views.navigated)
        if message is not None:
            self._say(message, message.people)


class DetectionsOutput(_ListOutput):
    """~/detections (vision_msgs/Detection3DArray) in the frame of ~/people, if subscribed."""

    topic, package = "~/detections", "vision_msgs"
    kind = "vision_msgs/msg/Detection3DArray"

    def publish(self, views: PeopleByFrame, size: tuple[int, int]) -> None:
        """Those seen in an image who have a body."""
        if self._publisher.get_subscription_count():
            message = interop.detections(make, *views.shown)
            self._say(message, message.detections)


class BodiesOutput(_ListOutput):
    """/humans/bodies (REP-155): who is tracked, and topics of each of them.

    The topics of someone who left go after ten seconds; as ids come from a small pool, so do they.
    """

    topic, package = "/humans/bodies", "hri_msgs"
    kind = "hri_msgs/msg/IdsList"

    def __init__(self, node: Node):
        super().__init__(node, f"{self.topic}/tracked")
        self._bodies: dict[str, _Body] = {}

    def publish(self, views: PeopleByFrame, size: tuple[int, int]) -> None:
        """Skeletons and regions of an image of (width, height) px, then who they belong to."""
        header, people = views.seen
        message, rows = interop.tracked_bodies(make, header, people)
        for i in rows:
            name = person_id(people, i)
            if name not in self._bodies:
                self._bodies[name] = _Body(self.node, f"{self.topic}/{name}")
            body = self._bodies[name]
            body.seen = stamp_of(header)
            body.skeleton.publish(interop.hri_skeleton(make, header, people, i, size))
            body.region.publish(interop.hri_region(make, header, people, i, size))
        self._say(message, message.ids)
        self._forget(stamp_of(header))

    def close(self) -> None:
        """Take the topics away."""
        super().close()
        for body in self._bodies.values():
            body.close()

    def _forget(self, stamp: int) -> None:
        """Whoever has not been seen for long, or was seen in another time."""
        for name, body in list(self._bodies.items()):
            if not 0 <= stamp - body.seen <= _KEEP_NS:
                self._bodies.pop(name).close()


class _Body:
    """A person's topics.

    They come and go while the node runs, at the hand of the worker's thread: publishers with
    events are among what the executor waits for, and one that goes meanwhile would end its spin.
    """

    def __init__(self, node: Node, topic: str):
        self.node, self.seen = node, 0  # stamp
        no_events = PublisherEventCallbacks(use_default_callbacks=False)
        self.skeleton, self.region = (
            node.create_publisher(message_class(kind), f"{topic}/{name}", _DEPTH,
                                  event_callbacks=no_events)
            for kind, name in (("hri_msgs/msg/Skeleton2D", "skeleton2d"),
                               ("hri_msgs/msg/NormalizedRegionOfInterest2D", "roi")))

    def close(self) -> None:
        """Take the topics away."""
        self.node.destroy_publisher(self.skeleton)
        self.node.destroy_publisher(self.region)

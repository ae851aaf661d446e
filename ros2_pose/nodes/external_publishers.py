"""Optional outputs in messages of other packages: navigation, ROS4HRI, vision_msgs.

Outputs are published for processed images only. While the node cannot process (a bad image, a
failure, no camera, no transform) nothing is published, so that a costmap keeps its content: an
empty list means that an image was processed and the people have left, that the node was stopped
(deactivate, cleanup, shutdown), or that `people_timeout_s` has passed. Subscribers that rely on
these topics must check their stamps. If a message package is missing, only its output is left out.

To add an output: subclass `ExternalOutput` and append the class to `EXTERNAL_OUTPUTS`.
"""

from __future__ import annotations

import logging
import os

from rclpy.node import Node

from ros2_pose.messages import external
from ros2_pose.messages.people import person_id
from ros2_pose.messages.standard import stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes.message_factory import make, message_class
from ros2_pose.nodes.qos import PublisherEventCallbacks
from ros2_pose.nodes.tf_listener import PeopleByFrame

log = logging.getLogger(__name__)

_QUEUE_DEPTH = 5
_KEEP_NS = 10_000_000_000  # topics of a lost person; the tracker reuses ids later than that


def external_outputs(node: Node, config: NodeConfig) -> list[ExternalOutput]:
    """The outputs that the settings ask for and that have their messages installed."""
    outputs = []
    for output in EXTERNAL_OUTPUTS:
        if not output.is_wanted(config):
            continue
        try:
            outputs.append(output(node))
        except ImportError as error:
            log.warning("%s: %s is not published; sudo apt install ros-%s-%s, or build that "
                        "package in your workspace", error, output.topic,
                        os.environ.get("ROS_DISTRO", "$ROS_DISTRO"),
                        output.package.replace("_", "-"))
    return outputs


class ExternalOutput:
    """An output with a topic that lists people; an empty list clears the last one.

    Class attributes:
        topic: name of the output.
        list_topic: topic of the list; by default `topic`.
        package: of the messages, as apt names it.
        list_type: message type of the list.
    """

    topic: str
    list_topic: str = ""
    package: str
    list_type: str

    def __init__(self, node: Node):
        """Create the publisher. Raises ImportError if the messages are not installed."""
        self.node = node
        self._last_header = None  # of the last list, if it had people
        self._publisher = node.create_publisher(message_class(self.list_type),
                                                self.list_topic or self.topic, _QUEUE_DEPTH)

    @staticmethod
    def is_wanted(config: NodeConfig) -> bool:
        """Whether the settings ask for this output."""
        raise NotImplementedError

    def publish(self, people: PeopleByFrame, size: tuple[int, int]) -> None:
        """Publish the people of an image of `size` (width, height) px."""
        raise NotImplementedError

    def publish_empty(self) -> None:
        """Publish an empty list, unless the last one was empty."""
        if self._last_header is not None:
            self._publisher.publish(make(self.list_type, header=self._last_header))
            self._last_header = None

    def close(self) -> None:
        """Destroy the publishers."""
        self.node.destroy_publisher(self._publisher)

    def _publish_list(self, message, members) -> None:
        self._publisher.publish(message)
        self._last_header = message.header if members else None


class NavigationOutput(ExternalOutput):
    """/people (people_msgs/People) in navigation_frame, for costmap layers."""

    topic, package = "/people", "people_msgs"
    list_type = "people_msgs/msg/People"

    @staticmethod
    def is_wanted(config: NodeConfig) -> bool:
        """Whether navigation_frame is set."""
        return bool(config.navigation_frame)

    def publish(self, people: PeopleByFrame, size: tuple[int, int]) -> None:
        """Publish the people; nothing if there are people but none with a known position."""
        message = external.navigation_people(make, *people.in_navigation_frame)
        if message is not None:
            self._publish_list(message, message.people)


class DetectionsOutput(ExternalOutput):
    """~/detections (vision_msgs/Detection3DArray) in the frame of ~/people, if subscribed."""

    topic, package = "~/detections", "vision_msgs"
    list_type = "vision_msgs/msg/Detection3DArray"

    @staticmethod
    def is_wanted(config: NodeConfig) -> bool:
        """Whether detections is true."""
        return config.detections

    def publish(self, people: PeopleByFrame, size: tuple[int, int]) -> None:
        """Publish the people that are detected in the image and have a body."""
        if self._publisher.get_subscription_count():
            message = external.detections(make, *people.in_target_frame)
            self._publish_list(message, message.detections)


class BodiesOutput(ExternalOutput):
    """/humans/bodies (REP-155): the ids of tracked people, and topics of each of them.

    A person's topics are destroyed ten seconds after the person was last seen; as ids are taken
    from a small pool, topic names are reused, too.
    """

    topic, package = "/humans/bodies", "hri_msgs"
    list_topic = f"{topic}/tracked"
    list_type = "hri_msgs/msg/IdsList"

    def __init__(self, node: Node):
        super().__init__(node)
        self._bodies: dict[str, _BodyPublishers] = {}

    @staticmethod
    def is_wanted(config: NodeConfig) -> bool:
        """Whether rep155 is true."""
        return config.rep155

    def publish(self, people: PeopleByFrame, size: tuple[int, int]) -> None:
        """Publish skeletons and image regions, then the list of ids they belong to."""
        header, in_image = people.in_image_frame
        message, rows = external.tracked_bodies(make, header, in_image)
        for i in rows:
            name = person_id(in_image, i)
            if name not in self._bodies:
                self._bodies[name] = _BodyPublishers(self.node, f"{self.topic}/{name}")
            body = self._bodies[name]
            body.last_stamp = stamp_of(header)
            body.skeleton.publish(external.hri_skeleton(make, header, in_image, i, size))
            body.region.publish(external.hri_region(make, header, in_image, i, size))
        self._publish_list(message, message.ids)
        self._forget(stamp_of(header))

    def close(self) -> None:
        """Destroy the publishers."""
        super().close()
        for body in self._bodies.values():
            body.close()

    def _forget(self, stamp: int) -> None:
        """Destroy the topics of people not seen for long, or seen before time restarted."""
        for name, body in list(self._bodies.items()):
            if not 0 <= stamp - body.last_stamp <= _KEEP_NS:
                self._bodies.pop(name).close()


EXTERNAL_OUTPUTS: tuple[type[ExternalOutput], ...] = (
    NavigationOutput, BodiesOutput, DetectionsOutput)


class _BodyPublishers:
    """Publishers of one person's topics.

    The worker thread creates and destroys them while the node runs. They have no event callbacks:
    an executor waits for those, and destroying one meanwhile would end its spin.
    """

    def __init__(self, node: Node, topic: str):
        self.node = node
        self.last_stamp = 0  # ns
        self.skeleton = self._create("hri_msgs/msg/Skeleton2D", f"{topic}/skeleton2d")
        self.region = self._create("hri_msgs/msg/NormalizedRegionOfInterest2D", f"{topic}/roi")

    def _create(self, message_type: str, topic: str):
        no_events = PublisherEventCallbacks(use_default_callbacks=False)
        return self.node.create_publisher(message_class(message_type), topic, _QUEUE_DEPTH,
                                          event_callbacks=no_events)

    def close(self) -> None:
        """Destroy the publishers."""
        self.node.destroy_publisher(self.skeleton)
        self.node.destroy_publisher(self.region)

"""What the node publishes of each image, and nothing that nobody asked for."""

from __future__ import annotations

import time

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from ros2_pose.body.model import BodyModel
from ros2_pose.draw import overlay
from ros2_pose.messages.image import image_message
from ros2_pose.messages.markers import delete_all, marker_array
from ros2_pose.messages.people import (
    STATUS_NO_IMAGE,
    STATUS_OK,
    FrameReport,
    people_message,
    skeleton_info_message,
)
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.messages.tf import tf_message
from ros2_pose.msg import People as PeopleMessage
from ros2_pose.msg import SkeletonInfo
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.nodes.external_publishers import optional_outputs
from ros2_pose.nodes.frame_assembly import ViewImage
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.params import Parameters
from ros2_pose.nodes.tf_listener import PeopleByFrame, TfListener
from ros2_pose.people import People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import Stream


class Outputs:
    """The node's publishers, with the image's stamp on all that they say."""

    def __init__(self, node: Node, parameters: Parameters, pipeline: Pipeline | MultiPipeline,
                 frames: TfListener):
        self.node, self.parameters, self.pipeline = node, parameters, pipeline
        self.frames = frames
        self._shown: set[str] = set()  # ids whose markers are there
        self._last_tf = -int(1e18)  # stamp
        self._last_surfaces = self._last_people = 0.0  # monotonic, s
        self._stream = Stream()  # of the images' stamps
        self._people = node.create_publisher(PeopleMessage, "~/people", 5)
        self._markers = node.create_publisher(MarkerArray, "~/markers", 5)
        self._overlays = {
            name: node.create_publisher(Image, f"~/{name}/overlay" if name else "~/overlay", 1)
            for name in parameters.node.camera_names}
        self._tf = node.create_publisher(TFMessage, "/tf", 100)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._skeleton_info = node.create_publisher(SkeletonInfo, "~/skeleton_info", latched)
        self._skeleton_info.publish(skeleton_info_message(
            make, header_message(make, 0, ""), pipeline.network_name, pipeline.body_name))
        self._optional = optional_outputs(node, parameters.node)

    def close(self) -> None:
        """Take the topics away."""
        for publisher in (self._people, self._markers, *self._overlays.values(), self._tf,
                          self._skeleton_info):
            self.node.destroy_publisher(publisher)
        for output in self._optional:
            output.close()

    def failure(self, header, look: FrameReport) -> None:
        """Say that nobody could look, and why: never an empty room."""
        self._people.publish(people_message(make, header, People.nobody(), look))

    def empty(self, header, why: str) -> None:
        """Say that the node stops looking: nobody is shown any longer, and nobody looks.

        header: of the last image.
        """
        self.failure(header, FrameReport(0, 0, STATUS_NO_IMAGE, why))
        self.empty_optional()
        self._markers.publish(delete_all(make, header))
        self._shown = set()

    def empty_optional(self) -> None:
        """Tell navigation and others, if they heard of people, that there are none."""
        for output in self._optional:
            output.empty()

    def expire(self, now: float) -> None:
        """Empty the topics of others if nobody could look for people_timeout_s; now: monotonic."""
        timeout = self.parameters.node.people_timeout_s
        if timeout and self._last_people and now - self._last_people > timeout:
            self._last_people = 0.0
            self.empty_optional()

    def publish(self, views: PeopleByFrame, pictures: list[ViewImage], look: FrameReport) -> None:
        """Everything about images that were looked at."""
        self._people.publish(people_message(make, *views.shown, look))
        # To others an empty list says that the room is empty; a camera that did not look cannot.
        blind = len(self._overlays) > 1 and look.status != STATUS_OK
        self._stream.advance(stamp_of(views.seen.header))
        if len(views.seen.people) or not blind:
            self._last_people = time.perf_counter()
            for output in self._optional:
                output.publish(views, pictures[0].image.shape[1::-1])
        self._publish_tf(*views.shown)
        self._publish_markers(*views.shown)
        for picture in pictures:
            self._publish_overlay(picture)

    def _publish_overlay(self, picture: ViewImage) -> None:
        publisher = self._overlays[picture.camera_name]
        if publisher.get_subscription_count():
            body = self.pipeline.body if self.parameters.node.overlay_bodies else None
            drawn = overlay(picture.image, picture.people, picture.camera, body)
            publisher.publish(image_message(make, picture.header, drawn))

    def _publish_tf(self, header, people: People) -> None:
        stamp = stamp_of(header)
        if not self.parameters.node.tf or not header.frame_id or stamp == self._last_tf:
            return  # a transform of the same time again would be refused by every listener
        message = tf_message(make, header, people, self.parameters.node.frame_names)
        if message.transforms:
            self.frames.ignore(t.child_frame_id for t in message.transforms)
            self._tf.publish(message)
            self._last_tf = stamp

    def _publish_markers(self, header, people: People) -> None:
        if not self._markers.get_subscription_count():
            self._shown = set()
            return
        lifetime_s = self._stream.patience_s(self.parameters.node.marker_lifetime_s)
        message, self._shown = marker_array(make, header, people, self._shown, lifetime_s,
                                            self._body_to_show())
        self._markers.publish(message)

    def _body_to_show(self) -> BodyModel | None:
        """The body model, as often as surfaces are to be shown."""
        rate, now = self.parameters.node.body_marker_hz, time.perf_counter()
        if not rate or now - self._last_surfaces < 0.9 / rate:  # images jitter
            return None
        self._last_surfaces = now
        return self.pipeline.body

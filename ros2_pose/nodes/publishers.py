"""What the node publishes for each image; optional topics only if subscribed or asked for."""

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
from ros2_pose.nodes.external_publishers import external_outputs
from ros2_pose.nodes.frame_assembly import ViewImage
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.params import NodeParameters
from ros2_pose.nodes.tf_listener import PeopleByFrame, TfListener
from ros2_pose.people import People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import Stream


class PosePublishers:
    """The node's publishers; every message has the stamp of its image."""

    def __init__(self, node: Node, parameters: NodeParameters, pipeline: Pipeline | MultiPipeline,
                 tf_listener: TfListener):
        self.node, self.parameters, self.pipeline = node, parameters, pipeline
        self.tf_listener = tf_listener
        self._marked_ids: set[str] = set()  # people with markers
        self._last_tf = -int(1e18)  # stamp
        self._last_surfaces_s = 0.0  # monotonic
        self._last_people_s = 0.0  # monotonic; 0 if the external outputs are empty
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
        self._external = external_outputs(node, parameters.node)

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._people, self._markers, *self._overlays.values(), self._tf,
                          self._skeleton_info):
            self.node.destroy_publisher(publisher)
        for output in self._external:
            output.close()

    def publish(self, people: PeopleByFrame, views: list[ViewImage], report: FrameReport) -> None:
        """Publish the people of processed images on every topic."""
        self._people.publish(people_message(make, *people.in_target_frame, report))
        header, in_image = people.in_image_frame
        self._stream.advance(stamp_of(header))
        # Externally an empty list means that there are no people, which cameras that did not give
        # an image cannot say.
        incomplete = len(self._overlays) > 1 and report.status != STATUS_OK
        if len(in_image) or not incomplete:
            self._last_people_s = time.perf_counter()
            for output in self._external:
                output.publish(people, views[0].image.shape[1::-1])
        self._publish_tf(*people.in_target_frame)
        self._publish_markers(*people.in_target_frame)
        for view in views:
            self._publish_overlay(view)

    def publish_failure(self, header, report: FrameReport) -> None:
        """Publish on ~/people why no image was processed; the status tells it from no people."""
        self._people.publish(people_message(make, header, People.nobody(), report))

    def publish_stopped(self, header, reason: str) -> None:
        """Publish that the node stops: empty lists, no markers.

        Args:
            header: of the last image.
        """
        self.publish_failure(header, FrameReport(0, 0, STATUS_NO_IMAGE, reason))
        self._publish_external_empty()
        self._markers.publish(delete_all(make, header))
        self._marked_ids = set()

    def expire(self, now_s: float) -> None:
        """Publish empty external lists if no image was processed for people_timeout_s.

        Args:
            now_s: monotonic time, s.
        """
        timeout_s = self.parameters.node.people_timeout_s
        if timeout_s and self._last_people_s and now_s - self._last_people_s > timeout_s:
            self._last_people_s = 0.0
            self._publish_external_empty()

    def _publish_external_empty(self) -> None:
        for output in self._external:
            output.publish_empty()

    def _publish_overlay(self, view: ViewImage) -> None:
        publisher = self._overlays[view.camera_name]
        if publisher.get_subscription_count():
            body = self.pipeline.body if self.parameters.node.overlay_bodies else None
            drawn = overlay(view.image, view.people, view.camera, body)
            publisher.publish(image_message(make, view.header, drawn))

    def _publish_tf(self, header, people: People) -> None:
        stamp = stamp_of(header)
        if not self.parameters.node.tf or not header.frame_id or stamp == self._last_tf:
            return  # listeners reject a second transform of the same stamp
        message = tf_message(make, header, people, self.parameters.node.frame_names)
        if message.transforms:
            self.tf_listener.ignore_frames(t.child_frame_id for t in message.transforms)
            self._tf.publish(message)
            self._last_tf = stamp

    def _publish_markers(self, header, people: People) -> None:
        if not self._markers.get_subscription_count():
            self._marked_ids = set()
            return
        lifetime_s = self._stream.patience_s(self.parameters.node.marker_lifetime_s)
        message, self._marked_ids = marker_array(make, header, people, self._marked_ids,
                                                 lifetime_s, self._body_for_surfaces())
        self._markers.publish(message)

    def _body_for_surfaces(self) -> BodyModel | None:
        """The body model if body surfaces are due at body_marker_hz, otherwise None."""
        rate_hz, now_s = self.parameters.node.body_marker_hz, time.perf_counter()
        if not rate_hz or now_s - self._last_surfaces_s < 0.9 / rate_hz:  # images jitter
            return None
        self._last_surfaces_s = now_s
        return self.pipeline.body

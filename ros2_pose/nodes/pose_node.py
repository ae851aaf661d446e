"""The node: images in, people out.

Threads: the executor's callbacks store the newest image and calibration and return; one worker
takes the newest image, looks at it and publishes. An image that comes while the worker is busy
replaces the one that waits.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Callable, NamedTuple

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from ros2_pose import messages
from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera, CameraError
from ros2_pose.draw import overlay
from ros2_pose.errors import PoseError
from ros2_pose.images import ImageError, image_message, rgb_from_compressed
from ros2_pose.markers import marker_array
from ros2_pose.messages import Look
from ros2_pose.msg import People as PeopleMessage
from ros2_pose.msg import SkeletonInfo
from ros2_pose.nodes.convert import image_reader, make
from ros2_pose.nodes.diagnostics import Statistics, diagnostics
from ros2_pose.nodes.image_input import CameraInput
from ros2_pose.nodes.log import log_to, stop_logging
from ros2_pose.nodes.newest import Newest
from ros2_pose.nodes.params import Parameters
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline, PipelineError

_REPEAT_S = 5.0  # a complaint is not repeated sooner


class _Arrival(NamedTuple):
    message: Image | CompressedImage
    camera: Camera | None
    time: float  # monotonic, s


class PoseNode(Node):
    """Looks at a camera's images and publishes who is there.

    Subscribes
        image (sensor_msgs/Image), or <image>/compressed (sensor_msgs/CompressedImage) if the
            parameter transport says so
        camera_info (sensor_msgs/CameraInfo), beside the image topic unless remapped
    Publishes, with the image's stamp and frame
        ~/people (ros2_pose/People): one for every image looked at, also when nobody is there
        ~/markers (visualization_msgs/MarkerArray) and ~/overlay (sensor_msgs/Image): if subscribed
        /tf (tf2_msgs/TFMessage): frames <id> and <id>_<joint> of those tracked
        ~/skeleton_info (ros2_pose/SkeletonInfo): once, latched
        /diagnostics (diagnostic_msgs/DiagnosticArray): each second, with the node's own time
    Parameters: the fields of ros2_pose.config.PoseConfig and ros2_pose.nodes.params.NodeConfig.
    """

    def __init__(self, make_pipeline: Callable = Pipeline, **node_options):
        super().__init__("ros2_pose", **node_options)
        self._log_handler = log_to(self)
        self.parameters = Parameters(self)
        self.pipeline = make_pipeline(self.parameters.pose)
        self._read_image = image_reader()
        self.statistics = Statistics()
        self._waiting = Newest()
        self._camera: Camera | None = None
        self._camera_problem = ""
        self._calibration = None  # what the camera was made of
        self._shown: set[str] = set()  # ids whose markers are there
        self._last_surfaces = -int(1e18)
        self._last_tf = -1  # stamp
        self._create_publishers()
        self._input = CameraInput(self, self.parameters.node, self._on_image, self._on_info)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._worker = threading.Thread(target=self._work, name="worker")
        self._worker.start()
        self.get_logger().info(f"{self.parameters.pose.network} on {self.pipeline.device}; images "
                               f"from {self._input.image.topic}")

    def close(self) -> None:
        """Stop the worker, when it is done with its image; before destroy_node."""
        self._waiting.close()
        self._worker.join()
        stop_logging(self._log_handler)

    # Setting up ---------------------------------------------------------------------------------

    def _create_publishers(self) -> None:
        self._people = self.create_publisher(PeopleMessage, "~/people", 5)
        self._markers = self.create_publisher(MarkerArray, "~/markers", 5)
        self._overlay = self.create_publisher(Image, "~/overlay", 1)
        self._tf = self.create_publisher(TFMessage, "/tf", 100)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 5)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._skeleton_info = self.create_publisher(SkeletonInfo, "~/skeleton_info", latched)
        self._skeleton_info.publish(messages.skeleton_info(
            make, messages.header(make, 0, ""), self.pipeline.network_name,
            self.pipeline.body_name))

    # Callbacks: store and return ----------------------------------------------------------------

    def _on_image(self, message) -> None:
        self._waiting.put(_Arrival(message, self._camera, time.perf_counter()))

    def _on_info(self, info) -> None:
        rectified = self.parameters.node.rectified
        key = messages.calibration_key(info), rectified
        if key == self._calibration:
            return
        self._calibration = key
        try:
            self._camera, self._camera_problem = messages.camera_from_info(info, rectified), ""
        except CameraError as error:
            self._camera, self._camera_problem = None, str(error)
            self.get_logger().warning(f"CameraInfo on {self._input.info.topic}: {error}",
                                      throttle_duration_sec=_REPEAT_S)

    # The worker ---------------------------------------------------------------------------------

    def _work(self) -> None:
        while (arrival := self._waiting.take()) is not None:
            try:
                self._look(arrival)
            except Exception as error:  # an output failed; the next image is another one
                if rclpy.ok(context=self.context):
                    self._fail(f"could not publish: {type(error).__name__}: {error}")

    def _look(self, arrival: _Arrival) -> None:
        """Answer one image, with people or with the reason why not."""
        header = arrival.message.header
        try:
            frame = Frame(self._picture(arrival.message), arrival.camera,
                          messages.stamp_of(header))
            people = self._people_in(frame)
        except (ImageError, PipelineError) as error:
            self.statistics.bad_images += 1
            self.get_logger().warning(f"bad image: {error}", throttle_duration_sec=_REPEAT_S)
            self._publish_failure(header, arrival, messages.STATUS_BAD_IMAGE, str(error))
        except Exception as error:  # the robot must not lose its eyes to one image
            self.statistics.failures += 1
            text = f"{type(error).__name__}: {error}"
            self._fail(text)
            self._publish_failure(header, arrival, messages.STATUS_FAILED, text)
        else:
            self._publish(header, arrival, frame, people)

    def _picture(self, message):
        if isinstance(message, CompressedImage):
            return rgb_from_compressed(message)
        return self._read_image(message)

    def _people_in(self, frame: Frame) -> People:
        if self.parameters.pose is not self.pipeline.config:
            self.pipeline.configure(self.parameters.pose)
        people = self.pipeline.step(frame)
        if people.note and frame.camera is None and self._camera_problem:
            return people.with_fields(note=f"CameraInfo: {self._camera_problem}")
        return people

    def _publish_failure(self, header, arrival: _Arrival, status: int, text: str) -> None:
        self.statistics.problem = self.statistics.last_error = text
        size = getattr(arrival.message, "width", 0), getattr(arrival.message, "height", 0)
        self._people.publish(messages.people_message(
            make, header, People.nobody(), self._look_report(size, status, text)))

    def _publish(self, header, arrival: _Arrival, frame: Frame, people: People) -> None:
        self.statistics.problem = people.note
        look = self._look_report(frame.image.shape[1::-1], messages.status_of(people), people.note)
        self._people.publish(messages.people_message(make, header, people, look))
        self._publish_tf(header, people)
        self.statistics.good(len(people), time.perf_counter() - arrival.time)
        self._publish_markers(header, people)
        if self._overlay.get_subscription_count():
            body = self.pipeline.body if self.parameters.node.overlay_bodies else None
            camera, _ = self.pipeline.camera(frame)
            drawn = overlay(frame.image, people, camera, body)
            self._overlay.publish(image_message(make, header, drawn))

    def _look_report(self, size: tuple[int, int], status: int, text: str) -> Look:
        return Look(*size, status, text, self._waiting.received, self._waiting.dropped)

    def _publish_tf(self, header, people: People) -> None:
        stamp = messages.stamp_of(header)
        if not self.parameters.node.tf or not header.frame_id or stamp == self._last_tf:
            return  # a transform of the same time again would be refused by every listener
        message = messages.tf_message(make, header, people)
        if message.transforms:
            self._tf.publish(message)
            self._last_tf = stamp

    def _publish_markers(self, header, people: People) -> None:
        if not self._markers.get_subscription_count():
            self._shown = set()
            return
        message, self._shown = marker_array(make, header, people, self._shown,
                                            self.parameters.node.marker_lifetime_s,
                                            self._body_to_show(messages.stamp_of(header)))
        self._markers.publish(message)

    def _body_to_show(self, stamp: int) -> BodyModel | None:
        """The body model, as often as surfaces are to be shown."""
        rate = self.parameters.node.body_marker_hz
        if not rate or 0 <= stamp - self._last_surfaces < 0.9e9 / rate:  # stamps jitter
            return None
        self._last_surfaces = stamp
        return self.pipeline.body

    # Telling how it goes ------------------------------------------------------------------------

    def _fail(self, text: str) -> None:
        self.statistics.last_error = text
        self.get_logger().error(f"image not answered: {text}", throttle_duration_sec=_REPEAT_S)

    def _report(self) -> None:
        """Publish the diagnostics."""
        counts, waiting = self.statistics, self._waiting
        rate_in, rate_out = counts.rates(time.perf_counter(), waiting.received)
        p50, p95 = counts.latency_ms()
        values = {
            "device": self.pipeline.device, "network": self.pipeline.network_name,
            "images per s, in": rate_in, "images per s, answered": rate_out,
            "images received": waiting.received, "images dropped": waiting.dropped,
            "images bad": counts.bad_images, "images failed": counts.failures,
            "latency p50, ms": p50, "latency p95, ms": p95, "people": counts.people,
            "reliability": self._input.image.policy.name.lower(),
            "camera": self._camera_problem or ("known" if self._camera else "no CameraInfo"),
            "last error": counts.last_error or "none"}
        header = messages.header(make, self.get_clock().now().nanoseconds, "")
        self._diagnostics.publish(diagnostics(
            make, header, self.get_fully_qualified_name(), values,
            counts.status(waiting.received, rate_in)))


def _spin(node: Node) -> None:
    """Run the callbacks until rclpy is shut down."""
    try:
        rclpy.spin(node)
    except Exception:  # a signal that comes while rclpy prepares its wait makes that fail
        if rclpy.ok():
            raise


def main(args=None) -> int:
    """Run the node until it is interrupted; 1 if it could not start."""
    node = None
    try:
        rclpy.init(args=args)
        node = PoseNode()
        _spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (PoseError, ParameterException) as error:
        print(f"pose_node cannot start: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())

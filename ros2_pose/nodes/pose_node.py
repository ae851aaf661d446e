"""The node: subscribes to camera images and publishes tracked people.

A managed (lifecycle) node. Configured, it has loaded its networks and created its publishers;
active, it subscribes and a worker thread processes images. It configures and activates itself
unless `autostart` is false.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ros2_pose.errors import PoseError
from ros2_pose.messages.people import STATUS_NO_IMAGE, FrameReport
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.nodes.diagnostics import OK, NodeStatistics, diagnostics
from ros2_pose.nodes.frame_assembly import MultiCameraAssembly, SingleCameraAssembly
from ros2_pose.nodes.lifecycle import RobustLifecycleNode, bond_to_manager
from ros2_pose.nodes.log import log_to, stop_logging
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.params import NodeParameters
from ros2_pose.nodes.publishers import PosePublishers
from ros2_pose.nodes.subscriptions import CameraSubscriptions, ImageArrival
from ros2_pose.nodes.tf_listener import TfListener
from ros2_pose.nodes.worker import InferenceWorker
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import CameraSync

log = logging.getLogger(__name__)

_SPIN_S = 0.1  # longest delay until a signal is noticed
_EXPIRY_INTERVAL_S = 0.2
_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class NodeError(PoseError):
    """A transition that failed; the message says why."""


class PoseNode(RobustLifecycleNode):
    """Tracks people in a camera's images, or those of several cameras, and publishes them.

    Subscribes
        image (sensor_msgs/Image), or <image>/compressed (sensor_msgs/CompressedImage) if the
            parameter transport is compressed
        camera_info (sensor_msgs/CameraInfo), beside the image topic unless remapped
        depth (sensor_msgs/Image): if the parameter depth is true; aligned with the image
        with several cameras, <name>/image and so on
        /tf, /tf_static (tf2_msgs/TFMessage): if a parameter names a frame
        the topic that the parameter imu names (sensor_msgs/Imu)
    Publishes, with the image's stamp, in its frame or in target_frame
        ~/people (ros2_pose/People): one for each processed image, also without people; while no
            image arrives, with the last image's header and a status that says why
        ~/markers (visualization_msgs/MarkerArray) and ~/overlay (sensor_msgs/Image): if subscribed
        /tf (tf2_msgs/TFMessage): frames <id> and <id>_<joint> of tracked people
        /people (people_msgs/People), ~/detections (vision_msgs/Detection3DArray) and
            /humans/bodies (hri_msgs): if parameters ask for them, see nodes/external_publishers.py
        ~/skeleton_info (ros2_pose/SkeletonInfo): once, latched
        /diagnostics (diagnostic_msgs/DiagnosticArray): each second, with the node's own time
    Parameters: the fields of ros2_pose.config.PoseConfig and ros2_pose.node_config.NodeConfig;
    those that are not live can only change while the node is unconfigured.
    """

    def __init__(self, make_pipeline: Callable = Pipeline, **node_options):
        super().__init__("ros2_pose", **node_options)
        self.parameters = NodeParameters(self)
        self._log_handler = log_to(self)
        self._make_pipeline = make_pipeline
        self.statistics = NodeStatistics()
        # While configured:
        self.pipeline: Pipeline | MultiPipeline | None = None
        self.tf_listener: TfListener | None = None
        self.pose_publishers: PosePublishers | None = None
        # While active:
        self.camera_subscriptions: list[CameraSubscriptions] = []
        self.worker: InferenceWorker | None = None
        self._sync = CameraSync(1)
        self._bond = None
        self._last_header = header_message(make, 0, "")  # of the last image
        self._configure_error = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 5)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=steady)
        self.create_timer(_EXPIRY_INTERVAL_S, self._expire, clock=steady)

    def autostart(self) -> None:
        """Configure and activate. Raises NodeError if that fails."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != _SUCCESS:
                raise NodeError(self._configure_error)

    def close(self) -> bool:
        """Stop and free everything, before destroy_node. Returns False if the worker hangs."""
        ended = self._deactivate()
        self._cleanup()
        stop_logging(self._log_handler)
        return ended

    # Transitions --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the networks and create the publishers. On failure the log says why."""
        try:
            self.pipeline = self._new_pipeline()
            self.tf_listener = TfListener(self, lambda: self.parameters.node)
            self.pose_publishers = PosePublishers(self, self.parameters, self.pipeline,
                                                  self.tf_listener)
        except Exception as error:  # the node stays, to be configured with other parameters
            self._cleanup()
            is_expected = isinstance(error, PoseError)
            self._configure_error = (str(error) if is_expected
                                     else f"{type(error).__name__}: {error}")
            log.error("cannot configure: %s", self._configure_error)
            return _FAILURE
        self.parameters.in_use = True
        return _SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker and subscribe to the cameras."""
        assert self.pipeline is not None and self.tf_listener is not None \
            and self.pose_publishers is not None  # in state inactive
        config, names = self.parameters.node, self.parameters.node.camera_names
        assembly: SingleCameraAssembly | MultiCameraAssembly
        if isinstance(self.pipeline, MultiPipeline):
            assembly = MultiCameraAssembly(self.pipeline, names, self.tf_listener,
                                           config.target_frame)
        else:
            assembly = SingleCameraAssembly(self.pipeline, self.tf_listener)
        self.worker = InferenceWorker(assembly, self.parameters, self.tf_listener,
                                      self.pose_publishers, self.statistics)
        self._sync = CameraSync(len(names))
        self.camera_subscriptions = [
            CameraSubscriptions(self, name, lambda: self.parameters.node,
                                partial(self._on_image, number), self._on_silence)
            for number, name in enumerate(names)]
        if not config.autostart:
            self._bond = bond_to_manager(self)
        log.info("images from %s", ", ".join(c.image.topic for c in self.camera_subscriptions))
        return _SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop processing and forget all people."""
        ended = self._deactivate()
        if self.pipeline is not None:
            self.pipeline.reset()
        return _SUCCESS if ended else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the networks and destroy the publishers."""
        self._cleanup()
        return _SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Deactivate and clean up, from any state."""
        self._deactivate()
        self._cleanup()
        return _SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured."""
        return self.on_shutdown(state)

    def _new_pipeline(self) -> Pipeline | MultiPipeline:
        names = self.parameters.node.camera_names
        if len(names) == 1:
            return self._make_pipeline(self.parameters.pose)
        return MultiPipeline(len(names), self.parameters.pose)

    def _deactivate(self) -> bool:
        """Stop the subscriptions and the worker. Returns False if the worker hangs."""
        for camera in self.camera_subscriptions:
            camera.close()
        worker, self.worker, self.camera_subscriptions = self.worker, None, []
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.shutdown()
        if worker is None:
            return True
        ended = worker.stop()
        if self.pose_publishers is not None:
            self.pose_publishers.publish_stopped(self._last_header, "the node was told to stop")
        return ended

    def _cleanup(self) -> None:
        for part in (self.pose_publishers, self.tf_listener):
            if part is not None:
                part.close()
        self.pose_publishers = self.tf_listener = self.pipeline = None
        self.parameters.in_use = False
        gc.collect()  # networks hold reference cycles

    # Callbacks ----------------------------------------------------------------------------------

    def _on_image(self, number: int, arrival: ImageArrival) -> None:
        """Pass an image of a camera to the worker, or the frame set that it completes."""
        self._last_header = arrival.message.header
        if self.worker is None:
            return
        if len(self.camera_subscriptions) == 1:
            self.worker.put(arrival)
            return
        frame_set = self._sync.put(number, stamp_of(self._last_header), arrival)
        if frame_set is not None:
            self.worker.put(frame_set)

    def _on_silence(self, reason: str) -> None:
        """Publish that there are no images, but only if every camera has a problem."""
        problems = [camera.problem for camera in self.camera_subscriptions]
        if all(problems) and self.pose_publishers is not None:
            self.pose_publishers.publish_failure(self._last_header, FrameReport(
                0, 0, STATUS_NO_IMAGE, "; ".join(problems), self.statistics.received,
                self.statistics.dropped))

    def _expire(self) -> None:
        """Publish empty external lists if no image was processed for too long."""
        if self.pose_publishers is not None and self.worker is not None:
            self.pose_publishers.expire(time.perf_counter())

    def _report(self) -> None:
        """Publish the diagnostics."""
        now_s, values = time.perf_counter(), self._diagnostic_values()
        status = OK, "inactive" if self.pipeline is not None else "unconfigured"
        if self.camera_subscriptions:
            problems = [camera.problem for camera in self.camera_subscriptions if camera.problem]
            self.statistics.no_image = "; ".join(problems)
            status = self.statistics.status(now_s)
        header = header_message(make, self.get_clock().now().nanoseconds, "")
        self._diagnostics.publish(diagnostics(make, header, self.get_fully_qualified_name(),
                                              values, status))

    def _diagnostic_values(self) -> dict[str, object]:
        counts = self.statistics
        received_hz, processed_hz = counts.rates_hz(time.perf_counter())
        p50_ms, p95_ms = counts.latency_ms()
        values: dict[str, object] = {
            "images per s, in": received_hz, "images per s, answered": processed_hz,
            "images received": counts.received, "images dropped": counts.dropped,
            "images bad": counts.bad_images, "images failed": counts.failures,
            "images ignored, stamp not later": counts.stale,
            "latency p50, ms": p50_ms, "latency p95, ms": p95_ms, "people": counts.people,
            "last error": counts.last_error or "none"}
        if self.pipeline is not None:
            values["device"] = self.pipeline.device
            values["engine"] = self.pipeline.engine
            values["network"] = self.pipeline.network_name
        for camera in self.camera_subscriptions:
            prefix = f"{camera.name} " if camera.name else ""
            calibration = "known" if camera.camera else "no CameraInfo"
            values[f"{prefix}topic"] = camera.image.topic
            values[f"{prefix}reliability"] = camera.image.policy_name
            values[f"{prefix}camera"] = camera.camera_problem or calibration
        return values


class _SignalHandler:
    """SIGINT and SIGTERM: the node closes while its topics still work, then the process ends.

    Before `spin`, when no message was published yet, a signal ends the process at once, and so does
    a second signal: an exception raised by a handler would be printed wherever Python ignores it.
    """

    def __init__(self) -> None:
        self._interrupted = self._spinning = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, frame) -> None:
        if self._interrupted or not self._spinning:
            os._exit(0)
        self._interrupted = True

    def spin(self, node: PoseNode) -> None:
        """Run a node's callbacks until a signal arrives or rclpy is shut down."""
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        self._spinning = True
        while not self._interrupted and node.context.ok():
            try:
                executor.spin_once(timeout_sec=_SPIN_S)
            except Exception:  # spinning fails if rclpy is shut down from outside
                if node.context.ok():
                    raise


def main(args=None) -> int:
    """Run the node until it is interrupted. Returns the exit status: 1 if it could not start."""
    node, ended, signals = None, True, _SignalHandler()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PoseNode()
        if node.parameters.node.autostart:
            node.autostart()
        signals.spin(node)
    except (PoseError, ParameterException) as error:
        print(f"pose_node cannot start: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            ended = node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    gc.freeze()  # or the final garbage collection visits all of torch: seconds on a busy machine
    if not ended:  # the worker hangs; Python would wait for its thread, or crash in it
        sys.stdout.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())

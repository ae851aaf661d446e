"""The node: images in, people out.

A managed (lifecycle) node. Configured, it has its networks and topics; active, it hears the camera
and a worker thread looks. It takes itself there unless `autostart` is false.
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
from ros2_pose.nodes.diagnostics import OK, Statistics, diagnostics
from ros2_pose.nodes.frame_assembly import MultiCameraAssembly, SingleCameraAssembly
from ros2_pose.nodes.image_input import CameraInput
from ros2_pose.nodes.lifecycle import RobustLifecycleNode, bond_to_manager
from ros2_pose.nodes.log import log_to, stop_logging
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.params import Parameters
from ros2_pose.nodes.publishers import Outputs
from ros2_pose.nodes.subscriptions import Arrival
from ros2_pose.nodes.tf_listener import TfListener
from ros2_pose.nodes.worker import Worker
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import CameraSync

log = logging.getLogger(__name__)

_SPIN_S = 0.1  # until an interruption is noticed
_EXPIRY_S = 0.2
_DONE, _FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class NodeError(PoseError):
    """A transition that failed; the message says why."""


class PoseNode(RobustLifecycleNode):
    """Looks at a camera's images and publishes who is there.

    Subscribes
        image (sensor_msgs/Image), or <image>/compressed (sensor_msgs/CompressedImage) if the
            parameter transport says so
        camera_info (sensor_msgs/CameraInfo), beside the image topic unless remapped
        depth (sensor_msgs/Image): if the parameter depth says so; aligned with the image
            of several cameras <name>/image and so on
        /tf, /tf_static (tf2_msgs/TFMessage): if a parameter names a frame
    Publishes, with the image's stamp, in its frame or in target_frame
        ~/people (ros2_pose/People): one for every image looked at, also when nobody is there, and
            with the last image's header and a status that says why while no image comes
        ~/markers (visualization_msgs/MarkerArray) and ~/overlay (sensor_msgs/Image): if subscribed
        /tf (tf2_msgs/TFMessage): frames <id> and <id>_<joint> of those tracked
        /people (people_msgs/People), ~/detections (vision_msgs/Detection3DArray) and
            /humans/bodies (hri_msgs): if parameters ask for them, see nodes/navigation.py
        ~/skeleton_info (ros2_pose/SkeletonInfo): once, latched
        /diagnostics (diagnostic_msgs/DiagnosticArray): each second, with the node's own time
    Parameters: the fields of ros2_pose.config.PoseConfig and ros2_pose.node_config.NodeConfig;
    those that are not live can change while the node is unconfigured.
    """

    def __init__(self, make_pipeline: Callable = Pipeline, **node_options):
        super().__init__("ros2_pose", **node_options)
        self.parameters = Parameters(self)
        self._log_handler = log_to(self)
        self._make_pipeline = make_pipeline
        self.statistics = Statistics()
        self.pipeline: Pipeline | MultiPipeline | None = None  # while configured
        self.frames: TfListener | None = None
        self.outputs: Outputs | None = None
        self.camera_inputs: list[CameraInput] = []  # while active
        self.worker: Worker | None = None
        self._bond = None
        self._last_header = header_message(make, 0, "")  # of an image
        self._why_failed = ""
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 5)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0, self._report, clock=steady)
        self.create_timer(_EXPIRY_S, self._expire, clock=steady)

    def autostart(self) -> None:
        """Configure and activate. Raises NodeError if that fails."""
        for transition in (self.trigger_configure, self.trigger_activate):
            if transition() != _DONE:
                raise NodeError(self._why_failed)

    def close(self) -> bool:
        """Stop and free everything; before destroy_node. Whether the worker came to its end."""
        ended = self._deactivate()
        self._cleanup()
        stop_logging(self._log_handler)
        return ended

    # Transitions --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the networks, create the publishers. Fails with the reason in the log."""
        try:
            self.pipeline = self._new_pipeline()
            self.frames = TfListener(self, lambda: self.parameters.node)
            self.outputs = Outputs(self, self.parameters, self.pipeline, self.frames)
        except Exception as error:  # the node stays, to be configured better
            self._cleanup()
            known = isinstance(error, PoseError)
            self._why_failed = str(error) if known else f"{type(error).__name__}: {error}"
            log.error("cannot configure: %s", self._why_failed)
            return _FAILED
        self.parameters.in_use = True
        log.info("%s on %s", self.parameters.pose.network, self.pipeline.device)
        return _DONE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and look."""
        config, names = self.parameters.node, self.parameters.node.camera_names
        assembler = SingleCameraAssembly(self.pipeline, self.frames) if len(names) == 1 else \
            MultiCameraAssembly(self.pipeline, names, self.frames, config.target_frame)
        self.worker = Worker(assembler, self.parameters, self.frames, self.outputs, self.statistics)
        self._sync = CameraSync(len(names))
        self.camera_inputs = [
            CameraInput(self, name, lambda: self.parameters.node,
                        partial(self._on_image, number), self._on_silence)
            for number, name in enumerate(names)]
        if not config.autostart:
            self._bond = bond_to_manager(self)
        log.info("images from %s", ", ".join(c.image.topic for c in self.camera_inputs))
        return _DONE

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Look no more; everyone is forgotten."""
        ended = self._deactivate()
        self.pipeline.reset()
        return _DONE if ended else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the networks, take the topics away."""
        self._cleanup()
        return _DONE

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """From any state, the same."""
        self._deactivate()
        self._cleanup()
        return _DONE

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin again."""
        return self.on_shutdown(state)

    def _new_pipeline(self) -> Pipeline | MultiPipeline:
        names = self.parameters.node.camera_names
        if len(names) == 1:
            return self._make_pipeline(self.parameters.pose)
        return MultiPipeline(len(names), self.parameters.pose)

    def _deactivate(self) -> bool:
        for camera in self.camera_inputs:
            camera.close()
        worker, self.worker, self.camera_inputs = self.worker, None, []
        bond, self._bond = self._bond, None
        if bond is not None:
            bond.shutdown()
        if worker is None:
            return True
        ended = worker.stop()
        self.outputs.empty(self._last_header, "the node was told to stop looking")
        return ended

    def _cleanup(self) -> None:
        for part in (self.outputs, self.frames):
            if part is not None:
                part.close()
        self.outputs = self.frames = self.pipeline = None
        self.parameters.in_use = False
        gc.collect()  # networks hold each other

    # Callbacks ----------------------------------------------------------------------------------

    def _on_image(self, number: int, arrival: Arrival) -> None:
        self._last_header = arrival.message.header
        if len(self.camera_inputs) == 1:
            self.worker.put(arrival)
        elif moment := self._sync.put(number, stamp_of(self._last_header), arrival):
            self.worker.put(moment)

    def _on_silence(self, why: str) -> None:
        """A camera is silent; that is published only when nobody else looks either."""
        problems = [camera.problem for camera in self.camera_inputs]
        if all(problems):
            self.outputs.failure(self._last_header, FrameReport(
                0, 0, STATUS_NO_IMAGE, "; ".join(problems), self.statistics.received,
                self.statistics.dropped))

    def _expire(self) -> None:
        """Let the topics of others end if nobody could look for too long."""
        if self.outputs is not None and self.worker is not None:
            self.outputs.expire(time.perf_counter())

    def _report(self) -> None:
        """Publish the diagnostics."""
        counts, now = self.statistics, time.perf_counter()
        rate_in, rate_out = counts.rates(now)
        p50, p95 = counts.latency_ms()
        values = {
            "images per s, in": rate_in, "images per s, answered": rate_out,
            "images received": counts.received, "images dropped": counts.dropped,
            "images bad": counts.bad_images, "images failed": counts.failures,
            "images ignored, stamp not later": counts.stale,
            "latency p50, ms": p50, "latency p95, ms": p95, "people": counts.people,
            "last error": counts.last_error or "none"}
        if self.pipeline is not None:
            values |= {"device": self.pipeline.device, "network": self.pipeline.network_name}
        status = OK, "inactive" if self.pipeline is not None else "unconfigured"
        for camera in self.camera_inputs:
            values |= {f"{camera.name} {key}".strip(): value
                       for key, value in _of_camera(camera).items()}
        if self.camera_inputs:
            counts.no_image = "; ".join(filter(None, (c.problem for c in self.camera_inputs)))
            status = counts.status(now)
        header = header_message(make, self.get_clock().now().nanoseconds, "")
        self._diagnostics.publish(diagnostics(make, header, self.get_fully_qualified_name(),
                                              values, status))


def _of_camera(camera: CameraInput) -> dict[str, str]:
    """What the diagnostics say of a camera."""
    return {"topic": camera.image.topic, "reliability": camera.image.policy.name.lower(),
            "camera": camera.camera_problem or ("known" if camera.camera else "no CameraInfo")}


class _Interruption:
    """SIGINT and SIGTERM: the node closes while its topics still work, then the process ends.

    Until `wait`, while nothing was said yet, it ends the process at once, as a second one does: an
    exception out of a signal would be printed wherever Python happens to ignore it.
    """

    def __init__(self) -> None:
        self._came = self._waits = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, number, frame) -> None:
        if self._came or not self._waits:
            os._exit(0)
        self._came = True

    def wait(self, node: PoseNode) -> None:
        """Run the callbacks of a node until the interruption, or until rclpy is shut down."""
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        self._waits = True
        while not self._came and node.context.ok():
            try:
                executor.spin_once(timeout_sec=_SPIN_S)
            except Exception:  # whoever shuts rclpy down from outside makes waiting fail
                if node.context.ok():
                    raise


def main(args=None) -> int:
    """Run the node until it is interrupted; 1 if it could not start."""
    node, ended, interruption = None, True, _Interruption()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        node = PoseNode()
        if node.parameters.node.autostart:
            node.autostart()
        interruption.wait(node)
    except (PoseError, ParameterException) as error:
        print(f"pose_node cannot start: {error}", file=sys.stderr)
        return 1
    finally:
        if node is not None:
            ended = node.close()
            node.destroy_node()
        rclpy.try_shutdown()
    gc.freeze()  # or Python's last collection goes through all of torch: seconds on a busy machine
    if not ended:  # an image takes for ever; Python would wait for its thread, or crash in it
        sys.stdout.flush()
        os._exit(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The thread that processes images, one at a time and always the newest."""

from __future__ import annotations

import logging
import threading
import time

from ros2_pose.messages.image import ImageError
from ros2_pose.messages.people import STATUS_BAD_IMAGE, STATUS_FAILED, FrameReport, status_of
from ros2_pose.messages.standard import stamp_of
from ros2_pose.multiview.fusion import MultiviewError
from ros2_pose.nodes.diagnostics import NodeStatistics
from ros2_pose.nodes.frame_assembly import MultiCameraAssembly, SingleCameraAssembly
from ros2_pose.nodes.latest_slot import LatestSlot
from ros2_pose.nodes.params import NodeParameters
from ros2_pose.nodes.publishers import PosePublishers
from ros2_pose.nodes.tf_listener import TfListener
from ros2_pose.pipeline import PipelineError
from ros2_pose.sync.image_sync import StampFilter

log = logging.getLogger(__name__)

_STUCK_IMAGES, _STUCK_S = 3, 1.0  # without a later stamp: the camera's clock stands still
_STOP_S = 1.0  # for the image in progress; an interrupted node must end within two seconds


class InferenceWorker:
    """Processes the newest arrival and publishes people, or why there are none.

    An arrival that comes during processing replaces the one that waits. An arrival is what the
    assembly takes: an `ImageArrival`, or with several cameras a frame set of `CameraSync`.
    """

    def __init__(
        self,
        assembly: SingleCameraAssembly | MultiCameraAssembly,
        parameters: NodeParameters,
        tf_listener: TfListener,
        publishers: PosePublishers,
        statistics: NodeStatistics,
    ):
        self.assembly, self.parameters, self.tf_listener = assembly, parameters, tf_listener
        self.publishers, self.statistics = publishers, statistics
        self._slot = LatestSlot()
        self._stamps = StampFilter()
        self._repeated = 0  # images in a row without a later stamp
        self._stuck_since_s = time.perf_counter()  # last later stamp, or last report of none
        # A daemon: an image that never ends must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def put(self, arrival) -> None:
        """Store an arrival for processing; returns at once."""
        self.statistics.count_received(time.perf_counter())
        self.statistics.dropped += self._slot.put(arrival)

    def stop(self) -> bool:
        """Stop after the image in progress. Returns False if it does not end in time."""
        self._slot.close()
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (arrival := self._slot.take()) is not None:
            try:
                if self._is_later(self.assembly.output_header(arrival)):
                    self._process(arrival)
            except Exception as error:  # a publisher failed; the next image may succeed
                if not self._slot.closed:
                    self._log_failure(f"could not publish: {type(error).__name__}: {error}")

    def _is_later(self, header) -> bool:
        """Whether the stamp is later than the last one, or time has restarted (a looping bag)."""
        stamp, now_s = stamp_of(header), time.perf_counter()
        if self._stamps.take(stamp):
            self._repeated, self._stuck_since_s = 0, now_s
            return True
        self.statistics.stale += 1
        text = (f"image ignored: its stamp is {self._stamps.behind_s(stamp):.3f} s before the last "
                f"one's, or the same ({self.statistics.stale} so far); the driver must stamp each "
                "image")
        log.warning("%s", text)
        self._repeated += 1
        if self._repeated >= _STUCK_IMAGES and now_s - self._stuck_since_s > _STUCK_S:
            self._stuck_since_s = now_s
            self._publish_failure(header, STATUS_BAD_IMAGE, text)
        return False

    def _process(self, arrival) -> None:
        """Run the pipeline on an arrival and publish people, or why there are none."""
        header = self.assembly.output_header(arrival)
        try:
            if self.parameters.pose is not self.assembly.pipeline.config:
                self.assembly.pipeline.configure(self.parameters.pose)
            people, views = self.assembly.step(arrival)
        except (ImageError, PipelineError, MultiviewError) as error:
            self.statistics.bad_images += 1
            log.warning("bad image: %s", error)
            self._publish_failure(header, STATUS_BAD_IMAGE, str(error))
        except Exception as error:  # one image must not end the node
            self.statistics.failures += 1
            text = f"{type(error).__name__}: {error}"
            self._log_failure(text)
            self._publish_failure(header, STATUS_FAILED, text)
        else:
            self._publish(header, people, views)
            latency_s = time.perf_counter() - self.assembly.received_s(arrival)
            self.statistics.count_processed(len(people), latency_s)

    def _publish(self, header, people, views) -> None:
        """Publish the people of processed images in every frame."""
        by_frame = self.tf_listener.people_by_frame(header, people)
        self.statistics.problem = by_frame.note
        if by_frame.note and self.parameters.pose.body:
            log.warning("%s", by_frame.note)
        height, width = views[0].image.shape[:2]
        _, shown = by_frame.in_target_frame
        status = status_of(shown.with_fields(note=by_frame.note))
        report = self._report((width, height), status, by_frame.note)
        self.publishers.publish(by_frame, views, report)

    def _publish_failure(self, header, status: int, text: str) -> None:
        self.statistics.problem = self.statistics.last_error = text
        self.publishers.publish_failure(header, self._report((0, 0), status, text))

    def _report(self, size: tuple[int, int], status: int, text: str) -> FrameReport:
        return FrameReport(*size, status, text, self.statistics.received, self.statistics.dropped)

    def _log_failure(self, text: str) -> None:
        self.statistics.last_error = text
        log.error("image not processed: %s", text)

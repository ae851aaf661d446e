"""The thread that looks at images, one after another, and always at the newest."""

from __future__ import annotations

import logging
import threading
import time

from ros2_pose.messages.image import ImageError
from ros2_pose.messages.people import STATUS_BAD_IMAGE, STATUS_FAILED, FrameReport, status_of
from ros2_pose.messages.standard import stamp_of
from ros2_pose.multiview.fusion import MultiviewError
from ros2_pose.nodes.diagnostics import Statistics
from ros2_pose.nodes.frame_assembly import MultiCameraAssembly, SingleCameraAssembly
from ros2_pose.nodes.latest_slot import Newest
from ros2_pose.nodes.params import Parameters
from ros2_pose.nodes.publishers import Outputs
from ros2_pose.nodes.tf_listener import TfListener
from ros2_pose.pipeline import PipelineError
from ros2_pose.sync.image_sync import StampFilter

log = logging.getLogger(__name__)

_STUCK_IMAGES, _STUCK_S = 3, 1.0  # without a later stamp: the camera's clock stands still
_STOP_S = 1.0  # for an image that is being looked at; an interrupted node is gone in two


class Worker:
    """Answers the newest arrival with people, or with the reason why not. One that comes while
    another is looked at replaces the one that waits. An arrival is what the looker looks at."""

    def __init__(
        self,
        assembler: SingleCameraAssembly | MultiCameraAssembly,
        parameters: Parameters,
        frames: TfListener,
        outputs: Outputs,
        statistics: Statistics,
    ):
        self.assembler, self.parameters, self.frames = assembler, parameters, frames
        self.outputs, self.statistics = outputs, statistics
        self._waiting = Newest()
        self._stamps = StampFilter()
        self._repeated = 0  # images in a row whose stamp was not later
        self._complained = time.perf_counter()  # of that, or an image was answered
        # A daemon: an image that takes for ever must not keep the process alive.
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        self._thread.start()

    def put(self, arrival) -> None:
        """Leave an arrival; returns at once."""
        self.statistics.came(time.perf_counter())
        self.statistics.dropped += self._waiting.put(arrival)

    def stop(self) -> bool:
        """Let it end with the image it is at; whether it did in time."""
        self._waiting.close()
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (arrival := self._waiting.take()) is not None:
            try:
                if self._is_new(self.assembler.header(arrival)):
                    self._answer(arrival)
            except Exception as error:  # an output failed; the next image is another one
                if not self._waiting.closed:
                    self._fail(f"could not publish: {type(error).__name__}: {error}")

    def _is_new(self, header) -> bool:
        """Whether the image is later than the last one, or of another time (a bag that loops)."""
        stamp, now = stamp_of(header), time.perf_counter()
        if self._stamps.take(stamp):
            self._repeated, self._complained = 0, now
            return True
        self.statistics.stale += 1
        text = (f"image ignored: its stamp is {self._stamps.behind_s(stamp):.3f} s before the last "
                f"one's, or the same ({self.statistics.stale} so far); the driver must stamp each "
                "image")
        log.warning("%s", text)
        self._repeated += 1
        if self._repeated >= _STUCK_IMAGES and now - self._complained > _STUCK_S:
            self._complained = now
            self._answer_failure(header, STATUS_BAD_IMAGE, text)
        return False

    def _answer(self, arrival) -> None:
        """With people, or with the reason why not."""
        header = self.assembler.header(arrival)
        try:
            if self.parameters.pose is not self.assembler.pipeline.config:
                self.assembler.pipeline.configure(self.parameters.pose)
            seen = self.assembler.look(arrival)
        except (ImageError, PipelineError, MultiviewError) as error:
            self.statistics.bad_images += 1
            log.warning("bad image: %s", error)
            self._answer_failure(header, STATUS_BAD_IMAGE, str(error))
        except Exception as error:  # the robot must not lose its eyes to one image
            self.statistics.failures += 1
            text = f"{type(error).__name__}: {error}"
            self._fail(text)
            self._answer_failure(header, STATUS_FAILED, text)
        else:
            views = self.frames.views(header, seen.people)
            self.statistics.problem = views.note
            if views.note and self.parameters.pose.body:
                log.warning("%s", views.note)
            size = seen.pictures[0].image.shape[1::-1]
            shown = views.shown.people.with_fields(note=views.note)
            look = self._look(size, status_of(shown), views.note)
            self.outputs.publish(views, seen.pictures, look)
            self.statistics.good(
                len(seen.people), time.perf_counter() - self.assembler.came(arrival)
            )

    def _answer_failure(self, header, status: int, text: str) -> None:
        self.statistics.problem = self.statistics.last_error = text
        self.outputs.failure(header, self._look((0, 0), status, text))

    def _look(self, size: tuple[int, int], status: int, text: str) -> FrameReport:
        return FrameReport(*size, status, text, self.statistics.received, self.statistics.dropped)

    def _fail(self, text: str) -> None:
        self.statistics.last_error = text
        log.error("image not answered: %s", text)

"""Replay of a recording: every image through the pipeline, deterministic, without ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from ros2_pose.offline.sinks import SinkError, writing
from ros2_pose.offline.sources import RecordedFrame, SourceError
from ros2_pose.people import TRACKED, People
from ros2_pose.pipeline import Pipeline, PipelineError
from ros2_pose.sync.image_sync import StampFilter

log = logging.getLogger(__name__)

_MAX_WARNINGS = 5  # of ignored images


@dataclass
class ReplaySummary:
    """Counts of a replay."""

    images: int = 0  # of the recording, including unreadable and ignored ones
    unreadable: int = 0
    ignored: int = 0  # stamp not later than that of the image before
    confirm_hits: int = 1  # images in which a person must be detected to be tracked
    tracked_ids: set[str] = field(default_factory=set)
    all_ids: set[str] = field(default_factory=set)
    stopped: str = ""  # why the replay ended early
    write_failed: bool = False  # it ended early because a result could not be written

    @property
    def people(self) -> list[str]:
        """Ids of tracked people; of all people if the recording is too short to track them."""
        too_short = self.images - self.unreadable - self.ignored < self.confirm_hits
        ids = self.all_ids if too_short else self.tracked_ids
        return sorted(ids, key=lambda name: (len(name), name))

    @property
    def counts(self) -> str:
        """Numbers of images and people, and the people's ids, in words."""
        people = self.people
        return (f"{self.images} images, {self.unreadable} unreadable, {self.ignored} ignored, "
                f"{len(people)} people: {' '.join(people)}")

    @property
    def problems(self) -> list[str]:
        """What is wrong with the recording as a whole or the results, one line each."""
        problems = []
        if 2 * self.ignored > self.images:
            problems.append("most images were ignored because their stamps do not increase: the "
                            "camera's driver must stamp each image with its time of exposure")
        if self.stopped:
            problems.append(f"stopped early: {self.stopped}; finished results are kept")
        return problems


def progress_bar(source: Iterable[RecordedFrame]) -> Iterable[RecordedFrame]:
    """Show a progress bar while a source is iterated over."""
    return tqdm(source, "replay", total=getattr(source, "count", None), unit="image",
                dynamic_ncols=True)


def replay(source: Iterable[RecordedFrame], pipeline: Pipeline, sinks: list,
           progress: Callable = progress_bar) -> ReplaySummary:
    """Run the pipeline on a recording and pass every image's people to every sink.

    An image with a stamp not later than the last one's is ignored, as in the node. Results written
    so far are kept when the recording ends in an error or the disk is full.

    Args:
        source: of sources.py or rosbag_reader.py.
        sinks: of sinks.py or rerun.py.
        progress: wraps the source to show or count its images.
    """
    summary = ReplaySummary(confirm_hits=pipeline.config.confirm_hits)
    try:
        _process_all(progress(source), pipeline, sinks, summary)
        if not summary.images:
            summary.stopped = "the recording holds no image"
    except (SourceError, SinkError) as error:
        summary.stopped, summary.write_failed = str(error), isinstance(error, SinkError)
    finally:
        for sink in sinks:
            try:
                with writing(sink.path):
                    sink.close()
            except SinkError as error:
                summary.stopped, summary.write_failed = summary.stopped or str(error), True
    return summary


def _process_all(source: Iterable[RecordedFrame], pipeline: Pipeline, sinks: list,
                 summary: ReplaySummary) -> None:
    stamps = StampFilter()
    for recorded in source:
        summary.images += 1
        if not stamps.take(recorded.stamp):
            _ignore(summary, recorded, stamps)
            continue
        recorded, people = _step(pipeline, recorded)
        _count(summary, recorded, people)
        in_image_frame = recorded, people
        in_target_frame = _to_target_frame(recorded, people)
        for sink in sinks:
            with writing(sink.path):
                sink.write(*(in_image_frame if sink.in_image_frame else in_target_frame))


def _step(pipeline: Pipeline,
          recorded: RecordedFrame) -> tuple[RecordedFrame, People | None]:
    """Run the pipeline on an image. If it cannot be processed, people is None."""
    if recorded.frame is None:
        return recorded, None
    try:
        people = pipeline.step(recorded.frame)
    except PipelineError as error:
        return replace(recorded, frame=None, problem=str(error)), None
    note = people.note
    if note and recorded.frame.camera is None and recorded.camera_problem:
        note = recorded.camera_problem
    if recorded.lacks_pose:
        people = people.without_velocities()  # they would be relative to a moving camera
    return recorded, people.with_fields(note=note or recorded.note)


def _to_target_frame(recorded: RecordedFrame,
                     people: People | None) -> tuple[RecordedFrame, People | None]:
    """People in the target frame; without bodies if the transform is not known."""
    if not recorded.target_frame_id or people is None:
        return recorded, people
    moved = replace(recorded, frame_id=recorded.target_frame_id)
    if recorded.target_from_camera is None:
        return moved, people.without_bodies(people.note or recorded.target_problem)
    return moved, people.moved(recorded.target_from_camera)


def _ignore(summary: ReplaySummary, recorded: RecordedFrame, stamps: StampFilter) -> None:
    summary.ignored = stamps.ignored
    if stamps.ignored <= _MAX_WARNINGS:
        log.warning("image %s ignored: its stamp is %.3f s before the last one's, or the same",
                    recorded.name, stamps.behind_s(recorded.stamp))


def _count(summary: ReplaySummary, recorded: RecordedFrame, people: People | None) -> None:
    if people is None:
        summary.unreadable += 1
        log.warning("image %s: %s", recorded.name, recorded.problem)
    elif people.ids and people.tracking_state is not None:
        summary.all_ids.update(people.ids)
        summary.tracked_ids.update(name for name, state in zip(people.ids, people.tracking_state)
                                   if state == TRACKED)

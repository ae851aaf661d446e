"""From what arrived to what is seen: one camera's image, or those of several at one time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import CompressedImage

from ros2_pose.camera import Camera
from ros2_pose.messages.image import ImageError, depth_from_image, rgb_from_compressed
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.nodes.message_factory import make, read_image
from ros2_pose.nodes.subscriptions import Arrival
from ros2_pose.nodes.tf_listener import TfListener
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import FrameSet


class ViewImage(NamedTuple):
    """An image that was looked at, to be drawn on."""

    camera_name: str  # "" for the only camera
    header: Any
    image: np.ndarray
    people: People  # in this camera's frame and pixels
    camera: Camera | None


class FrameResult(NamedTuple):
    """What came of looking."""

    header: Any
    people: People  # in the header's frame
    pictures: list[ViewImage]


class SingleCameraAssembly:
    """Looks at one camera's arrivals."""

    def __init__(self, pipeline: Pipeline, frames: TfListener):
        self.pipeline, self.frames = pipeline, frames

    def header(self, arrival: Arrival):
        """Of the answer, whatever it will be."""
        return arrival.message.header

    def came(self, arrival: Arrival) -> float:
        """When it came, monotonic, s."""
        return arrival.time

    def look(self, arrival: Arrival) -> FrameResult:
        """Raises ImageError and PipelineError for an image that cannot be looked at."""
        frame, note = frame_of(arrival, self.frames)
        people = self.pipeline.step(frame)
        if people.note and frame.camera is None and arrival.camera_problem:
            note = arrival.camera_problem
        if frame.camera_to_fixed is None and self.frames.fixed_problem:
            people = people.without_velocities()  # they would be those beside a moving camera
        people = people.with_fields(note=note or people.note)
        camera, _ = self.pipeline.camera(frame)
        header = self.header(arrival)
        return FrameResult(header, people, [ViewImage("", header, frame.image, people, camera)])


class MultiCameraAssembly:
    """Looks at moments of several cameras; their people are in one frame."""

    def __init__(
        self, pipeline: MultiPipeline, names: list[str], frames: TfListener, frame_id: str
    ):
        self.pipeline, self.names, self.frames = pipeline, names, frames
        self._frame_id = frame_id

    def header(self, frame_set: FrameSet):
        """Of the answer: the moment's time, the common frame."""
        return header_message(make, frame_set.stamp, self._frame_id)

    def came(self, frame_set: FrameSet) -> float:
        """When its first image came, monotonic, s."""
        return min(arrival.time for arrival in frame_set.items if arrival is not None)

    def look(self, frame_set: FrameSet) -> FrameResult:
        """An image that cannot be read leaves its camera out, and a note says so. Raises
        MultiviewError if no camera is left."""
        frames, notes = [], []
        for name, arrival in zip(self.names, frame_set.items):
            frame, note = None, "" if arrival is not None else "no image"
            if arrival is not None:
                try:
                    frame, note = frame_of(arrival, self.frames)
                except ImageError as error:
                    note = str(error)
            frames.append(frame)
            notes += [f"{name}: {note}"] if note else []
        scene = self.pipeline.step(frames)
        people = scene.people
        people = people.with_fields(note="; ".join([*notes, *filter(None, [people.note])]))
        pictures = [ViewImage(name, arrival.message.header, frame.image, scene.in_view(number),
                            frame.camera)
                    for number, (name, arrival, frame) in
                    enumerate(zip(self.names, frame_set.items, frames)) if frame is not None]
        return FrameResult(self.header(frame_set), people, pictures)


def frame_of(arrival: Arrival, frames: TfListener) -> tuple[Frame, str]:
    """The core's frame of an arrival, and what is wrong with its depth. Raises ImageError."""
    message, depth, note = arrival.message, None, arrival.depth_problem
    read = rgb_from_compressed if isinstance(message, CompressedImage) else read_image
    if arrival.depth is not None:
        try:
            depth = depth_from_image(arrival.depth)
        except ImageError as error:
            note = f"depth: {error}"
    return Frame(read(message), arrival.camera, stamp_of(message.header), depth,
                 frames.camera_to_fixed(message.header)), note

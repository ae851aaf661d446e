"""Assembly of received messages to frames, of one camera or of several at one time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import CompressedImage

from ros2_pose.camera import Camera
from ros2_pose.messages.image import ImageError, depth_from_image, rgb_from_compressed
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.nodes.message_factory import make, read_image
from ros2_pose.nodes.subscriptions import ImageArrival
from ros2_pose.nodes.tf_listener import TfListener
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline

# The arrivals of N cameras at one time, see `CameraSync`; None: no image.
FrameSet = tuple[ImageArrival | None, ...]


class ViewImage(NamedTuple):
    """A processed image, for the overlay."""

    camera_name: str  # "" for a single camera
    header: Any
    image: np.ndarray  # (H, W, 3) uint8 RGB
    people: People  # in this camera's frame and pixels
    camera: Camera | None


class SingleCameraAssembly:
    """Runs the pipeline on one camera's images."""

    def __init__(self, pipeline: Pipeline, tf_listener: TfListener):
        self.pipeline, self.tf_listener = pipeline, tf_listener

    def output_header(self, arrival: ImageArrival):
        """Header of all that is published for an image."""
        return arrival.message.header

    def received_s(self, arrival: ImageArrival) -> float:
        """Monotonic time of arrival, s."""
        return arrival.received_s

    def step(self, arrival: ImageArrival) -> tuple[People, list[ViewImage]]:
        """Run the pipeline on an image.

        Returns:
            The people in the frame of `output_header`, and the image.
        Raises:
            ImageError, PipelineError: the image cannot be processed.
        """
        frame, note = frame_of(arrival, self.tf_listener)
        people = self.pipeline.step(frame)
        if people.note and frame.camera is None and arrival.camera_problem:
            note = arrival.camera_problem
        if frame.camera_to_fixed is None and self.tf_listener.fixed_problem:
            people = people.without_velocities()  # they would be relative to a moving camera
        people = people.with_fields(note=note or people.note)
        camera, _ = self.pipeline.camera(frame)
        view = ViewImage("", self.output_header(arrival), frame.image, people, camera)
        return people, [view]


class MultiCameraAssembly:
    """Runs the multi-camera pipeline on synchronized frame sets; people are in one frame."""

    def __init__(
        self, pipeline: MultiPipeline, names: list[str], tf_listener: TfListener, frame_id: str
    ):
        """Set up.

        Args:
            names: of the cameras, in the order of a frame set.
            frame_id: frame of the people, which stands still with z up.
        """
        self.pipeline, self.names, self.tf_listener = pipeline, names, tf_listener
        self._frame_id = frame_id

    def output_header(self, frame_set: FrameSet):
        """Header of all that is published for a frame set: its time, the common frame."""
        stamps = [stamp_of(arrival.message.header) for arrival in frame_set if arrival is not None]
        return header_message(make, max(stamps), self._frame_id)

    def received_s(self, frame_set: FrameSet) -> float:
        """Monotonic time of arrival of the first image, s."""
        return min(arrival.received_s for arrival in frame_set if arrival is not None)

    def step(self, frame_set: FrameSet) -> tuple[People, list[ViewImage]]:
        """Run the pipeline on a frame set. A camera without a readable image is named in the note.

        Returns:
            The people in the frame of `output_header`, and the images.
        Raises:
            MultiviewError: no camera is left.
        """
        frames: list[Frame | None] = []
        notes: list[str] = []
        for name, arrival in zip(self.names, frame_set):
            frame, note = self._frame_or_reason(arrival)
            frames.append(frame)
            if note:
                notes.append(f"{name}: {note}")
        scene = self.pipeline.step(frames)
        if scene.people.note:
            notes.append(scene.people.note)
        views = []
        for number, (name, arrival) in enumerate(zip(self.names, frame_set)):
            frame = frames[number]
            if arrival is not None and frame is not None:
                views.append(ViewImage(name, arrival.message.header, frame.image,
                                       scene.in_view(number), frame.camera))
        return scene.people.with_fields(note="; ".join(notes)), views

    def _frame_or_reason(self, arrival: ImageArrival | None) -> tuple[Frame | None, str]:
        """The frame of an arrival and what is wrong with it; None if it cannot be read."""
        if arrival is None:
            return None, "no image"
        try:
            frame, note = frame_of(arrival, self.tf_listener)
        except ImageError as error:
            return None, str(error)
        return frame, "; ".join(filter(None, (note, self.tf_listener.ground_problem)))


def frame_of(arrival: ImageArrival, tf_listener: TfListener) -> tuple[Frame, str]:
    """Decode an arrival.

    Returns:
        The frame, and what is wrong with its depth.
    Raises:
        ImageError: the colour image cannot be read.
    """
    message, depth, note = arrival.message, None, arrival.depth_problem
    if isinstance(message, CompressedImage):
        image = rgb_from_compressed(message)
    else:
        image = read_image(message)
    if arrival.depth is not None:
        try:
            depth = depth_from_image(arrival.depth)
        except ImageError as error:
            note = f"depth: {error}"
    camera_to_fixed = tf_listener.camera_to_fixed(message.header)
    ground = tf_listener.ground(message.header)
    stamp = stamp_of(message.header)
    return Frame(image, arrival.camera, stamp, depth, camera_to_fixed, ground), note

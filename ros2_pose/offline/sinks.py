"""Writers of replay results: JSON, overlay video, bag. The Rerun writer is in rerun.py.

A sink has `path`, `in_image_frame`, `write(recorded, people)` and `close()`. people is None for an
image that could not be read; they are in the frame of the image if `in_image_frame`, otherwise in
`recorded.frame_id`.
"""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ros2_pose.body.model import BodyModel
from ros2_pose.draw import overlay
from ros2_pose.errors import PoseError, one_line
from ros2_pose.messages.markers import marker_array
from ros2_pose.messages.people import (
    STATUS_BAD_IMAGE,
    STATUS_NAMES,
    FrameReport,
    people_message,
    skeleton_info_message,
    status_of,
)
from ros2_pose.messages.standard import header_message
from ros2_pose.messages.tf import tf_message
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.rosbag_writer import BagWriter, make
from ros2_pose.offline.sources import RecordedFrame
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import Stream

_STATES = {TENTATIVE: "tentative", TRACKED: "tracked", LOST: "lost"}
# Fields of People, and their names with units in JSON.
_JSON_KEYS = {
    "boxes": "box_px", "scores": "score", "keypoints": "keypoints_px",
    "keypoint_cov": "keypoint_cov_px2", "keypoint_scores": "keypoint_scores",
    "joints": "joints_m", "joint_cov": "joint_cov_m2", "joint_source": "joint_source",
    "theta": "theta_quat_xyzw", "betas": "betas", "root": "root_m", "root_cov": "root_cov",
    "velocity": "velocity_mps", "velocity_cov": "velocity_cov",
    "joint_velocity": "joint_velocity_mps", "joint_velocity_cov": "joint_velocity_cov",
    "age": "age_s"}
# OpenCV's code of a codec that each video container takes.
VIDEO_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG",
                ".webm": "VP80"}


class SinkError(PoseError):
    """A result that cannot be written; the message names the file and the reason."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert errors of the file system and of SQLite to SinkError."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        is_full = getattr(error, "errno", errno.ENOSPC) in (errno.ENOSPC, errno.EDQUOT)
        hint = "; is the disk full?" if is_full else ""
        raise SinkError(f"{path} cannot be written: {one_line(error)}{hint}") from error


class JsonLines:
    """Writes one JSON object per image; unknown values are null. Pixel centres are at +0.5."""

    in_image_frame = False
    _start = _between = _end = ""

    def __init__(self, path: Path):
        self.path = path
        self.file = open(path, "w", encoding="utf-8")
        self.file.write(self._start)
        self._is_first = True

    def write(self, recorded: RecordedFrame, people: People | None) -> None:
        """Write the people of an image."""
        line: dict[str, Any] = {"stamp_ns": recorded.stamp, "frame_id": recorded.frame_id,
                                "name": recorded.name}
        if people is None:
            line |= {"status": "unreadable", "note": recorded.problem, "people": None}
        else:
            line |= {"status": STATUS_NAMES[status_of(people)], "note": people.note,
                     "people": [_person(people, i) for i in range(len(people))]}
        separator = "" if self._is_first else self._between
        self.file.write(separator + json.dumps(line, allow_nan=False) + "\n")
        self._is_first = False
        self.file.flush()

    def close(self) -> None:
        """Complete and close the file."""
        if not self.file.closed:
            self.file.write(self._end)
            self.file.close()


class JsonArray(JsonLines):
    """Writes the same objects as one JSON array."""

    _start, _between, _end = "[\n", ",", "]\n"


def _person(people: People, i: int) -> dict:
    assert people.ids is not None and people.tracking_state is not None  # set by the tracker
    person: dict[str, Any] = {"id": people.ids[i], "state": _STATES[int(people.tracking_state[i])]}
    for name, key in _JSON_KEYS.items():
        values = getattr(people, name)
        if values is not None:
            person[key] = _rounded(values[i])
    return person


def _rounded(value) -> Any:
    """Nested lists of numbers, rounded to 6 decimals, NaN as None."""
    rounded = np.round(np.asarray(value, float), 6)
    objects = rounded.astype(object)
    return np.where(np.isfinite(rounded), objects, np.array(None, object)).tolist()


class OverlayVideo:
    """Writes a video of the images with people drawn in; an unreadable image repeats the last one.

    The video has a constant rate. A gap between images is filled with the last one, so that the
    video is as long as the recording.
    """

    in_image_frame = True
    _MAX_FILLED_S = 10.0

    def __init__(self, path: Path, fps: float, pipeline: Pipeline, bodies: bool = False):
        """Set up.

        Args:
            fps: images a second.
            bodies: draw the SMPL surfaces, too.
        """
        self.path, self.fps, self.pipeline, self.bodies = path, fps, pipeline, bodies
        self.writer: cv2.VideoWriter | None = None
        self.size = (0, 0)  # width, height, px
        self.latest: np.ndarray | None = None  # (H, W, 3) uint8 RGB
        self.count = 0
        self._start = 0  # ns, stamp of the video's beginning

    def write(self, recorded: RecordedFrame, people: People | None) -> None:
        """Write an image, after filling a gap before it."""
        drawn = self.latest
        if people is not None and recorded.frame is not None:
            camera, _ = self.pipeline.camera(recorded.frame)
            body = self.pipeline.body if self.bodies else None
            drawn = overlay(recorded.frame.image, people, camera, body)
        if drawn is None:
            return
        if self.writer is None:
            self.writer = self._opened(recorded.stamp, drawn)
        filler = drawn if self.latest is None else self.latest
        for _ in range(self._missing(recorded.stamp)):
            self._put(self.writer, filler)
        self._put(self.writer, drawn)
        self.latest = drawn

    def _opened(self, stamp: int, picture: np.ndarray) -> cv2.VideoWriter:
        height, width = picture.shape[:2]
        self._start, self.size = stamp, (width, height)
        writer = open_video(self.path, self.fps, self.size)
        if not writer.isOpened():
            raise SinkError(f"{self.path} cannot be opened as a video of {width}x{height} at "
                            f"{self.fps:g} images a second")
        return writer

    def _missing(self, stamp: int) -> int:
        """Number of images to fill in before the image of a stamp, ns."""
        missing = round((stamp - self._start) * 1e-9 * self.fps) - self.count
        if abs(missing) > self._MAX_FILLED_S * self.fps:  # a pause, or the recording restarted
            self._start = stamp - round(self.count / self.fps * 1e9)
            return 0
        return missing if missing > 1 else 0  # stamps jitter

    def _put(self, writer: cv2.VideoWriter, picture: np.ndarray) -> None:
        if picture.shape[1::-1] != self.size:
            picture = cv2.resize(picture, self.size)
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        """Complete the file. Raises SinkError if images are missing in it."""
        if self.writer is None:
            return
        self.writer.release()
        kept = _count_images(self.path, self.count)
        if kept < self.count:  # OpenCV reports no errors
            raise SinkError(f"{self.path} holds {kept} of {self.count} images: is the disk full?")


def open_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """Open a writer for a video file with a suffix of VIDEO_CODECS.

    Args:
        fps: images a second.
        size: width, height, px.
    """
    code = cv2.VideoWriter_fourcc(*VIDEO_CODECS[path.suffix.lower()])
    return cv2.VideoWriter(str(path), code, fps, size)


def _count_images(path: Path, expected: int) -> int:
    """Images of a video; counted one by one if the header's estimate is less than expected."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if count < expected:
        count = 0
        while video.grab():
            count += 1
    video.release()
    return count


class BagSink:
    """Writes a bag of what the node would publish: people, markers, /tf and skeleton_info."""

    in_image_frame = False

    def __init__(self, path: Path, storage: str, pipeline: Pipeline,
                 settings: NodeConfig = NodeConfig()):
        """Create the bag.

        Args:
            storage: sqlite3 or mcap.
            pipeline: its network and body are named in skeleton_info.
            settings: markers and TF, as the node's parameters.
        """
        self.path, self.pipeline, self.settings = path, pipeline, settings
        self.bag = BagWriter(path, storage)
        self.received = 0
        self._marked_ids: set[str] = set()  # people with markers
        self._stream = Stream()  # of the images' stamps
        self._surface_stamp: int | None = None  # ns, of the last body surfaces

    def write(self, recorded: RecordedFrame, people: People | None) -> None:
        """Write the messages of an image."""
        header = header_message(make, recorded.stamp, recorded.frame_id)
        if not self.received:
            info = skeleton_info_message(make, header, self.pipeline.network_name,
                                         self.pipeline.body_name)
            self.bag.put("/ros2_pose/skeleton_info", info, recorded.received, latched=True)
        self.received += 1
        message = self._people_message(header, recorded, people)
        self.bag.put("/ros2_pose/people", message, recorded.received)
        if people is None:
            return
        self._stream.advance(recorded.stamp)
        lifetime_s = self._stream.patience_s(self.settings.marker_lifetime_s)
        markers, self._marked_ids = marker_array(make, header, people, self._marked_ids, lifetime_s,
                                                 self._body_for_surfaces(recorded.stamp))
        self.bag.put("/ros2_pose/markers", markers, recorded.received)
        if self.settings.tf and recorded.frame_id:
            self.bag.put("/tf", tf_message(make, header, people, self.settings.frame_names),
                         recorded.received)

    def _body_for_surfaces(self, stamp: int) -> BodyModel | None:
        """The body model if body surfaces are due at body_marker_hz, otherwise None."""
        rate_hz, last = self.settings.body_marker_hz, self._surface_stamp
        if not rate_hz:
            return None
        if last is not None and 0 <= stamp - last < 0.9e9 / rate_hz:  # stamps jitter
            return None
        self._surface_stamp = stamp
        return self.pipeline.body

    def _people_message(self, header, recorded: RecordedFrame, people: People | None):
        if people is None or recorded.frame is None:
            report = FrameReport(0, 0, STATUS_BAD_IMAGE, recorded.problem, self.received)
            return people_message(make, header, People.nobody(), report)
        height, width = recorded.frame.image.shape[:2]
        report = FrameReport(width, height, status_of(people), people.note, self.received)
        return people_message(make, header, people, report)

    def close(self) -> None:
        """Complete the bag."""
        self.bag.close()

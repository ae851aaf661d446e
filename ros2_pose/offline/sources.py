"""Where recorded frames come from: pictures, folders of them, video files. Bags: bags.py."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.geometry import Transform
from ros2_pose.imaging.contrast import to_8_bits
from ros2_pose.imaging.exif import orientation, oriented, upright_camera
from ros2_pose.messages.image import ImageError, rgb_from_bytes
from ros2_pose.offline.file_kinds import PICTURE, UNKNOWN, kind_of
from ros2_pose.people import Frame
from ros2_pose.sync.time_jump import JUMP_S

log = logging.getLogger(__name__)

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".flv", ".ts",
          ".m2ts", ".3gp", ".ogv", ".gif", ".mjpeg", ".mjpg", ".h264", ".h265"}
_DEFAULT_FPS = 30.0
_SLOWEST_FPS, _FASTEST_FPS = 0.01, 1000.0  # of pictures
_FASTEST_VIDEO_FPS = 240.0  # a header that says more means the units of its times
_LONGEST_GAP_S = 3600.0  # between two images of a video
_MOST_IMAGES = 2**31  # a header that claims more does not know
# EXIF's names for the rotations, degrees clockwise, that a video asks for.
_VIDEO_ORIENTATIONS = {90: 6, 180: 3, 270: 8}


class SourceError(PoseError):
    """Recorded data that cannot be read; the message names the file and the reason."""


class TargetFrame(NamedTuple):
    """Another frame for the people of an image; transform takes points of the camera to it.

    transform is None if it is not known; then `problem` says why.
    """

    frame_id: str
    transform: Transform | None
    problem: str = ""


@dataclass(frozen=True)
class RecordedFrame:
    """One recorded image. frame is None if it could not be read; then `problem` says why.

    note: what is missing beside the image (depth, camera pose), and why. camera_problem: why there
    is no camera although there is a calibration. lacks_pose: the camera's pose in the fixed frame,
    which velocities are measured in, is not known. place: where people are to be told; None: in
    frame_id.
    """

    stamp: int  # ns
    frame_id: str
    name: str  # the picture's file name, or the number of the image
    frame: Frame | None
    problem: str = ""
    received: int = 0  # ns, when a bag took it in
    note: str = ""
    camera_problem: str = ""
    lacks_pose: bool = False
    target: TargetFrame | None = None


class PictureSource:
    """Picture files in the order given, as if taken fps times a second.

    A picture is turned as its EXIF orientation asks for, and a camera of the stored rows with it.
    """

    def __init__(self, paths: list[Path], camera: Camera | None = None, fps: float = _DEFAULT_FPS):
        if not _SLOWEST_FPS <= fps <= _FASTEST_FPS:
            raise SourceError(f"fps {fps:g} is out of range, expected {_SLOWEST_FPS:g} to "
                              f"{_FASTEST_FPS:g} pictures a second")
        self.paths, self.camera, self.fps = paths, camera, fps
        self.count = len(paths)

    def __iter__(self) -> Iterator[RecordedFrame]:
        for number, path in enumerate(self.paths):
            stamp = round(number / self.fps * 1e9)
            try:
                data = np.fromfile(path, np.uint8)
                kind = kind_of(data[:512].tobytes())
                if kind.group not in (PICTURE, UNKNOWN):
                    raise ImageError(f"{path} is no picture but {kind.name}")
                image = rgb_from_bytes(data, str(path))
            except (ImageError, OSError) as error:
                yield RecordedFrame(stamp, "camera", path.name, None, str(error), stamp)
            else:
                image, camera = oriented(image, self.camera, orientation(data))
                yield RecordedFrame(
                    stamp, "camera", path.name, Frame(image, camera, stamp), "", stamp
                )


class VideoSource:
    """The images of a video file, upright, stamped by the container's own times from 0.

    count is the header's estimate of how many there are, None if it has none.
    """

    def __init__(self, path: Path, camera: Camera | None = None):
        self.path, self.camera = path, camera
        video = self._open()
        fps, count = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
        video.release()
        self.fps = fps if _SLOWEST_FPS <= fps <= _FASTEST_VIDEO_FPS else _DEFAULT_FPS
        self.count = int(count) if 0 < count < _MOST_IMAGES else None

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self.path))
        if not video.isOpened():
            raise SourceError(f"{self.path} is not a video that OpenCV can read: it may be cut "
                              "off, or of a codec that OpenCV lacks; convert it with ffmpeg")
        return video

    def __iter__(self) -> Iterator[RecordedFrame]:
        video, clock, number, camera = self._open(), _VideoClock(self.fps), 0, self.camera
        try:
            while True:
                read, image = video.read()
                if not read:
                    break
                if number == 0:
                    camera = self._upright_camera(video, image)
                stamp = clock.stamp(video.get(cv2.CAP_PROP_POS_MSEC))
                picture = to_8_bits(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), 255.0)
                frame = Frame(picture, camera, stamp)
                yield RecordedFrame(stamp, "camera", str(number), frame, "", stamp)
                number += 1
        finally:
            video.release()
        if not number:
            raise SourceError(f"{self.path} holds no image that OpenCV can decode: it may be cut "
                              "off, or of a codec that OpenCV lacks; convert it with ffmpeg")
        if self.count is not None and number < self.count:
            log.info("%s: %d images; its header estimates %d", self.path, number, self.count)

    def _upright_camera(self, video: cv2.VideoCapture, image: np.ndarray) -> Camera | None:
        """The camera of the images as OpenCV turns them."""
        exif_orientation = _VIDEO_ORIENTATIONS.get(
            int(video.get(cv2.CAP_PROP_ORIENTATION_META) or 0)
        )
        camera = self.camera
        if camera is None or exif_orientation is None or \
                (camera.width, camera.height) == image.shape[1::-1]:
            return camera
        return upright_camera(camera, exif_orientation)


class _VideoClock:
    """Stamps that rise, from a container's times, which may be missing, stand still or jump."""

    def __init__(self, fps: float):
        self._period = 1e9 / fps
        self._latest: float | None = None  # ns
        self._start = 0.0  # ns, the container's time of stamp 0

    def stamp(self, ms: float) -> int:
        """The stamp, ns, of the next image, whose time in the container is ms, milliseconds."""
        time = ms * 1e6
        if self._latest is None:
            self._latest, self._start = 0.0, time if math.isfinite(time) else 0.0
            return 0
        step = time - self._start - self._latest
        if not 0 < step <= _LONGEST_GAP_S * 1e9:
            if math.isfinite(step) and abs(step) > JUMP_S * 1e9:  # the container counts anew
                self._start = time - self._latest - self._period
            step = self._period
        self._latest += step
        return round(self._latest)


def picture_files(path: Path) -> list[Path]:
    """The pictures of a folder in natural order, hidden ones left out.

    Raises SourceError if there are none.
    """
    visible = [p for p in path.iterdir() if not p.name.startswith(".") and p.is_file()]
    found = [p for p in visible if p.suffix.lower() in PICTURES]
    if found:
        return in_natural_order(found)
    videos = sorted(p.name for p in visible if p.suffix.lower() in VIDEOS)
    raise SourceError(f"{path} holds neither a bag (no metadata.yaml) nor pictures "
                      f"({', '.join(sorted(PICTURES))})"
                      + (f"; of its videos name one: {', '.join(videos[:5])}" if videos else ""))


def in_natural_order(paths: list[Path]) -> list[Path]:
    """Files as people count: 2 before 10. Names that are decimal numbers go by their value."""
    if all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", path.stem) for path in paths):
        return sorted(paths, key=lambda path: (Decimal(path.stem), path.name))
    return sorted(paths, key=lambda path: (_natural_key(path.name), path.name))


def _natural_key(name: str) -> list:
    """Text and numbers in turn."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]

"""Recorded frames from picture files, folders of them and video files. Bags: rosbag_reader.py."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

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
_MIN_FPS, _MAX_FPS = 0.01, 1000.0  # of pictures
_MAX_VIDEO_FPS = 240.0  # a larger value in a header is the unit of its times
_MAX_GAP_S = 3600.0  # between two images of a video
_MAX_IMAGES = 2**31  # a header with more has no estimate
# EXIF orientation for a video's rotation, degrees clockwise.
_VIDEO_ORIENTATIONS = {90: 6, 180: 3, 270: 8}


class SourceError(PoseError):
    """Recorded data that cannot be read; the message names the file and the reason."""


@dataclass(frozen=True)
class RecordedFrame:
    """One recorded image."""

    stamp: int  # ns
    frame_id: str
    name: str  # file name of a picture, otherwise the number of the image
    frame: Frame | None  # None if the image could not be read
    problem: str = ""  # why it could not be read
    received: int = 0  # ns, when it was recorded
    note: str = ""  # why depth or the camera pose is missing
    camera_problem: str = ""  # why the recorded calibration cannot be used
    lacks_pose: bool = False  # the camera pose in the fixed frame is wanted but not known
    target_frame_id: str = ""  # in which people are to be published; empty: in frame_id
    target_from_camera: Transform | None = None  # None if it is not known
    target_problem: str = ""  # why it is not known


class PictureSource:
    """Picture files in the order given, with stamps at a constant rate from 0.

    Pictures are rotated by their EXIF orientation, and the camera with them.
    """

    def __init__(self, paths: list[Path], camera: Camera | None = None, fps: float = _DEFAULT_FPS):
        """Set up.

        Args:
            camera: calibration of the pictures as stored, before rotation.
            fps: pictures a second.
        Raises:
            SourceError: fps is out of range.
        """
        if not _MIN_FPS <= fps <= _MAX_FPS:
            raise SourceError(f"fps {fps:g} is out of range, expected {_MIN_FPS:g} to "
                              f"{_MAX_FPS:g} pictures a second")
        self.paths, self.camera, self.fps = paths, camera, fps
        self.count = len(paths)

    def __iter__(self) -> Iterator[RecordedFrame]:
        for number, path in enumerate(self.paths):
            stamp = round(number / self.fps * 1e9)
            frame, problem = None, ""
            try:
                image, camera = self._read(path)
                frame = Frame(image, camera, stamp)
            except (ImageError, OSError) as error:
                problem = str(error)
            yield RecordedFrame(stamp, "camera", path.name, frame, problem, stamp)

    def _read(self, path: Path) -> tuple[np.ndarray, Camera | None]:
        """Decode a picture, upright (H, W, 3) uint8 RGB, with its camera."""
        data: np.ndarray = np.fromfile(path, np.uint8)
        kind = kind_of(data[:512].tobytes())
        if kind.group not in (PICTURE, UNKNOWN):
            raise ImageError(f"{path} is not a picture but {kind.name}")
        image = rgb_from_bytes(data, str(path))
        return oriented(image, self.camera, orientation(data))


class VideoSource:
    """Images of a video file, upright, with the container's own times from 0 as stamps.

    Attributes:
        fps: images a second by the header.
        count: number of images by the header; None if it has no estimate.
    """

    def __init__(self, path: Path, camera: Camera | None = None):
        """Open the file once to read its header. Raises SourceError if OpenCV cannot read it."""
        self.path, self.camera = path, camera
        video = self._open()
        fps, count = video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)
        video.release()
        self.fps = fps if _MIN_FPS <= fps <= _MAX_VIDEO_FPS else _DEFAULT_FPS
        self.count = int(count) if 0 < count < _MAX_IMAGES else None

    def _open(self) -> cv2.VideoCapture:
        video = cv2.VideoCapture(str(self.path))
        if not video.isOpened():
            raise SourceError(f"{self.path} is not a video that OpenCV can read: it may be cut "
                              "off, or use a codec that OpenCV lacks; convert it with ffmpeg")
        return video

    def __iter__(self) -> Iterator[RecordedFrame]:
        video, clock = self._open(), _VideoClock(self.fps)
        number, camera = 0, self.camera
        try:
            while True:
                success, bgr = video.read()
                if not success:
                    break
                if number == 0:
                    camera = self._upright_camera(video, bgr)
                stamp = clock.stamp(video.get(cv2.CAP_PROP_POS_MSEC))
                image = to_8_bits(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), 255.0)
                frame = Frame(image, camera, stamp)
                yield RecordedFrame(stamp, "camera", str(number), frame, "", stamp)
                number += 1
        finally:
            video.release()
        if not number:
            raise SourceError(f"{self.path} holds no image that OpenCV can decode: it may be cut "
                              "off, or use a codec that OpenCV lacks; convert it with ffmpeg")
        if self.count is not None and number < self.count:
            log.info("%s: %d images; its header estimates %d", self.path, number, self.count)

    def _upright_camera(self, video: cv2.VideoCapture, image: np.ndarray) -> Camera | None:
        """Camera of the images as OpenCV rotates them."""
        camera = self.camera
        degrees = int(video.get(cv2.CAP_PROP_ORIENTATION_META) or 0)
        exif_orientation = _VIDEO_ORIENTATIONS.get(degrees)
        if camera is None or exif_orientation is None:
            return camera
        if (camera.width, camera.height) == image.shape[1::-1]:  # of the rotated images already
            return camera
        return upright_camera(camera, exif_orientation)


class _VideoClock:
    """Increasing stamps from a container's times, which may be missing, repeat or jump."""

    def __init__(self, fps: float):
        self._period = 1e9 / fps
        self._latest: float | None = None  # ns
        self._start = 0.0  # ns, container time of stamp 0

    def stamp(self, ms: float) -> int:
        """Stamp of the next image, ns, from its container time in milliseconds."""
        time = ms * 1e6
        if self._latest is None:
            self._latest = 0.0
            self._start = time if math.isfinite(time) else 0.0
            return 0
        step = time - self._start - self._latest
        if not 0 < step <= _MAX_GAP_S * 1e9:
            if math.isfinite(step) and abs(step) > JUMP_S * 1e9:  # container times restart
                self._start = time - self._latest - self._period
            step = self._period
        self._latest += step
        return round(self._latest)


def picture_files(path: Path) -> list[Path]:
    """Pictures of a folder in natural order, without hidden ones.

    Raises:
        SourceError: there are none.
    """
    visible = [p for p in path.iterdir() if not p.name.startswith(".") and p.is_file()]
    found = [p for p in visible if p.suffix.lower() in PICTURES]
    if found:
        return in_natural_order(found)
    videos = sorted(p.name for p in visible if p.suffix.lower() in VIDEOS)
    hint = f"; name one of its videos: {', '.join(videos[:5])}" if videos else ""
    raise SourceError(f"{path} holds neither a bag (no metadata.yaml) nor pictures "
                      f"({', '.join(sorted(PICTURES))}){hint}")


def in_natural_order(paths: list[Path]) -> list[Path]:
    """Sort files naturally: 2 before 10; names that are decimal numbers by their value."""
    if all(re.fullmatch(r"[0-9]+(\.[0-9]+)?", path.stem) for path in paths):
        return sorted(paths, key=lambda path: (Decimal(path.stem), path.name))
    return sorted(paths, key=lambda path: (_natural_key(path.name), path.name))


def _natural_key(name: str) -> list:
    """Alternating text and numbers."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]

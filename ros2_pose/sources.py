"""Where recorded frames come from: pictures, folders of them, video files. Bags: bags.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.images import ImageError, rgb_from_bytes
from ros2_pose.people import Frame

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"}
_DEFAULT_FPS = 30.0


class SourceError(PoseError):
    """Recorded data that cannot be read; the message names the file and the reason."""


@dataclass(frozen=True)
class Shot:
    """One recorded image. frame is None if it could not be read; then `problem` says why."""

    stamp: int  # ns
    frame_id: str
    name: str  # the picture's file name, or the number of the image
    frame: Frame | None
    problem: str = ""
    received: int = 0  # ns, when a bag took it in


class PictureSource:
    """Picture files in the order of their names, as if taken fps times a second."""

    def __init__(self, paths: list[Path], camera: Camera | None = None, fps: float = _DEFAULT_FPS):
        self.paths, self.camera, self.fps = paths, camera, fps

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Shot]:
        for number, path in enumerate(self.paths):
            stamp = round(number / self.fps * 1e9)
            try:
                image = rgb_from_bytes(np.fromfile(path, np.uint8), str(path))
            except (ImageError, OSError) as error:
                yield Shot(stamp, "camera", path.name, None, str(error), stamp)
            else:
                yield Shot(stamp, "camera", path.name, Frame(image, self.camera, stamp), "", stamp)


class VideoSource:
    """The images of a video file, stamped by its frame rate."""

    def __init__(self, path: Path, camera: Camera | None = None):
        self.path, self.camera = path, camera
        video = cv2.VideoCapture(str(path))
        if not video.isOpened():
            raise SourceError(f"{path} is not a video that OpenCV can read")
        self.fps = video.get(cv2.CAP_PROP_FPS) or _DEFAULT_FPS
        self.count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.release()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Shot]:
        video = cv2.VideoCapture(str(self.path))
        number = 0
        while True:
            read, image = video.read()
            if not read:
                break
            stamp = round(number / self.fps * 1e9)
            frame = Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), self.camera, stamp)
            yield Shot(stamp, "camera", str(number), frame, "", stamp)
            number += 1
        video.release()
        if number < self.count:
            raise SourceError(f"{self.path} ends after {number} of {self.count} images: it may be "
                              "cut off")


def picture_files(path: Path) -> list[Path]:
    """The pictures of a folder, by name. Raises SourceError if there are none."""
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    if not found:
        raise SourceError(f"{path} holds neither a bag (no metadata.yaml) nor pictures "
                          f"({', '.join(sorted(PICTURES))})")
    return found

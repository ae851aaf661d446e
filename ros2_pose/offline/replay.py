"""Offline: recorded images in, people out; every image, the same result every time, no ROS."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose.draw import overlay
from ros2_pose.errors import PoseError, one_line
from ros2_pose.messages.people import STATUS_NAMES, status_of
from ros2_pose.offline.results import open_video
from ros2_pose.offline.sources import RecordedFrame, SourceError
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.pipeline import Pipeline, PipelineError
from ros2_pose.sync.image_sync import StampFilter

log = logging.getLogger(__name__)

_STATES = {TENTATIVE: "tentative", TRACKED: "tracked", LOST: "lost"}
_MOST_WARNINGS = 5  # of images ignored


@dataclass
class Summary:
    """What a replay came to. stopped: why it ended before the end of the recording."""

    images: int = 0  # of the recording, whatever became of them
    unreadable: int = 0
    ignored: int = 0  # their stamps were not later than the last one's
    confirm_hits: int = 1  # images in which a person must be seen to be trusted
    ids: set[str] = field(default_factory=set)  # of people tracked
    seen: set[str] = field(default_factory=set)  # of all people reported
    stopped: str = ""

    @property
    def people(self) -> list[str]:
        """The ids of people tracked; of a recording too short to track anyone, of those seen."""
        too_short = self.images - self.unreadable - self.ignored < self.confirm_hits
        return sorted(self.seen if too_short else self.ids, key=lambda name: (len(name), name))


def replay(source: Iterable[RecordedFrame], pipeline: Pipeline, sinks: list) -> Summary:
    """Step through a recording and give every image's people to every sink.

    An image whose stamp is not later than the last one's is ignored, as the node does.

    Args:
        source: what `sources` or `bags` offer.
        sinks: objects with `write(shot, people)`, where people is None for an image that could not
            be read, `close()`, `path` and `of_image`: whether people are in the frame of the image,
            or else of `shot.target`. What was finished is kept when the recording ends in an error,
            or the disk is full.
    """
    summary, stamps = Summary(confirm_hits=pipeline.config.confirm_hits), StampFilter()
    try:
        for shot in tqdm(source, "replay", total=getattr(source, "count", None), unit="image",
                         dynamic_ncols=True):
            summary.images += 1
            if not stamps.take(shot.stamp):
                _ignore(summary, shot, stamps)
                continue
            shot, people = _looked_at(pipeline, shot)
            _count(summary, shot, people)
            told = _told(shot, people)
            for sink in sinks:
                with writing(sink.path):
                    sink.write(*((shot, people) if sink.of_image else told))
        if not summary.images:
            summary.stopped = "the recording holds no image"
    except (SourceError, SinkError) as error:
        summary.stopped = str(error)
    finally:
        for sink in sinks:
            try:
                with writing(sink.path):
                    sink.close()
            except SinkError as error:
                summary.stopped = summary.stopped or str(error)
    return summary


def _looked_at(pipeline: Pipeline, shot: RecordedFrame) -> tuple[RecordedFrame, People | None]:
    """The people of an image, None if it could not be read; and the shot, which says why."""
    if shot.frame is None:
        return shot, None
    try:
        people = pipeline.step(shot.frame)
    except PipelineError as error:
        return replace(shot, frame=None, problem=str(error)), None
    note = people.note
    if note and shot.frame.camera is None and shot.camera_problem:
        note = shot.camera_problem
    if shot.lacks_pose:
        people = people.without_velocities()  # they would be those beside a moving camera
    return shot, people.with_fields(note=note or shot.note)


def _told(shot: RecordedFrame, people: People | None) -> tuple[RecordedFrame, People | None]:
    """The people in the frame that was asked for; without bodies where it is not known."""
    target = shot.target
    if target is None or people is None:
        return shot, people
    shot = replace(shot, frame_id=target.frame_id)
    if target.transform is None:
        return shot, people.without_bodies(people.note or target.problem)
    return shot, people.moved(target.transform)


def _ignore(summary: Summary, shot: RecordedFrame, stamps: StampFilter) -> None:
    summary.ignored = stamps.ignored
    if stamps.ignored <= _MOST_WARNINGS:
        log.warning("image %s ignored: its stamp is %.3f s before the last one's, or the same",
                    shot.name, stamps.behind_s(shot.stamp))


def _count(summary: Summary, shot: RecordedFrame, people: People | None) -> None:
    if people is None:
        summary.unreadable += 1
        log.warning("image %s: %s", shot.name, shot.problem)
    elif people.ids:
        summary.seen |= set(people.ids)
        summary.ids |= {i for i, state in zip(people.ids, people.tracking_state)
                        if state == TRACKED}


class SinkError(PoseError):
    """A result that cannot be written; the message names the file and the reason."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while something is written becomes a SinkError."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        full = getattr(error, "errno", errno.ENOSPC) in (errno.ENOSPC, errno.EDQUOT)
        raise SinkError(f"{path} cannot be written: {one_line(error)}"
                        + ("; is the disk full?" if full else "")) from error


class JsonLines:
    """One JSON object an image; what is not known is null. Pixels with the first centre at 0.5."""

    of_image = False
    _start = _between = _end = ""

    def __init__(self, path: Path):
        self.path = path
        self.file = open(path, "w", encoding="utf-8")
        self.file.write(self._start)
        self._is_first = True

    def write(self, shot: RecordedFrame, people: People | None) -> None:
        line: dict[str, Any] = {"stamp_ns": shot.stamp, "frame_id": shot.frame_id,
                                "name": shot.name}
        if people is None:
            line |= {"status": "unreadable", "note": shot.problem, "people": None}
        else:
            line |= {"status": STATUS_NAMES[status_of(people)], "note": people.note,
                     "people": [_person(people, i) for i in range(len(people))]}
        before = "" if self._is_first else self._between
        self.file.write(before + json.dumps(line, allow_nan=False) + "\n")
        self._is_first = False
        self.file.flush()

    def close(self) -> None:
        if not self.file.closed:
            self.file.write(self._end)
            self.file.close()


class JsonArray(JsonLines):
    """The same objects as one JSON array."""

    _start, _between, _end = "[\n", ",", "]\n"


_UNITS = {"boxes": "box_px", "scores": "score", "keypoints": "keypoints_px",
          "keypoint_cov": "keypoint_cov_px2", "keypoint_scores": "keypoint_scores",
          "joints": "joints_m", "joint_cov": "joint_cov_m2", "joint_source": "joint_source",
          "theta": "theta_quat_xyzw", "betas": "betas", "root": "root_m", "root_cov": "root_cov",
          "velocity": "velocity_mps", "velocity_cov": "velocity_cov", "age": "age_s"}


def _person(people: People, i: int) -> dict:
    arrays = {key: _plain(getattr(people, name)[i]) for name, key in _UNITS.items()
              if getattr(people, name) is not None}
    return {"id": people.ids[i], "state": _STATES[int(people.tracking_state[i])], **arrays}


def _plain(value):
    """Nested lists of numbers rounded to what they are worth, NaN as None."""
    rounded = np.round(np.asarray(value, float), 6)
    return np.where(np.isfinite(rounded), rounded.astype(object), None).tolist()


class OverlayVideo:
    """A video of the images with everyone drawn in; an unreadable image repeats the one before.

    Images follow each other fps times a second; one that is long in coming is filled with the one
    before, so that the video takes as long as the recording.
    """

    of_image = True
    _MOST_FILLED_S = 10.0

    def __init__(self, path: Path, fps: float, pipeline: Pipeline, bodies: bool = False):
        """fps: images a second. bodies: draw the SMPL surfaces too."""
        self.path, self.fps, self.pipeline, self.bodies = path, fps, pipeline, bodies
        self.writer: cv2.VideoWriter | None = None
        self.size = (0, 0)
        self.latest: np.ndarray | None = None
        self.count = 0
        self._start = 0  # ns, the stamp at the beginning of the video

    def write(self, shot: RecordedFrame, people: People | None) -> None:
        drawn = self.latest
        if people is not None:
            camera, _ = self.pipeline.camera(shot.frame)
            body = self.pipeline.body if self.bodies else None
            drawn = overlay(shot.frame.image, people, camera, body)
        if drawn is None:
            return
        if self.writer is None:
            self._open(shot.stamp, drawn)
        for _ in range(self._missing(shot.stamp)):
            self._put(self.latest)
        self._put(drawn)
        self.latest = drawn

    def _open(self, stamp: int, picture: np.ndarray) -> None:
        height, width = picture.shape[:2]
        self._start, self.size = stamp, (width, height)
        self.writer = open_video(self.path, self.fps, self.size)
        if not self.writer.isOpened():
            raise SinkError(f"{self.path} cannot be opened as a video of {width}x{height} at "
                            f"{self.fps:g} images a second")

    def _missing(self, stamp: int) -> int:
        """How many images are to be filled in before that of a stamp, ns."""
        missing = round((stamp - self._start) * 1e-9 * self.fps) - self.count
        if abs(missing) > self._MOST_FILLED_S * self.fps:  # a pause, or the recording again
            self._start = stamp - round(self.count / self.fps * 1e9)
            return 0
        return missing if missing > 1 else 0  # stamps jitter

    def _put(self, picture: np.ndarray) -> None:
        if picture.shape[1::-1] != self.size:
            picture = cv2.resize(picture, self.size)
        self.writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        if self.writer is None:
            return
        self.writer.release()
        kept = _images_in(self.path, self.count)
        if kept < self.count:  # OpenCV does not tell
            raise SinkError(f"{self.path} holds {kept} of {self.count} images: is the disk full?")


def _images_in(path: Path, expected: int) -> int:
    """The images of a video; counted one by one if the header's estimate is less than expected."""
    video = cv2.VideoCapture(str(path))
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if count < expected:
        count = 0
        while video.grab():
            count += 1
    video.release()
    return count

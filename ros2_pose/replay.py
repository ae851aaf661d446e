"""Offline: recorded images in, people out; every image, the same result every time, no ROS."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose.draw import overlay
from ros2_pose.errors import PoseError
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sources import Shot, SourceError

log = logging.getLogger(__name__)

_STATES = {TENTATIVE: "tentative", TRACKED: "tracked", LOST: "lost"}


@dataclass
class Summary:
    """What a replay came to. stopped: why it ended before the end of the recording."""

    images: int = 0
    unreadable: int = 0
    ids: set[str] = field(default_factory=set)
    stopped: str = ""


def replay(source: Iterable[Shot], pipeline: Pipeline, sinks: list) -> Summary:
    """Step through a recording and give every image's people to every sink.

    source: what `sources` or `bags` offer. sinks: objects with `write(shot, people)`, where people
    is None for an image that could not be read, `close()` and `path`. What was finished is kept
    when the recording ends in an error, or the disk is full.
    """
    summary = Summary()
    try:
        for shot in tqdm(source, "replay", unit="image", dynamic_ncols=True):
            people = None if shot.frame is None else pipeline.step(shot.frame)
            for sink in sinks:
                with writing(sink.path):
                    sink.write(shot, people)
            _count(summary, shot, people)
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


class SinkError(PoseError):
    """A result that cannot be written; the message names the file and the reason."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong while something is written becomes a SinkError."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise SinkError(f"{path} cannot be written ({error}): is the disk full?") from error


def _count(summary: Summary, shot: Shot, people: People | None) -> None:
    summary.images += 1
    if people is None:
        summary.unreadable += 1
        log.warning("image %s: %s", shot.name, shot.problem)
    elif people.ids:
        summary.ids |= {i for i, state in zip(people.ids, people.tracking_state)
                        if state == TRACKED}


class JsonLines:
    """One JSON object an image; what is not known is null. Pixels with the first centre at 0.5."""

    def __init__(self, path: Path):
        self.path = path
        self.file = open(path, "w", encoding="utf-8")

    def write(self, shot: Shot, people: People | None) -> None:
        line = {"stamp_ns": shot.stamp, "frame_id": shot.frame_id, "name": shot.name}
        if people is None:
            line |= {"status": "unreadable", "note": shot.problem, "people": None}
        else:
            status = "ok" if people.joints is not None else "2d_only"
            line |= {"status": status, "note": people.note,
                     "people": [_person(people, i) for i in range(len(people))]}
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


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
    """An MP4 of the images with everyone drawn in; an unreadable image repeats the one before.

    bodies: draw the SMPL surfaces too.
    """

    def __init__(self, path: Path, fps: float, pipeline: Pipeline, bodies: bool = False):
        self.path, self.fps, self.pipeline, self.bodies = path, fps, pipeline, bodies
        self.writer: cv2.VideoWriter | None = None
        self.size: tuple[int, ...] = ()
        self.latest: np.ndarray | None = None
        self.count = 0

    def write(self, shot: Shot, people: People | None) -> None:
        if people is not None:
            camera, _ = self.pipeline.camera(shot.frame)
            body = self.pipeline.body if self.bodies else None
            self.latest = overlay(shot.frame.image, people, camera, body)
        if self.latest is None:
            return
        if self.writer is None:
            self.size = self.latest.shape[1::-1]
            self.writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*"mp4v"),
                                          self.fps, self.size)
        picture = self.latest if self.latest.shape[1::-1] == self.size else \
            cv2.resize(self.latest, self.size)
        self.writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.count += 1

    def close(self) -> None:
        if self.writer is None:
            return
        self.writer.release()
        kept = int(cv2.VideoCapture(str(self.path)).get(cv2.CAP_PROP_FRAME_COUNT))
        if kept < self.count:  # OpenCV does not tell
            raise SinkError(f"{self.path} holds {max(kept, 0)} of {self.count} images: is the disk "
                            "full?")

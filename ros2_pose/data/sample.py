"""A picture with the truth about the people in it, as datasets give it and training takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.people import Frame, People

# keypoint_scores of a truth; OUTSIDE also stands for a keypoint that is not labelled.
OUTSIDE, HIDDEN, VISIBLE = 0.0, 0.5, 1.0

_TRUTH = ("boxes", "keypoints", "keypoint_scores", "joints", "theta", "betas", "root")
_JPEG_QUALITY = 95


class DataError(PoseError):
    """A file of a dataset that cannot be used; the message names it, the key and the remedy."""


class Sample(NamedTuple):
    """A picture and its truth.

    Args:
        people: a field without any truth is None, a person's or joint's unknown value NaN; scores
            are 1, keypoint_scores VISIBLE, HIDDEN or OUTSIDE.
        ignored (M, 4): boxes xyxy px of crowds and of people without labels.
        complete: True if everyone in the picture is in `people` or `ignored`; if False, a detection
            besides them is not an error.
    """

    frame: Frame
    people: People
    ignored: np.ndarray
    complete: bool

    @staticmethod
    def whole(frame: Frame, people: People) -> Sample:
        """Make a complete sample without ignored boxes."""
        return Sample(frame, people, np.zeros((0, 4)), True)


class Samples(Protocol):
    """A dataset: samples by index, from 0. An unreadable sample raises DataError on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample: ...


class _Indexed(Protocol):
    """An endless source of samples by number."""

    def __getitem__(self, number: int) -> Sample: ...


class StoredSamples:
    """The first samples of a source, each made once and then kept in a folder.

    Args:
        folder: made if it is missing.
        source: gives the samples that are not in the folder yet.
        count: number of samples.
    """

    def __init__(self, folder: str | Path, source: _Indexed, count: int) -> None:
        self.folder, self.source, self.count = Path(folder), source, count
        self.folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        path = self.folder / f"{number:07d}.npz"
        if not path.exists():
            write(path, self.source[number])
        return read(path)


def write(path: Path, sample: Sample) -> None:
    """Save a sample; the picture becomes a JPEG. Its camera is calibrated, without distortion."""
    camera, people = sample.frame.camera, sample.people
    assert camera is not None
    picture = cv2.imencode(".jpg", sample.frame.image[..., ::-1],
                           [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    known: dict[str, Any] = {name: np.asarray(getattr(people, name), np.float32)
                             for name in _TRUTH if getattr(people, name) is not None}
    unfinished = path.with_suffix(".part")
    with open(unfinished, "wb") as file:
        np.savez(file, picture=picture, K=camera.K, ignored=sample.ignored,
                 complete=sample.complete, **known)
    unfinished.replace(path)


def read(path: Path) -> Sample:
    """Read a sample saved by `write`. Raises DataError if the file is damaged or another."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = dict(file)
        image = cv2.imdecode(values["picture"], cv2.IMREAD_COLOR)[..., ::-1]
        truth = {name: values[name].astype(float) for name in _TRUTH if name in values}
        (fx, _, cx), (_, fy, cy), _ = values["K"].tolist()
        camera = Camera(image.shape[1], image.shape[0], fx, fy, cx, cy)
        ignored, complete = values["ignored"], bool(values["complete"])
    except Exception as error:
        raise DataError(f"{path} is not a stored sample ({error}): delete it, then it is "
                        "made again") from error
    count = len(truth["boxes"])
    people = People(scores=np.ones(count), keypoint_cov=np.zeros((count, 17, 2, 2)), **truth)
    return Sample(Frame(image, camera), people, ignored, complete)

"""A picture with what is known of the people in it: what every dataset gives and training takes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.people import Frame, People

OUTSIDE, HIDDEN, VISIBLE = 0.0, 0.5, 1.0  # keypoint_scores of a truth

_TRUTH = ("boxes", "keypoints", "keypoint_scores", "joints", "theta", "betas", "root")
_JPEG_QUALITY = 95


class DataError(PoseError):
    """A file of a dataset that cannot be used; the message names it, the key and the remedy."""


class Sample(NamedTuple):
    """A picture and its truth.

    people: a field without any truth is None, a person's or joint's unknown value NaN; scores are
        1, keypoint_scores VISIBLE, HIDDEN or OUTSIDE the image; who is not labelled is NaN.
    ignored: (M, 4) boxes px of crowds and of people about whom nothing is known.
    complete: whether everyone in the picture is in `people` or `ignored`; if not, what is found
        besides them is not wrong.
    """

    frame: Frame
    people: People
    ignored: np.ndarray
    complete: bool

    @staticmethod
    def whole(frame: Frame, people: People) -> Sample:
        """Of a picture of which everything is known."""
        return Sample(frame, people, np.zeros((0, 4)), True)


class Samples(Protocol):
    """What a dataset is: a number of samples, by index. DataError for one that cannot be read."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Sample: ...


class Stored:
    """Samples kept in a folder, each made once: for what takes longer to draw than to read.

    source: where a sample comes from that is not in the folder yet. count: how many there are.
    """

    def __init__(self, folder: str | Path, source, count: int) -> None:
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
    """Save a sample of a calibrated camera without distortion; the picture becomes a JPEG."""
    camera, people = sample.frame.camera, sample.people
    picture = cv2.imencode(".jpg", sample.frame.image[..., ::-1],
                           [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    known = {name: np.float32(getattr(people, name)) for name in _TRUTH
             if getattr(people, name) is not None}
    unfinished = path.with_suffix(".part")
    with open(unfinished, "wb") as file:
        np.savez(file, picture=picture, K=camera.K, ignored=sample.ignored,
                 complete=sample.complete, **known)
    unfinished.replace(path)


def read(path: Path) -> Sample:
    """A sample saved by `write`. Raises DataError for a file that is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = dict(file)
        image = cv2.imdecode(values["picture"], cv2.IMREAD_COLOR)[..., ::-1]
        truth = {name: values[name].astype(float) for name in _TRUTH if name in values}
        (fx, _, cx), (_, fy, cy), _ = values["K"].tolist()
        camera = Camera(image.shape[1], image.shape[0], fx, fy, cx, cy)
        ignored, complete = values["ignored"], bool(values["complete"])
    except Exception as error:
        raise DataError(f"{path} is not a stored sample ({error}): delete it, and it is made "
                        "anew") from error
    count = len(truth["boxes"])
    people = People(scores=np.ones(count), keypoint_cov=np.zeros((count, 17, 2, 2)), **truth)
    return Sample(Frame(image, camera), people, ignored, complete)

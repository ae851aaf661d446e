"""MPII Human Pose (Andriluka et al. 2014): single pictures with 2D keypoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ros2_pose.data.reading import (
    boxes_around,
    coco_keypoints,
    make_sample,
    members_of_split,
    parsing,
    read_frame,
    read_mat,
    require_path,
)
from ros2_pose.data.sample import HIDDEN, VISIBLE, DataError, Sample
from ros2_pose.skeleton import MPII16

_PIXEL_SHIFT = -0.5  # MATLAB's first pixel has its centre at 1, here at 0.5


class Mpii:
    """MPII Human Pose, the release's training pictures; not complete.

    Files: root/mpii_human_pose_v1_u12_1.mat and pictures in root/images/. Test people have no
    joints, and the release has no validation split. No keypoint of the face is labelled; boxes are
    around all sixteen joints, including the top of the head.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        members_of_split({"train": ()}, split, "MPII")
        remedy = "download mpii_human_pose_v1_u12_2.zip and the pictures of MPII Human Pose"
        self.file = Path(root) / "mpii_human_pose_v1_u12_1.mat"
        self.folder = require_path(Path(root) / "images", remedy)
        release, = read_mat(self.file, ("RELEASE",), remedy)
        with parsing(self.file, "RELEASE with annolist and img_train"):
            self.people = dict(_training_people(release))
        self.names = list(self.people)
        if not self.names:
            raise DataError(f"{self.file} has no labelled people in training: {remedy}")
        require_path(self.folder / self.names[0], remedy)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        name = self.names[number]
        people = self.people[name].astype(float)
        points, scores = people[..., :2], people[..., 2]
        keypoints = coco_keypoints(points, scores, MPII16, f"{self.file}, annopoints of {name}")
        return make_sample(read_frame(self.folder / name), boxes_around(points), keypoints,
                           complete=False)


def _training_people(release: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Name and people (P, 16, 3) x, y px, score of every training picture with labelled people."""
    training = np.atleast_1d(release.img_train)
    for entry, is_training in zip(np.atleast_1d(release.annolist), training, strict=True):
        people = [_labelled_joints(np.atleast_1d(person.annopoints.point))
                  for person in np.atleast_1d(entry.annorect) if _has_points(person)]
        if is_training and people:
            yield str(entry.image.name), np.array(people, np.float32)


def _has_points(person: Any) -> bool:
    """Return False for people with position and scale alone: their struct array is empty."""
    return hasattr(getattr(person, "annopoints", None), "point")


def _labelled_joints(points: np.ndarray) -> np.ndarray:
    """(16, 3) x, y px and score of one person; NaN and 0 for joints without a label."""
    joints = np.full((len(MPII16), 3), np.nan)
    joints[:, 2] = 0
    for point in points:
        # Neck and head have no visibility; that of others is a number or its text.
        hidden = str(getattr(point, "is_visible", "")).startswith("0")
        joints[int(point.id)] = (point.x + _PIXEL_SHIFT, point.y + _PIXEL_SHIFT,
                                 HIDDEN if hidden else VISIBLE)
    return joints

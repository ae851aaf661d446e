"""MPII Human Pose (Andriluka et al. 2014): single pictures with 2D keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.data.reading import (
    boxes_around,
    chosen,
    existing,
    on_coco,
    read_frame,
    read_mat,
    sample_of,
    understood,
)
from ros2_pose.data.sample import HIDDEN, VISIBLE, DataError, Sample
from ros2_pose.skeleton import MPII16

_OF_MATLAB = -0.5  # the first pixel's centre is 1 there, 0.5 here


class Mpii:
    """MPII Human Pose (Andriluka et al. 2014), the release's training pictures; not complete.

    root/mpii_human_pose_v1_u12_1.mat and pictures in root/images/. Test people have no joints, and
    there is no validation split in the release. Nothing of the face is labelled; boxes are around
    all sixteen joints, the top of the head among them.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        chosen({"train": ()}, split, "MPII")
        remedy = "download mpii_human_pose_v1_u12_2.zip and the pictures of MPII Human Pose"
        self.file = Path(root) / "mpii_human_pose_v1_u12_1.mat"
        self.folder = existing(Path(root) / "images", remedy)
        release, = read_mat(self.file, ("RELEASE",), remedy)
        with understood(self.file, "RELEASE with annolist and img_train"):
            self.people = dict(_mpii_people(release))
        self.names = list(self.people)
        if not self.names:
            raise DataError(f"{self.file} has no labelled people in training: {remedy}")
        existing(self.folder / self.names[0], remedy)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        name = self.names[number]
        points, scores = np.split(self.people[name].astype(float), [2], axis=-1)
        marks = on_coco(points, scores[..., 0], MPII16, f"{self.file}, annopoints of {name}")
        return sample_of(read_frame(self.folder / name), boxes_around(points), marks,
                         complete=False)


def _mpii_people(release):
    """(name, (P, 16, 3) x, y px and score) of every training picture with labelled people."""
    training = np.atleast_1d(release.img_train)
    for entry, is_training in zip(np.atleast_1d(release.annolist), training, strict=True):
        people = [_mpii_person(np.atleast_1d(person.annopoints.point))
                  for person in np.atleast_1d(entry.annorect) if _has_points(person)]
        if is_training and people:
            yield str(entry.image.name), np.array(people, np.float32)


def _has_points(person) -> bool:
    """An empty struct array stands for people of whom only place and scale are known."""
    return hasattr(getattr(person, "annopoints", None), "point")


def _mpii_person(points) -> np.ndarray:
    person = np.full((len(MPII16), 3), np.nan)
    person[:, 2] = 0
    for point in points:
        # Of neck and head nobody says whether they are seen; of others a number does, or its text.
        hidden = str(getattr(point, "is_visible", "")).startswith("0")
        person[int(point.id)] = (point.x + _OF_MATLAB, point.y + _OF_MATLAB,
                                 HIDDEN if hidden else VISIBLE)
    return person

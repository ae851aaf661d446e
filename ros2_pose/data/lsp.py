"""Leeds Sports Pose, extended (Johnson and Everingham 2011): single pictures with 2D keypoints."""

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
from ros2_pose.data.sample import VISIBLE, Sample
from ros2_pose.skeleton import LSP14

_OF_MATLAB = -0.5  # the first pixel's centre is 1 there, 0.5 here


class LspExtended:
    """Leeds Sports Pose extended training set (Johnson and Everingham 2011); not complete.

    root/joints.mat and root/images/im00001.jpg and so on; 'train' is all there is. A joint that is
    not visible was not placed either. Nothing of the face is labelled.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        chosen({"train": ()}, split, "LSP-extended")
        remedy = "download and unpack lspet_dataset.zip"
        self.file, self.folder = Path(root) / "joints.mat", Path(root) / "images"
        joints, = read_mat(self.file, ("joints",), remedy)
        with understood(self.file, "joints of 14 x 3 x people"):
            self.people = joints.reshape(len(LSP14), 3, -1).transpose(2, 0, 1).astype(float)
        for number in (0, len(self) - 1):
            existing(self._picture(number), remedy)

    def __len__(self) -> int:
        return len(self.people)

    def _picture(self, number: int) -> Path:
        return self.folder / f"im{number + 1:05d}.jpg"

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        person, path = self.people[[number]], self._picture(number)
        scores = np.where(person[..., 2] > 0, VISIBLE, 0.0)
        points = np.where(scores[..., None] > 0, person[..., :2] + _OF_MATLAB, np.nan)
        marks = on_coco(points, scores, LSP14, f"{self.file}, joints of {path.name}")
        return sample_of(read_frame(path), boxes_around(points), marks, complete=False)

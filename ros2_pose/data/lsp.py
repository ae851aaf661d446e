"""Leeds Sports Pose, extended (Johnson and Everingham 2011): single pictures, 2D keypoints."""

from __future__ import annotations

from pathlib import Path

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
from ros2_pose.data.sample import VISIBLE, Sample
from ros2_pose.skeleton import LSP14

_PIXEL_SHIFT = -0.5  # MATLAB's first pixel has its centre at 1, here at 0.5


class LspExtended:
    """Leeds Sports Pose extended training set; not complete.

    Files: root/joints.mat and root/images/im00001.jpg and so on; 'train' is the only split. Joints
    that are not visible have no position. No keypoint of the face is labelled.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        members_of_split({"train": ()}, split, "LSP-extended")
        remedy = "download and unpack lspet_dataset.zip"
        self.file, self.folder = Path(root) / "joints.mat", Path(root) / "images"
        joints, = read_mat(self.file, ("joints",), remedy)
        with parsing(self.file, "joints of 14 x 3 x people"):
            self.people = joints.reshape(len(LSP14), 3, -1).transpose(2, 0, 1).astype(float)
        for number in (0, len(self) - 1):
            require_path(self._picture(number), remedy)

    def __len__(self) -> int:
        return len(self.people)

    def _picture(self, number: int) -> Path:
        return self.folder / f"im{number + 1:05d}.jpg"

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        person, path = self.people[[number]], self._picture(number)
        labelled = person[..., 2] > 0
        points = np.where(labelled[..., None], person[..., :2] + _PIXEL_SHIFT, np.nan)
        keypoints = coco_keypoints(points, np.where(labelled, VISIBLE, 0.0), LSP14,
                                   f"{self.file}, joints of {path.name}")
        return make_sample(read_frame(path), boxes_around(points), keypoints, complete=False)

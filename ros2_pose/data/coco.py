"""COCO keypoints (Lin et al. 2014): single pictures with 2D keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.data.reading import (
    checked,
    existing,
    on_coco,
    read_frame,
    read_json,
    sample_of,
    understood,
)
from ros2_pose.data.sample import HIDDEN, VISIBLE, Sample
from ros2_pose.skeleton import COCO17

_OF_COCO = 0.5  # the first pixel's centre is 0 there, 0.5 here


class Coco:
    """COCO keypoints (Lin et al. 2014), complete; who has no keypoints is `ignored`, crowds too.

    root/annotations/person_keypoints_<split>.json and pictures in root/<split>/, for example
    val2017. Pictures without people are among them. Boxes are COCO's own, around the outline.
    """

    def __init__(self, root: str | Path, split: str = "val2017") -> None:
        remedy = "download and unpack COCO's annotations and pictures of this split"
        self.file = Path(root) / "annotations" / f"person_keypoints_{split}.json"
        self.folder = existing(Path(root) / split, remedy)
        table = read_json(self.file, remedy)
        with understood(self.file, "images with id and file_name; annotations with image_id, bbox, "
                                   "iscrowd, num_keypoints and 17 keypoints"):
            self._index(table)
        if self.names:
            existing(self.folder / self.names[0], remedy)

    def _index(self, table: dict) -> None:
        """Everybody in arrays, those of a picture together: workers share their memory."""
        self.names = [image["file_name"] for image in table["images"]]
        number_of = {image["id"]: number for number, image in enumerate(table["images"])}
        people = sorted(table["annotations"], key=lambda person: number_of[person["image_id"]])
        numbers = [number_of[person["image_id"]] for person in people]
        self.first = np.searchsorted(numbers, np.arange(len(self.names) + 1))
        self.boxes = np.array([p["bbox"] for p in people], float).reshape(-1, 4)
        self.boxes[:, 2:] += self.boxes[:, :2]
        self.points = np.array([p["keypoints"] for p in people], np.float32).reshape(-1, 17, 3)
        self.labelled = np.array([p["num_keypoints"] > 0 and not p["iscrowd"] for p in people],
                                 bool)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        name, rows = self.names[number], slice(*self.first[number:number + 2])
        where = f"{self.file}, people of {name}"
        boxes, labelled = self.boxes[rows], self.labelled[rows]
        checked(boxes[:, None], np.ones((len(boxes), 1), bool), ("bbox",), where)
        points = self.points[rows][labelled].astype(float)
        scores = np.select([points[..., 2] == 2, points[..., 2] == 1], [VISIBLE, HIDDEN], 0.0)
        marks = on_coco(points[..., :2] + _OF_COCO, scores, COCO17, where)
        return sample_of(read_frame(self.folder / name), boxes[labelled], marks, complete=True,
                         ignored=boxes[~labelled])

"""COCO keypoints (Lin et al. 2014): single pictures with 2D keypoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.reading import (
    coco_keypoints,
    make_sample,
    parsing,
    read_frame,
    read_json,
    require_finite,
    require_path,
)
from ros2_pose.data.sample import HIDDEN, VISIBLE, Sample
from ros2_pose.skeleton import COCO17

_PIXEL_SHIFT = 0.5  # COCO's first pixel has its centre at 0, here at 0.5
EXPECTED = ("images with id and file_name; annotations with image_id, bbox, iscrowd, "
            "num_keypoints and 17 keypoints")


class Coco:
    """COCO keypoints; complete: people without keypoints and crowds are `ignored`.

    Files: root/annotations/person_keypoints_<split>.json and pictures in root/<split>/, for
    example val2017. Pictures without people are included. Boxes are COCO's own, around the outline.
    """

    def __init__(self, root: str | Path, split: str = "val2017") -> None:
        remedy = "download and unpack COCO's annotations and pictures of this split"
        self.file = Path(root) / "annotations" / f"person_keypoints_{split}.json"
        self.folder = require_path(Path(root) / split, remedy)
        table = read_json(self.file, remedy)
        with parsing(self.file, EXPECTED):
            self._index(table)
        if self.names:
            require_path(self.folder / self.names[0], remedy)

    def _index(self, table: dict) -> None:
        """Keep all people in arrays, sorted by picture: a loader's workers share their memory."""
        people_of: dict[int, list[dict]] = {image["id"]: [] for image in table["images"]}
        for person in table["annotations"]:
            people_of[person["image_id"]].append(person)

        self.names, first_row = [], [0]
        boxes, points, labelled = [], [], []
        for image in table["images"]:
            self.names.append(image["file_name"])
            for person in people_of[image["id"]]:
                if len(person["keypoints"]) != 3 * len(COCO17):
                    raise ValueError(f"a person of {image['file_name']} has "
                                     f"{len(person['keypoints']) / 3:g} keypoints")
                boxes.append(person["bbox"])
                points.append(person["keypoints"])
                labelled.append(person["num_keypoints"] > 0 and not person["iscrowd"])
            first_row.append(len(boxes))
        self.first_row = np.array(first_row)  # of each picture's people, and the end
        self.boxes = np.array(boxes, float).reshape(-1, 4)  # x, y, width, height
        self.boxes[:, 2:] += self.boxes[:, :2]  # x min, y min, x max, y max
        self.points = np.array(points, np.float32).reshape(-1, 17, 3)
        self.labelled = np.array(labelled, bool)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        name = self.names[number]
        rows = slice(*self.first_row[number:number + 2])
        source = f"{self.file}, people of {name}"
        boxes, labelled = self.boxes[rows], self.labelled[rows]
        require_finite(boxes[:, None], np.ones((len(boxes), 1), bool), ("bbox",), source)
        points = self.points[rows][labelled].astype(float)
        scores = np.select([points[..., 2] == 2, points[..., 2] == 1], [VISIBLE, HIDDEN], 0.0)
        keypoints = coco_keypoints(points[..., :2] + _PIXEL_SHIFT, scores, COCO17, source)
        return make_sample(read_frame(self.folder / name, self._camera(number)), boxes[labelled],
                           keypoints, complete=True, ignored=boxes[~labelled],
                           **self._more(np.arange(rows.start, rows.stop)[labelled]))

    def _camera(self, number: int) -> Camera | None:
        """Camera of a picture: COCO knows of none."""
        return None

    def _more(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """More fields of People of some annotations, by their rows: COCO has none."""
        return {}

"""Single pictures with keypoints in 2D: COCO, MPII and LSP-extended."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.data.reading import (
    boxes_around,
    checked,
    chosen,
    existing,
    on_coco,
    read_frame,
    read_json,
    read_mat,
    sample_of,
    understood,
)
from ros2_pose.data.sample import HIDDEN, VISIBLE, DataError, Sample
from ros2_pose.skeleton import COCO17, LSP14, MPII16

_OF_MATLAB = -0.5  # the first pixel's centre is 1 there, 0.5 here
_OF_COCO = 0.5  # and 0 there


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

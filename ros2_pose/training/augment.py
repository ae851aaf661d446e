"""Augment samples and collate them to the batches that a network is trained on."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ros2_pose.boxes import areas
from ros2_pose.data.sample import VISIBLE, Sample
from ros2_pose.geometry import with_root_rotated
from ros2_pose.networks.base import PAD
from ros2_pose.skeleton import COCO17, SMPL24

_ZOOM = (0.75, 1.3)
_SHIFT = 0.1  # of the side, each way
_CLOSE_UP = (0.4, 1.2)  # diagonal of a person in a close-up, relative to its side
_CLOSE_UP_ZOOM = (0.4, 1.5)  # smaller loses detail; larger has none
CROP_FACTOR = 1.25  # side of the crop of a person relative to the box's long side
_CROP_ZOOM = (0.75, 1.25)
_CROP_SHIFT = 0.06  # of the side, each way
_LEAST_DEPTH_M = 0.1  # of a joint that is projected
_LEAST_LEFT = 0.25  # of a box: people that are cut more are ignored


class Batch(NamedTuple):
    """B square images with a side of S px and their N people. Unknown values are NaN."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    complete: Tensor  # (B,) bool
    ignored: list[Tensor]  # (M, 4) px, boxes that may hold unlabelled people, of each image
    image: Tensor  # (N,) index of each person's image
    boxes: Tensor  # (N, 4) px
    keypoints: Tensor  # (N, 17, 2) px
    keypoint_std: Tensor  # (N, 17) px, of the labels; 0: exact
    visible: Tensor  # (N, 17) bool
    camera: Tensor  # (N, 4) fx, fy, cx, cy px
    theta: Tensor  # (N, 24, 4) quat_xyzw, the root's in the camera frame
    betas: Tensor  # (N, 10)
    joints: Tensor  # (N, 24, 3) m from the pelvis, camera axes
    root: Tensor  # (N, 3) m, the pelvis in the camera frame

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        moved = {name: value.to(device, non_blocking=True)
                 for name, value in self._asdict().items() if name != "ignored"}
        return Batch(**moved, ignored=[boxes.to(device) for boxes in self.ignored])

    def projected_joints(self) -> Tensor:
        """Return the joints (N, 24, 2) px; NaN where a body or a camera is not known."""
        position = self.joints + self.root[:, None]
        depth = torch.where(position[..., 2:] > _LEAST_DEPTH_M, position[..., 2:], torch.nan)
        focal, middle = self.camera[:, None, :2], self.camera[:, None, 2:]
        return focal * position[..., :2] / depth + middle


class Example(NamedTuple):
    """One image of a batch.

    Attributes:
        image (S, S, 3): uint8 RGB.
        complete: whether everyone is labelled or in an ignored box.
        ignored (M, 4): px.
        people: the fields of `Batch` that have one row a person, by name.
    """

    image: np.ndarray
    complete: bool
    ignored: np.ndarray
    people: dict[str, np.ndarray]


def example(sample: Sample, size: int, random: np.random.Generator | None = None,
            roll_deg: float = 0.0) -> Example:
    """Fit a sample into a square.

    Args:
        sample: image with truth.
        size: side of the square, px.
        random: draws position, scale, reflection and colours; None changes nothing.
        roll_deg: most that the camera is rotated about its optical axis, either way.
    """
    extent = np.array(sample.frame.image.shape[1::-1])
    scale = size / extent.max()
    if random is None:
        return _placed(sample, size, scale * np.eye(2), np.zeros(2))
    scale *= random.uniform(*_ZOOM)
    position = random.uniform(0.5 - _SHIFT, 0.5 + _SHIFT, 2) * size
    return _changed(sample, size, scale, extent / 2, position, random, roll_deg)


def close_up(sample: Sample, size: int, random: np.random.Generator,
             roll_deg: float = 0.0) -> Example:
    """Cut a square of `size` px around one of the people, at a scale drawn at random.

    Args:
        roll_deg: most that the camera is rotated about its optical axis, either way.
    """
    if not len(sample.people):
        return example(sample, size, random, roll_deg)
    box = sample.people.boxes[random.integers(len(sample.people))]
    diagonal = np.hypot(*(box[2:] - box[:2]))
    scale = size * random.uniform(*_CLOSE_UP) / max(diagonal, 1.0)
    scale = np.clip(scale, *_CLOSE_UP_ZOOM)
    position = random.uniform(0.5 - _SHIFT, 0.5 + _SHIFT, 2) * size
    return _changed(sample, size, scale, (box[:2] + box[2:]) / 2, position, random, roll_deg)


def person_crop(sample: Sample, size: int, random: np.random.Generator | None = None,
                roll_deg: float = 0.0) -> Example:
    """Cut the square around one of the people, who alone is in the result.

    Args:
        sample: image with truth; without people, the result shows the whole image.
        size: side of the square, px.
        random: draws the person and what is changed; None takes the first and changes nothing.
        roll_deg: most that the camera is rotated about its optical axis, either way.
    """
    if not len(sample.people):
        return example(sample, size, random, roll_deg)
    row = 0 if random is None else int(random.integers(len(sample.people)))
    sample = sample._replace(people=sample.people[[row]])
    box = sample.people.boxes[0]
    centre = (box[:2] + box[2:]) / 2
    scale = size / (CROP_FACTOR * max(*(box[2:] - box[:2]), 1.0))
    if random is None:
        linear = scale * np.eye(2)
        return _placed(sample, size, linear, np.full(2, size / 2) - linear @ centre)
    scale *= random.uniform(*_CROP_ZOOM)
    position = (0.5 + random.uniform(-_CROP_SHIFT, _CROP_SHIFT, 2)) * size
    return _changed(sample, size, scale, centre, position, random, roll_deg)


def mosaic(four: list[Example]) -> Example:
    """Join four examples of one size as the quarters of one: more people at the cost of one image.

    Source: Bochkovskiy et al. 2020, "YOLOv4".
    """
    size = len(four[0].image)
    moves = [np.array(move) * size for move in ((0, 0), (1, 0), (0, 1), (1, 1))]
    upper = np.concatenate([four[0].image, four[1].image], 1)
    lower = np.concatenate([four[2].image, four[3].image], 1)
    ignored, people = [], []
    for tile, move in zip(four, moves):
        ignored.append(tile.ignored + np.tile(move, 2))
        people.append(_moved(_inside(tile.people, size), move))
    joined = {name: np.concatenate([p[name] for p in people]) for name in people[0]}
    return Example(np.concatenate([upper, lower]), all(e.complete for e in four),
                   np.concatenate(ignored), joined)


def hidden_behind(made: Example, covered: np.ndarray) -> Example:
    """Return an example with the joints at covered pixels, (S, S) bool, as not visible.

    People of whom little is left become ignored.
    """
    people, size = made.people, len(covered)
    points = np.nan_to_num(people["keypoints"], nan=-1.0)
    inside = ((points >= 0) & (points < size)).all(2)
    column, row = points.clip(0, size - 1).astype(int).transpose(2, 0, 1)
    hidden = inside & covered[row, column]
    shown = (inside & ~hidden).sum(1) >= _LEAST_LEFT * inside.sum(1)
    people = people | {"visible": people["visible"] & ~hidden}
    return made._replace(people={name: value[shown] for name, value in people.items()},
                         ignored=np.concatenate([made.ignored, people["boxes"][~shown]]))


def _changed(sample: Sample, size: int, scale: float, centre: np.ndarray, position: np.ndarray,
             random: np.random.Generator, roll_deg: float) -> Example:
    """Place a sample in a square, mirror it with a chance of 1/2, roll it and change its colours.

    The point `centre` of the sample, px, comes to `position` of the square, px.
    """
    if random.random() < 0.5:
        sample = mirrored(sample)
        centre = np.array([sample.frame.image.shape[1] - centre[0], centre[1]])
    roll = np.radians(random.uniform(-roll_deg, roll_deg)) if roll_deg else 0.0
    cos, sin = np.cos(roll), np.sin(roll)
    linear = scale * np.array([[cos, -sin], [sin, cos]])
    placed = _placed(sample, size, linear, position - linear @ centre)
    return placed._replace(image=_recoloured(placed.image, random))


def _inside(people: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Return people without the keypoints beyond the square: another tile is there."""
    points = people["keypoints"]
    inside = (points.min(2, keepdims=True) >= 0) & (points.max(2, keepdims=True) < size)
    return people | {"keypoints": np.where(inside, points, np.nan),
                     "visible": people["visible"] & inside[..., 0]}


def _moved(people: dict[str, np.ndarray], move: np.ndarray) -> dict[str, np.ndarray]:
    return people | {"boxes": people["boxes"] + np.tile(move, 2),
                     "keypoints": people["keypoints"] + move,
                     "camera": people["camera"] + [0, 0, *move]}


def _placed(sample: Sample, size: int, linear: np.ndarray, shift: np.ndarray) -> Example:
    """Place a sample in a square of `size` px; a point p px comes to linear @ p + shift.

    Args:
        linear (2, 2): a scale and a rotation, by which the camera rolls; its pixels are taken to be
            square.
    """
    people = _known(sample)
    people["keypoints"] = people["keypoints"] @ linear.T + shift
    scale = np.hypot(*linear[0])
    people["keypoint_std"] = people["keypoint_std"] * scale
    focal, middle = people["camera"][:, :2], people["camera"][:, 2:]
    people["camera"] = np.concatenate([scale * focal, middle @ linear.T + shift], axis=1)
    rolled = np.eye(3)
    rolled[:2, :2] = linear / scale
    people["theta"] = with_root_rotated(people["theta"], Rotation.from_matrix(rolled))
    people["joints"] = people["joints"] @ rolled.T
    people["root"] = people["root"] @ rolled.T
    whole = _boxes_placed(people["boxes"], linear, shift)
    people["boxes"] = whole.clip(0, size)
    left = areas(people["boxes"]) / np.maximum(areas(whole), 1e-9)
    visible = left > _LEAST_LEFT
    ignored = np.concatenate([_boxes_placed(sample.ignored, linear, shift), whole[~visible]])
    return Example(_drawn(sample.frame.image, size, linear, shift), sample.complete,
                   ignored.clip(0, size), {name: value[visible] for name, value in people.items()})


def _boxes_placed(boxes: np.ndarray, linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of what boxes (N, 4) hold, moved; rotated, of the ellipses that fill them.

    The corners of a box are empty: the box around a rotated box would be too large.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ linear.T + shift
    half = np.sqrt((((boxes[:, 2:] - boxes[:, :2]) / 2)**2) @ (linear**2).T)
    return np.concatenate([centre - half, centre + half], axis=1)


def collate(examples: list[Example]) -> Batch:
    """Join examples of one size to a batch."""
    counts = [len(e.people["boxes"]) for e in examples]
    people = {}
    for name in examples[0].people:
        value = torch.from_numpy(np.concatenate([e.people[name] for e in examples]))
        people[name] = value if value.dtype == torch.bool else value.float()
    images = torch.from_numpy(np.stack([e.image for e in examples])).permute(0, 3, 1, 2)
    return Batch(images, complete=torch.tensor([e.complete for e in examples]),
                 ignored=[torch.from_numpy(e.ignored).float() for e in examples],
                 image=torch.from_numpy(np.repeat(np.arange(len(examples)), counts)), **people)


def mirrored(sample: Sample) -> Sample:
    """Return the reflection of a sample: left and right joints are exchanged."""
    frame, people = sample.frame, sample.people
    width = frame.image.shape[1]
    camera = frame.camera
    if camera is not None:
        camera = camera.mirrored()
    changed = {"boxes": np.stack([width - people.boxes[:, 2], people.boxes[:, 1],
                                  width - people.boxes[:, 0], people.boxes[:, 3]], 1)}
    keypoints = people.keypoints[:, COCO17.mirror] * (-1, 1) + (width, 0)
    changed |= {"keypoints": keypoints,
                "keypoint_cov": people.keypoint_cov[:, COCO17.mirror] * [[1, -1], [-1, 1]],
                "keypoint_scores": people.keypoint_scores[:, COCO17.mirror]}
    if people.joints is not None:
        changed["joints"] = people.joints[:, SMPL24.mirror] * (-1, 1, 1)
    if people.theta is not None:  # the reflected axis, the opposite angle
        changed["theta"] = people.theta[:, SMPL24.mirror] * (1, -1, -1, 1)
    if people.root is not None:
        changed["root"] = people.root * (-1, 1, 1)
    ignored = sample.ignored[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
    image = np.ascontiguousarray(frame.image[:, ::-1])
    return sample._replace(frame=type(frame)(image, camera, frame.stamp),
                           people=people.with_fields(**changed), ignored=ignored)


def _known(sample: Sample) -> dict[str, np.ndarray]:
    """Return the fields of a batch that have one row a person, NaN where nothing is known."""
    people, camera = sample.people, sample.frame.camera
    count = len(people)

    def field(value: np.ndarray | None, *shape: int) -> np.ndarray:
        return np.full((count, *shape), np.nan) if value is None else value

    joints = field(people.joints, len(SMPL24), 3)
    K = np.full(4, np.nan) if camera is None else (camera.fx, camera.fy, camera.cx, camera.cy)
    variance = people.keypoint_cov.diagonal(axis1=2, axis2=3).mean(2)
    return {"boxes": people.boxes, "keypoints": people.keypoints,
            "keypoint_std": np.sqrt(variance),
            "visible": people.keypoint_scores == VISIBLE, "camera": np.tile(K, (count, 1)),
            "theta": field(people.theta, len(SMPL24), 4), "betas": field(people.betas, 10),
            "joints": joints - joints[:, :1], "root": joints[:, 0]}


def _drawn(image: np.ndarray, size: int, linear: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Draw an image into a square of `size` px; a point p px comes to linear @ p + shift."""
    scale = np.hypot(*linear[0])
    extent = np.array(image.shape[1::-1]) * scale
    if scale < 0.8:  # avoids aliasing
        # By size: by factors, OpenCV would scale by them, not to the size that they round to.
        image = cv2.resize(image, extent.round().clip(1).astype(int), interpolation=cv2.INTER_AREA)
    rest = linear / scale * (extent / image.shape[1::-1])
    # warpAffine has the origin at the first pixel's centre.
    matrix = np.column_stack([rest, shift + rest @ (0.5, 0.5) - 0.5])
    return cv2.warpAffine(np.ascontiguousarray(image), matrix, (size, size),
                          flags=cv2.INTER_LINEAR, borderValue=(PAD,) * 3)


def _recoloured(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change exposure, white balance and saturation at random; one image in ten becomes grey."""
    exposure, balance = random.uniform(0.7, 1.3), random.uniform(0.9, 1.1, 3)
    values = image.astype(np.float32) * exposure * balance
    grey = values.mean(2, keepdims=True)
    keep = 0.0 if random.random() < 0.1 else random.uniform(0.6, 1.3)
    return (grey + keep * (values - grey)).clip(0, 255).astype(np.uint8)

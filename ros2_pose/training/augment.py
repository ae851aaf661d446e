"""Augment samples and collate them to the batches that a network is trained on."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ros2_pose.boxes import areas
from ros2_pose.data.sample import VISIBLE, Sample
from ros2_pose.networks.tian.detector import PAD
from ros2_pose.skeleton import COCO17, SMPL24

_ZOOM = (0.75, 1.3)
_SHIFT = 0.1  # of the side, each way
_CLOSE_UP = (0.4, 1.2)  # diagonal of a person in a close-up, relative to its side
_CLOSE_UP_ZOOM = (0.4, 1.5)  # smaller loses detail; larger has none
_LEAST_LEFT = 0.25  # of a box: people that are cut more are ignored


class Batch(NamedTuple):
    """B square images with a side of S px and their N people. Unknown values are NaN."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    complete: Tensor  # (B,) bool
    ignored: list[Tensor]  # (M, 4) px, boxes that may hold unlabelled people, of each image
    image: Tensor  # (N,) index of each person's image
    boxes: Tensor  # (N, 4) px
    keypoints: Tensor  # (N, 17, 2) px
    visible: Tensor  # (N, 17) bool
    camera: Tensor  # (N, 4) fx, fy, cx, cy px
    theta: Tensor  # (N, 24, 4) quat_xyzw, the root's in the camera frame
    betas: Tensor  # (N, 10)
    joints: Tensor  # (N, 24, 3) m from the pelvis, camera axes

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        moved = {name: value.to(device, non_blocking=True)
                 for name, value in self._asdict().items() if name != "ignored"}
        return Batch(**moved, ignored=[boxes.to(device) for boxes in self.ignored])


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


def example(sample: Sample, size: int, random: np.random.Generator | None = None) -> Example:
    """Fit a sample into a square.

    Args:
        sample: image with truth.
        size: side of the square, px.
        random: draws position, scale, reflection and colours; None changes nothing.
    """
    extent = np.array(sample.frame.image.shape[1::-1])
    scale, shift = size / extent.max(), np.zeros(2)
    if random is None:
        return _placed(sample, size, scale, shift)
    scale *= random.uniform(*_ZOOM)
    shift = random.uniform(-_SHIFT, _SHIFT, 2) * size + (size - scale * extent) / 2
    return _changed(sample, size, scale, shift, random)


def close_up(sample: Sample, size: int, random: np.random.Generator) -> Example:
    """Cut a square of `size` px around one of the people, at a scale drawn at random."""
    if not len(sample.people):
        return example(sample, size, random)
    box = sample.people.boxes[random.integers(len(sample.people))]
    diagonal = np.hypot(*(box[2:] - box[:2]))
    scale = size * random.uniform(*_CLOSE_UP) / max(diagonal, 1.0)
    scale = np.clip(scale, *_CLOSE_UP_ZOOM)
    position = random.uniform(0.5 - _SHIFT, 0.5 + _SHIFT, 2) * size
    return _changed(sample, size, scale, position - scale * (box[:2] + box[2:]) / 2, random)


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


def _changed(sample: Sample, size: int, scale: float, shift: np.ndarray,
             random: np.random.Generator) -> Example:
    """Place a sample in a square, mirror it with a chance of 1/2 and change its colours."""
    if random.random() < 0.5:
        sample = mirrored(sample)
        shift = np.array([size - scale * sample.frame.image.shape[1] - shift[0], shift[1]])
    placed = _placed(sample, size, scale, shift)
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


def _placed(sample: Sample, size: int, scale: float, shift: np.ndarray) -> Example:
    """Place a sample in a square of `size` px; coordinates in px become scale * px + shift."""
    people = _known(sample)
    people["keypoints"] = people["keypoints"] * scale + shift
    people["camera"] = people["camera"] * scale + [0, 0, *shift]
    move = np.tile(shift, 2)
    whole = people["boxes"] * scale + move
    people["boxes"] = whole.clip(0, size)
    left = areas(people["boxes"]) / np.maximum(areas(whole), 1e-9)
    visible = left > _LEAST_LEFT
    ignored = np.concatenate([sample.ignored * scale + move, whole[~visible]]).clip(0, size)
    return Example(_drawn(sample.frame.image, size, scale, shift), sample.complete, ignored,
                   {name: value[visible] for name, value in people.items()})


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
    return {"boxes": people.boxes, "keypoints": people.keypoints,
            "visible": people.keypoint_scores == VISIBLE, "camera": np.tile(K, (count, 1)),
            "theta": field(people.theta, len(SMPL24), 4), "betas": field(people.betas, 10),
            "joints": joints - joints[:, :1]}


def _drawn(image: np.ndarray, size: int, scale: float, shift: np.ndarray) -> np.ndarray:
    """Draw an image into a square of `size` px; coordinates in px become scale * px + shift."""
    extent = np.array(image.shape[1::-1]) * scale
    if scale < 0.8:  # avoids aliasing
        # By size: by factors, OpenCV would scale by them, not to the size that they round to.
        image = cv2.resize(image, extent.round().clip(1).astype(int), interpolation=cv2.INTER_AREA)
    rest = extent / image.shape[1::-1]
    # warpAffine has the origin at the first pixel's centre.
    matrix = np.array([[rest[0], 0, shift[0] + rest[0] / 2 - 0.5],
                       [0, rest[1], shift[1] + rest[1] / 2 - 0.5]])
    return cv2.warpAffine(np.ascontiguousarray(image), matrix, (size, size),
                          flags=cv2.INTER_LINEAR, borderValue=(PAD,) * 3)


def _recoloured(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Change exposure, white balance and saturation at random; one image in ten becomes grey."""
    exposure, balance = random.uniform(0.7, 1.3), random.uniform(0.9, 1.1, 3)
    values = image.astype(np.float32) * exposure * balance
    grey = values.mean(2, keepdims=True)
    keep = 0.0 if random.random() < 0.1 else random.uniform(0.6, 1.3)
    return (grey + keep * (values - grey)).clip(0, 255).astype(np.uint8)

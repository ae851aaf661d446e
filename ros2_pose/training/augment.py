"""From samples to what a network trains on: pictures of one size, changed at random."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from ros2_pose.data.sample import VISIBLE, Sample
from ros2_pose.networks.tian import PAD
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17, SMPL24

_ZOOM = (0.75, 1.3)
_SHIFT = 0.1  # of the side
_LEAST_LEFT = 0.25  # of a box: who is cut more is no longer there to be found


class Batch(NamedTuple):
    """B pictures and their N people together. What is not known is NaN."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    camera: Tensor  # (B, 4) fx, fy, cx, cy px
    complete: Tensor  # (B,) bool
    ignored: list[Tensor]  # (M, 4) px of each picture
    image: Tensor  # (N,) whose picture
    boxes: Tensor  # (N, 4) px
    keypoints: Tensor  # (N, 17, 2) px
    visible: Tensor  # (N, 17) bool
    theta: Tensor  # (N, 24, 4) theta[:, 0] to the camera
    betas: Tensor  # (N, 10)
    joints: Tensor  # (N, 24, 3) m from the pelvis, camera axes

    def to(self, device: torch.device) -> Batch:
        return Batch(*([v.to(device) for v in value] if isinstance(value, list)
                       else value.to(device, non_blocking=True) for value in self))


class Example(NamedTuple):
    """One picture of a batch, the same fields without B."""

    image: np.ndarray
    camera: np.ndarray
    complete: bool
    ignored: np.ndarray
    people: dict[str, np.ndarray]


def example(sample: Sample, size: int, random: np.random.Generator | None = None) -> Example:
    """A sample fitted into a square, at random if there is a generator: place, mirror, colours."""
    if random is not None and random.random() < 0.5:
        sample = mirrored(sample)
    height, width = sample.frame.image.shape[:2]
    scale, shift = size / max(width, height), np.zeros(2)
    if random is not None:
        scale *= random.uniform(*_ZOOM)
        shift = random.uniform(-_SHIFT, _SHIFT, 2) * size + (size - scale * np.array(
            (width, height))) / 2
    image = _placed(sample.frame.image, size, scale, shift)
    image = image if random is None else _recoloured(image, random)
    move = np.tile(shift, 2)
    camera = sample.frame.camera
    K = np.full(4, np.nan) if camera is None else np.array(
        [camera.fx * scale, camera.fy * scale, camera.cx * scale + shift[0],
         camera.cy * scale + shift[1]])
    people = _known(sample.people)
    people["keypoints"] = people["keypoints"] * scale + shift
    whole = people["boxes"] * scale + move
    people["boxes"] = whole.clip(0, size)
    left = _area(people["boxes"]) / np.maximum(_area(whole), 1e-9)
    gone = ~(left > _LEAST_LEFT)
    ignored = np.concatenate([sample.ignored * scale + move, whole[gone]]).clip(0, size)
    return Example(image, K, sample.complete, ignored,
                   {name: value[~gone] for name, value in people.items()})


def collate(examples: list[Example]) -> Batch:
    """Examples as one batch."""
    numbers = np.repeat(np.arange(len(examples)), [len(e.people["boxes"]) for e in examples])
    people = {name: torch.from_numpy(np.concatenate([e.people[name] for e in examples]))
              for name in examples[0].people}
    people = {name: value if value.dtype == torch.bool else value.float()
              for name, value in people.items()}
    return Batch(torch.from_numpy(np.stack([e.image for e in examples])).permute(0, 3, 1, 2),
                 torch.from_numpy(np.stack([e.camera for e in examples])).float(),
                 torch.tensor([e.complete for e in examples]),
                 [torch.from_numpy(e.ignored).float() for e in examples],
                 torch.from_numpy(numbers), **people)


def mirrored(sample: Sample) -> Sample:
    """The same scene in a mirror: left and right change round."""
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
    if people.theta is not None:  # a turn by q about a mirrored axis, the other way round
        changed["theta"] = people.theta[:, SMPL24.mirror] * (1, -1, -1, 1)
    if people.root is not None:
        changed["root"] = people.root * (-1, 1, 1)
    ignored = sample.ignored[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (width, 0, width, 0)
    image = np.ascontiguousarray(frame.image[:, ::-1])
    return sample._replace(frame=type(frame)(image, camera, frame.stamp),
                           people=people.with_fields(**changed), ignored=ignored)


def _known(people: People) -> dict[str, np.ndarray]:
    """Fields of a batch, NaN where nothing is known."""
    count = len(people)

    def field(value: np.ndarray | None, *shape: int) -> np.ndarray:
        return np.full((count, *shape), np.nan) if value is None else value

    joints = field(people.joints, len(SMPL24), 3)
    return {"boxes": people.boxes, "keypoints": people.keypoints,
            "visible": people.keypoint_scores == VISIBLE,
            "theta": field(people.theta, len(SMPL24), 4), "betas": field(people.betas, 10),
            "joints": joints - joints[:, :1]}


def _placed(image: np.ndarray, size: int, scale: float, shift: np.ndarray) -> np.ndarray:
    """A square into which a picture is drawn; px coordinates become scale * px + shift."""
    drawn = np.array(image.shape[1::-1]) * scale
    if scale < 0.8:  # or fine patterns turn into coarse ones
        # By its size: given factors, OpenCV keeps to them, not to the size that they round to.
        image = cv2.resize(image, drawn.round().clip(1).astype(int), interpolation=cv2.INTER_AREA)
    rest = drawn / image.shape[1::-1]
    # warpAffine counts from the middle of the first pixel.
    matrix = np.array([[rest[0], 0, shift[0] + rest[0] / 2 - 0.5],
                       [0, rest[1], shift[1] + rest[1] / 2 - 0.5]])
    return cv2.warpAffine(np.ascontiguousarray(image), matrix, (size, size),
                          flags=cv2.INTER_LINEAR, borderValue=(PAD,) * 3)


def _recoloured(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another exposure, white balance and saturation; sometimes none at all."""
    values = image.astype(np.float32) * random.uniform(0.7, 1.3) * random.uniform(0.9, 1.1, 3)
    grey = values.mean(2, keepdims=True)
    keep = 0.0 if random.random() < 0.1 else random.uniform(0.6, 1.3)
    return (grey + keep * (values - grey)).clip(0, 255).astype(np.uint8)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)

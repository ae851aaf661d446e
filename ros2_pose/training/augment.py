"""From samples to what a network trains on: pictures of one size, changed at random."""

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
_SHIFT = 0.1  # of the side
_CLOSE_UP = (0.4, 1.2)  # diagonal of a person in a close-up, of its side
_CLOSE_UP_ZOOM = (0.4, 1.5)  # farther, detail is lost; nearer, there is none
_LEAST_LEFT = 0.25  # of a box: who is cut more is no longer there to be found


class Batch(NamedTuple):
    """B pictures and their N people together. What is not known is NaN."""

    images: Tensor  # (B, 3, S, S) uint8 RGB
    complete: Tensor  # (B,) bool
    ignored: list[Tensor]  # (M, 4) px of each picture
    image: Tensor  # (N,) whose picture
    boxes: Tensor  # (N, 4) px
    keypoints: Tensor  # (N, 17, 2) px
    visible: Tensor  # (N, 17) bool
    camera: Tensor  # (N, 4) fx, fy, cx, cy px
    theta: Tensor  # (N, 24, 4) theta[:, 0] to the camera
    betas: Tensor  # (N, 10)
    joints: Tensor  # (N, 24, 3) m from the pelvis, camera axes

    def to(self, device: torch.device) -> Batch:
        return Batch(*([v.to(device) for v in value] if isinstance(value, list)
                       else value.to(device, non_blocking=True) for value in self))


class Example(NamedTuple):
    """One picture of a batch, the same fields without B."""

    image: np.ndarray  # (S, S, 3)
    complete: bool
    ignored: np.ndarray
    people: dict[str, np.ndarray]


def example(sample: Sample, size: int, random: np.random.Generator | None = None) -> Example:
    """A sample fitted into a square, at random if there is a generator: place, mirror, colours."""
    extent = np.array(sample.frame.image.shape[1::-1])
    scale, shift = size / extent.max(), np.zeros(2)
    if random is None:
        return _placed(sample, size, scale, shift)
    scale *= random.uniform(*_ZOOM)
    shift = random.uniform(-_SHIFT, _SHIFT, 2) * size + (size - scale * extent) / 2
    return _changed(sample, size, scale, shift, random)


def close_up(sample: Sample, size: int, random: np.random.Generator) -> Example:
    """A square that shows one of the people, and who else is there, at a size drawn at random."""
    if not len(sample.people):
        return example(sample, size, random)
    box = sample.people.boxes[random.integers(len(sample.people))]
    diagonal = np.hypot(*(box[2:] - box[:2]))
    scale = size * random.uniform(*_CLOSE_UP) / max(diagonal, 1.0)
    scale = np.clip(scale, *_CLOSE_UP_ZOOM)
    position = random.uniform(0.5 - _SHIFT, 0.5 + _SHIFT, 2) * size
    return _changed(sample, size, scale, position - scale * (box[:2] + box[2:]) / 2, random)


def mosaic(four: list[Example]) -> Example:
    """Four examples as the quarters of one (Bochkovskiy et al. 2020, "YOLOv4"): more people for
    the cost of one picture."""
    size = len(four[0].image)
    moves = [np.array(move) * size for move in ((0, 0), (1, 0), (0, 1), (1, 1))]
    upper, lower = (np.concatenate([e.image for e in pair], 1) for pair in (four[:2], four[2:]))
    ignored = [e.ignored + np.tile(move, 2) for e, move in zip(four, moves)]
    people = [_moved(_inside(e.people, size), move) for e, move in zip(four, moves)]
    return Example(np.concatenate([upper, lower]), all(e.complete for e in four),
                   np.concatenate(ignored),
                   {name: np.concatenate([p[name] for p in people]) for name in people[0]})


def _changed(sample: Sample, size: int, scale: float, shift: np.ndarray,
             random: np.random.Generator) -> Example:
    """Placed, as it is or in a mirror, in other colours."""
    if random.random() < 0.5:
        sample = mirrored(sample)
        shift = np.array([size - scale * sample.frame.image.shape[1] - shift[0], shift[1]])
    placed = _placed(sample, size, scale, shift)
    return placed._replace(image=_recoloured(placed.image, random))


def _inside(people: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Without the keypoints that are beyond the square: there is another one's picture."""
    points = people["keypoints"]
    inside = ((points >= 0) & (points < size)).all(2)
    return people | {"keypoints": np.where(inside[..., None], points, np.nan),
                     "visible": people["visible"] & inside}


def _moved(people: dict[str, np.ndarray], move: np.ndarray) -> dict[str, np.ndarray]:
    return people | {"boxes": people["boxes"] + np.tile(move, 2),
                     "keypoints": people["keypoints"] + move,
                     "camera": people["camera"] + [0, 0, *move]}


def _placed(sample: Sample, size: int, scale: float, shift: np.ndarray) -> Example:
    """A sample in a square; its px coordinates become scale * px + shift."""
    people = _known(sample)
    people["keypoints"] = people["keypoints"] * scale + shift
    people["camera"] = people["camera"] * scale + [0, 0, *shift]
    move = np.tile(shift, 2)
    whole = people["boxes"] * scale + move
    people["boxes"] = whole.clip(0, size)
    left = areas(people["boxes"]) / np.maximum(areas(whole), 1e-9)
    gone = ~(left > _LEAST_LEFT)
    ignored = np.concatenate([sample.ignored * scale + move, whole[gone]]).clip(0, size)
    return Example(_drawn(sample.frame.image, size, scale, shift), sample.complete, ignored,
                   {name: value[~gone] for name, value in people.items()})


def collate(examples: list[Example]) -> Batch:
    """Examples as one batch."""
    numbers = np.repeat(np.arange(len(examples)), [len(e.people["boxes"]) for e in examples])
    people = {name: torch.from_numpy(np.concatenate([e.people[name] for e in examples]))
              for name in examples[0].people}
    people = {name: value if value.dtype == torch.bool else value.float()
              for name, value in people.items()}
    return Batch(torch.from_numpy(np.stack([e.image for e in examples])).permute(0, 3, 1, 2),
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


def _known(sample: Sample) -> dict[str, np.ndarray]:
    """Fields of a batch, NaN where nothing is known."""
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
    """A square into which a picture is drawn; px coordinates become scale * px + shift."""
    extent = np.array(image.shape[1::-1]) * scale
    if scale < 0.8:  # or fine patterns turn into coarse ones
        # By its size: given factors, OpenCV keeps to them, not to the size that they round to.
        image = cv2.resize(image, extent.round().clip(1).astype(int), interpolation=cv2.INTER_AREA)
    rest = extent / image.shape[1::-1]
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

"""People of grouped keypoints: what is missing, boxes, scores, and joints in space."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.align import align_model
from ros2_pose.camera import Camera
from ros2_pose.networks.hourglass.orpm import joints_from_bones
from ros2_pose.networks.hourglass.peaks import find_near
from ros2_pose.networks.tian.smpl_head import camera_from_ray
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17, SMPL24, common_joints

_K = len(COCO17)
_IN_2D, _IN_3D = (torch.from_numpy(index) for index in common_joints(COCO17, SMPL24))
_FACE = 5  # the first of COCO's keypoints
_HEAD = SMPL24.index("head")
_REACH = 0.08  # std of a guess, of the person's size
_LEAST_SHOWN = 0.1  # score of a keypoint that is inside the person's box
_MARGIN = 0.08  # of a person's box around its keypoints, of its size
_LEAST_M = 0.05  # extent of a pose that gives a scale


def completed(found: dict[str, Tensor], heat: Tensor, offsets: Tensor | None) -> dict[str, Tensor]:
    """Add the keypoints that were not found, near their positions in the projected 3D pose.

    Args:
        found: see `detector.Found`; keypoints that were not found have any position.
        heat (19, h, w), offsets (17, 2, h, w): see `peaks.find_peaks`.
    """
    if not len(found["points"]):
        return found
    guess, size = guessed(found["points"], found["scores"], found["bones"])
    person, keypoint = (~found["found"][:, :_K]).nonzero(as_tuple=True)
    reach = _REACH * size[person]
    points, cov, scores = find_near(heat, offsets, keypoint, guess[person, keypoint], reach)
    eye = torch.eye(2).to(cov)
    cov = cov + ((1 - scores) * reach.square())[:, None, None] * eye
    found = {name: value.clone() for name, value in found.items()}
    found["points"][person, keypoint] = points
    found["cov"][person, keypoint] = cov
    found["scores"][person, keypoint] = scores
    return found


def guessed(points: Tensor, scores: Tensor, bones: Tensor) -> tuple[Tensor, Tensor]:
    """Project 3D poses onto the keypoints found, under weak perspective.

    Args:
        points (P, >= 17, 2): px; scores (P, >= 17): 0 where not found.
        bones (P, 24, 3): m.
    Returns:
        Positions (P, 17, 2) px of all keypoints, and sizes (P,) px: of a person 2 m tall, or of the
        keypoints found if they give no scale.
    """
    joints = joints_from_bones(bones)
    model = torch.cat([joints[:, [_HEAD]].expand(-1, _FACE, -1), joints[:, _IN_3D]], 1)[..., :2]
    points, weight = points[:, :_K], scores[:, :_K, None]
    total = weight.sum(1, keepdim=True).clamp(min=1e-6)
    middle, model_middle = ((weight * value).sum(1, keepdim=True) / total
                            for value in (points, model))
    from_middle, model_from_middle = points - middle, model - model_middle
    extent = (weight * model_from_middle.square()).sum((1, 2))
    scale = (weight * from_middle * model_from_middle).sum((1, 2)) / extent.clamp(min=1e-9)
    spread = 2 * ((weight * from_middle.square()).sum((1, 2)) / total[:, 0, 0]).sqrt()
    known = (extent / total[:, 0, 0] > _LEAST_M**2) & (scale > 0)
    size = torch.where(known, torch.maximum(2 * scale, spread), spread).clamp(min=1)
    scale = torch.where(known, scale, 0.0)
    return middle + scale[:, None, None] * model_from_middle, size


def boxes_around(points: Tensor, scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes (P, 4) px around the certain keypoints, with a margin, inside the picture.

    Args:
        points (P, 17, 2): px; scores (P, 17).
        size: width, height px.
    """
    shown = scores >= torch.minimum(scores.amax(1, keepdim=True), scores.new_tensor(_LEAST_SHOWN))
    low = torch.where(shown[..., None], points, torch.inf).amin(1)
    high = torch.where(shown[..., None], points, -torch.inf).amax(1)
    margin = _MARGIN * (high - low).amax(1, keepdim=True) + 1
    limit = points.new_tensor(size)
    return torch.cat([torch.minimum((low - margin).clamp(min=0), limit),
                      torch.minimum((high + margin).clamp(min=0), limit)], 1)


def person_scores(scores: Tensor, found: Tensor) -> Tensor:
    """Return the scores (P,) of people: of many certain keypoints.

    Args:
        scores (P, 17): of keypoints.
        found (P, 19) bool: keypoints that were grouped.
    """
    found = found[:, :_K]
    count = found.sum(1)
    mean = (scores * found).sum(1) / count.clamp(min=1)
    return (mean * (count / _K).sqrt()).clamp(0, 1)


def with_joints(people: People, bones: Tensor, camera: Camera, model_std: float) -> People:
    """Add joints and roots, placed to fit the keypoints in full perspective.

    Args:
        people: without bodies.
        bones (P, 24, 3): m, relative to the parents, in the axes of the ray through the box.
        camera: of the frame.
        model_std: standard deviation of a joint, m.
    """
    centre = (people.boxes[:, :2] + people.boxes[:, 2:]) / 2
    rotmat = camera_from_ray(torch.from_numpy(camera.normalise(centre)))
    joints = joints_from_bones(bones) @ rotmat.mT
    points, cov = (torch.from_numpy(value[:, _IN_2D.numpy()]) for value in
                   camera.normalise_with_cov(people.keypoints, people.keypoint_cov))
    model = joints[:, _IN_3D]
    model_cov = model_std**2 * torch.eye(3).double().expand(*model.shape[:2], 3, 3)
    aligned, turn, _, _, ok = align_model(points, cov, model, model_cov)
    root = (aligned - model @ turn.mT).nanmean(1)
    joints = joints @ turn.mT + root[:, None]
    ok = ok & joints.isfinite().flatten(1).all(1)
    values = {"joints": torch.where(ok[:, None, None], joints, torch.nan),
              "root": torch.where(ok[:, None], joints[:, 0], torch.nan)}
    return people.with_fields(**{name: np.asarray(value) for name, value in values.items()})

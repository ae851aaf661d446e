"""Contact of feet with a known floor: a hypothesis with a probability, not a constraint.

People jump, stand on steps and tables, and a floor may be wrong. Far from the floor a foot does not
stand on it, and the floor says nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ros2_pose.body.fit_kinematics import fit_rig, rotmats_from_quats
from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.lift import Lifted
from ros2_pose.body.model import KEYPOINTS, BodyModel

_SCALE_RANGE = 0.75, 1.35  # of a body that is placed on the floor


def lower_ankle(problem: Problem, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the height of each person's lower ankle above that of a standing foot.

    Args:
        problem: of P people, with a floor.
        keypoints (P, 3, K): m, camera frame.
    Returns:
        (P,) m, 0 for people without a knee or ankle in sight; and (P, K) 1 for that ankle.
    """
    assert problem.floor is not None
    normal, offset = problem.floor[:3], problem.floor[3]
    ankles, knees = ([problem.joint_set.index(f"{side}_{joint}") for side in ("left", "right")]
                     for joint in ("ankle", "knee"))
    height_m = normal @ keypoints + offset - problem.settings.ankle_height_m  # (P, K)
    lower = np.take(ankles, height_m[:, ankles].argmin(1))
    chosen = np.zeros_like(height_m)
    chosen[np.arange(len(lower)), lower] = problem.seen[:, ankles + knees].any(1)
    return (height_m * chosen).sum(1), chosen


def contact_term(problem: Problem,
                 keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the cost of the lower ankle's height, and its residual.

    The density of the height is a mixture: normal around 0 for a foot that stands on the floor,
    uniform for one that does not. The weight of the squared height, the cost's derivative divided
    by it, is the precision of contact times the probability of contact (expectation maximisation).

    Args:
        problem: of P people, with a floor and a hypothesis.
        keypoints (P, 3, K): m, camera frame.
    Returns:
        cost (P,); residual (P, 1, K): the height times the root of its weight, 0 for all keypoints
        but that ankle; and (P, 3, 1, K) its derivative by the keypoints, 1/m, for fixed weights.
    """
    if problem.contact_std is None or problem.floor is None:
        raise ValueError("the problem has no contact_std: call with_hypothesis before")
    settings, std = problem.settings, problem.contact_std
    height_m, chosen = lower_ankle(problem, keypoints)
    odds_of_none = (1 - settings.contact_probability) / settings.contact_probability
    uniform = odds_of_none * math.sqrt(2 * math.pi) * std / settings.no_contact_range_m
    density = np.exp(-np.square(height_m / std) / 2) + uniform  # of contact at height 0: 1
    contact = 1 - uniform / density
    root_weight = np.sqrt(contact) / std
    by_keypoint = (root_weight[:, None] * chosen)[:, None, None] * problem.floor[:3, None, None]
    residual = (root_weight * height_m)[:, None] * chosen
    return -np.log(density), residual[:, None], by_keypoint


def with_contact(lifted: Lifted, problem: Problem, model: BodyModel) -> Lifted:
    """Add each hypothesis once more, of a body that stands on the floor.

    Size and distance are scaled alike, which leaves the body as it is in the image. The cost has a
    minimum for contact and one without, and a fit finds the one that it starts near.

    Args:
        lifted (P, H, ...), problem: of P people.
    Returns:
        (P, 2 H, ...); the same without a floor.
    """
    if problem.floor is None:
        return lifted
    people, hypotheses = lifted.logits.shape
    rows = problem.rows(np.arange(people).repeat(hypotheses))
    theta, betas, root = (value.double().numpy() for value in lifted.states())
    _, _, landmarks = fit_rig(problem.rig).pose(rotmats_from_quats(theta), betas, root)
    height_m, _ = lower_ankle(rows, landmarks[:, :, KEYPOINTS])
    camera_m = problem.floor[3] - problem.settings.ankle_height_m
    scale = camera_m / (camera_m - height_m)
    scale = torch.from_numpy(np.where(scale > 0, scale.clip(*_SCALE_RANGE), 1.0))
    scale = scale.view(people, hypotheses, 1).to(lifted.root)
    stature_m, by_beta = model.stature
    placed_betas = lifted.betas.clone()
    placed_betas[..., 0] += (scale[..., 0] - 1) * float(stature_m / by_beta[0])
    placed = lifted._replace(betas=placed_betas, root=scale * lifted.root)
    return Lifted(*(torch.cat(both, 1) for both in zip(lifted, placed)))

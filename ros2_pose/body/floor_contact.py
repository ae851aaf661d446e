"""Contact of feet with a known floor: a hypothesis with a probability, not a constraint.

People jump, stand on steps and tables, and a floor may be wrong. Far from the floor a foot does not
stand on it, and the floor says nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.lift import Lifted
from ros2_pose.body.model import BodyModel, Posed
from ros2_pose.body.so3 import rotmat_from_quat

_SCALE_RANGE = 0.75, 1.35  # of a body that is placed on the floor


def lower_ankle(problem: Problem, floor: Tensor, posed: Posed) -> tuple[Tensor, Tensor]:
    """Return the height of each person's lower ankle above that of a standing foot.

    Args:
        floor (4,): n, d with n x + d the height above it, m.
    Returns:
        (P, K) m, zero for all other keypoints, and for people without a knee or ankle in sight; and
        (P, K, 1, 3) its derivative by the keypoints.
    """
    normal, offset = floor[:3], floor[3]
    ankles, knees = ([problem.joint_set.index(f"{side}_{joint}") for side in ("left", "right")]
                     for joint in ("ankle", "knee"))
    height = posed.keypoints @ normal + offset - problem.settings.ankle_height_m
    chosen = torch.zeros_like(height)
    chosen[:, ankles] = torch.nn.functional.one_hot(height[:, ankles].argmin(1), 2).to(height)
    chosen = chosen * problem.seen[:, ankles + knees].any(1, keepdim=True)
    return height * chosen, chosen[..., None, None] * normal


def contact_cost(problem: Problem, height: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cost (P,) of the lower ankle's height, and its weight (P,), 1/m^2.

    The density of the height is a mixture: normal around 0 for a foot that stands on the floor,
    uniform for one that does not. The weight, the cost's derivative divided by the height, is the
    precision of contact times the probability of contact (expectation maximisation).

    Args:
        height (P, K): m, of `lower_ankle`.
    """
    if problem.contact_std is None:
        raise ValueError("the problem has no contact_std: call with_hypothesis before")
    settings, std = problem.settings, problem.contact_std
    squared = (height.sum(1) / std).square()
    odds_of_none = (1 - settings.contact_probability) / settings.contact_probability
    uniform = odds_of_none * math.sqrt(2 * math.pi) * std / settings.no_contact_range_m
    density = (-squared / 2).exp() + uniform  # relative to that of contact at height 0
    contact = 1 - uniform / density
    return -density.log(), contact * std**-2


def with_contact(lifted: Lifted, problem: Problem, model: BodyModel) -> Lifted:
    """Add each hypothesis once more, of a body that stands on the floor.

    Size and distance are scaled alike, which leaves the body as it is in the image. The cost has a
    minimum for contact and one without, and a fit finds the one that it starts near.

    Args:
        lifted (P, H, ...), problem: of P people, with a floor.
    Returns:
        (P, 2 H, ...).
    """
    if problem.floor is None:
        return lifted
    people, hypotheses = lifted.logits.shape
    each = torch.arange(people).repeat_interleave(hypotheses)
    rows, state = problem.rows(each), lifted.states()
    posed = pose_rig(rows.rig, rotmat_from_quat(state.theta), state.betas, state.root)
    height, _ = lower_ankle(rows, problem.floor, posed)
    camera_m = problem.floor[3] - problem.settings.ankle_height_m
    scale = (camera_m / (camera_m - height.sum(1))).view(people, hypotheses, 1)
    scale = torch.where(scale > 0, scale.clamp(*_SCALE_RANGE), 1.0)
    stature_m, by_beta = model.stature
    betas = lifted.betas.clone()
    betas[..., 0] += ((scale[..., 0] - 1) * (stature_m / by_beta[0]).to(scale))
    placed = lifted._replace(betas=betas, root=scale * lifted.root)
    return Lifted(*(torch.cat(both, 1) for both in zip(lifted, placed)))

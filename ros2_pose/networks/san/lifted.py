"""Votes for the SMPL joints by the lift: a body that explains the keypoints found in a crop.

The lift (`body/lift.py`) was trained on a hundred times more poses than there are pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.body.lift import Lift, lifted_joints
from ros2_pose.body.model import BodyModel
from ros2_pose.skeleton import SMPL24

_FOCAL = 1.8  # in sides of the crop: 2.2 m at a distance of 4 m
_LEAST_DEPTH_M = 0.1
_LEAST_SCORE = 0.15  # of keypoints that are lifted
_STD_CELLS, _DEPTH_STD_CELLS = 2.0, 0.7  # of the votes before training
_J = len(SMPL24)


class LiftedVotes(nn.Module):
    """Normally distributed votes around the joints of the lifted body, by learned variances."""

    def __init__(self) -> None:
        super().__init__()
        self.lift = Lift.load()
        self.body = BodyModel.load()
        self.log_variance = nn.Parameter(2 * torch.full((_J,), _STD_CELLS).log())
        self.log_depth_variance = nn.Parameter(2 * torch.full((_J,), _DEPTH_STD_CELLS).log())

    @torch.no_grad()
    def joints(self, points: Tensor, std: Tensor, scores: Tensor,
               size: tuple[int, int]) -> Tensor:
        """Return the joints (N, 24, 3) of the lifted bodies: x, y px, z m from the pelvis.

        The crop is taken to be seen by a camera that looks at its middle.

        Args:
            points, std (N, 17, 2): keypoints and their standard deviations, px of the crop.
            scores (N, 17): of the keypoints, 0..1; those of low scores are not used.
            size: width and height of the crop, px.
        """
        focal, middle = _FOCAL * max(size), points.new_tensor(size) / 2
        points = points.masked_fill(scores[..., None] < _LEAST_SCORE, torch.nan)
        with torch.autocast(points.device.type, enabled=False):
            joints, pixels, _ = lifted_joints(self.lift, self.body, points.float(), std.float(),
                                              focal, middle, _LEAST_DEPTH_M)
        return torch.cat([pixels, joints[..., 2:]], 2)

    def forward(self, joints: Tensor, spread: Tensor,
                shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
        """Return log-votes (N, 24, h, w) and (N, 24, depth_cells).

        Args:
            joints (N, 24, 3): x, y and z in cells from the corner of the volume.
            spread (N,): variance of the keypoints, cells^2 across the view.
            shape: depth_cells, h, w.
        """
        depth, rows, columns = (torch.arange(count, device=joints.device) + 0.5 for count in shape)
        x, y, z = (coordinate[..., None] for coordinate in joints.unbind(-1))
        distance2 = (columns - x).square()[..., None, :] + (rows - y).square()[..., None]
        variance = self.log_variance.exp() + spread[:, None]
        along = self.log_depth_variance.exp() + (shape[0] / max(shape[1:]))**2 * spread[:, None]
        return (-distance2 / (2 * variance[..., None, None]),
                -(depth - z).square() / (2 * along[..., None]))

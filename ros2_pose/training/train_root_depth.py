"""Train `ros2_pose.body.root_depth` on simulated people.

    python -m ros2_pose.training.train_root_depth --mocap cmu_theta_10hz.npz --out root_depth.pt

About six minutes on one CPU core. Beside the weights lies their log (.csv). When it was
interrupted, the same command resumes.
"""

from __future__ import annotations

import logging

from torch import Tensor

from ros2_pose.body.model import BodyModel
from ros2_pose.body.root_depth import FILE, RootDepth
from ros2_pose.data.synthetic.keypoints import Projections
from ros2_pose.training.losses import gaussian_nll
from ros2_pose.training.train_lift import (
    LiftTrainer,
    argument_parser,
    projectors,
    relative_shift,
    train,
)

_PERCENT = 100
_ERROR_WEIGHT = 10.0  # of the absolute error beside the likelihood, which falls with 1 / variance


def losses(found: tuple[Tensor, Tensor], truth: Projections, _: BodyModel) -> dict[str, Tensor]:
    """Compute the loss of P people.

    Args:
        found: positions (P, 3) m and relative standard deviations (P, 3), see `RootDepth.forward`.
        truth: people, projected to keypoints.
    Returns:
        Terms, means over people; "total", their weighted sum; "depth_percent", the median relative
        error of the distance, for the log.
    """
    root, std = found
    shift = relative_shift(root[:, None], truth.root[:, None])[:, 0]
    terms = {"error": shift.abs().sum(1).mean(),
             "nll": gaussian_nll(shift.square(), std).sum(1).mean()}
    terms["total"] = _ERROR_WEIGHT * terms["error"] + terms["nll"]
    terms["depth_percent"] = _PERCENT * shift[:, 2].abs().median()
    return terms


def main() -> None:
    """Train as the command line says."""
    args = argument_parser(__doc__.splitlines()[0], FILE, steps=4000, rate=2e-3).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    people, others = projectors(args.mocap)
    train(LiftTrainer(people, args.steps, args.batch, args.rate, RootDepth, losses), others,
          args.out)


if __name__ == "__main__":
    main()

"""Top-down and bottom-up together: each person's keypoints from both, fused by their covariances.

The finders of the default network that give keypoints are bottom-up: they see the whole picture, so
that a limb of a person behind another one is found, too. The refiner is top-down: it sees
one person at a higher resolution. People of both kinds are associated by the proposal that the
refiner starts from. Followed people who are not searched for in an image are top-down alone.

Source: Cheng et al. 2021, "Monocular 3D Multi-Person Pose Estimation by Integrating Top-Down and
Bottom-Up Networks", where a network fuses the two; here the covariances do.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.config import PoseConfig
from ros2_pose.imaging.crop import Crop
from ros2_pose.networks.refiner import Refined
from ros2_pose.networks.top_down import Proposals, TopDown
from ros2_pose.people import Frame, People

_GATE = 9.21  # squared Mahalanobis distance of 99 % of errors: beyond, one of the two is wrong


class TopDownBottomUp(TopDown):
    """The finders' and the refiner's keypoints, fused."""

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the networks and scales, e.g. "movenet, ... at 256, 512 px, thunder, fused"."""
        return f"{super().title(config)}, fused"

    def _refined(self, frame: Frame, proposals: Proposals, row: int, crop: Crop,
                 refined: Refined) -> People:
        """A proposed person (1,) as crop and picture show it."""
        person = super()._refined(frame, proposals, row, crop, refined)
        found = proposals.found[[row]]
        is_posed = np.isfinite(found.keypoints).all() and np.isfinite(person.keypoints).all()
        if not is_posed or np.array_equal(person.keypoints, found.keypoints):
            return person
        keypoints, cov, chosen = fused(person.keypoints[0], person.keypoint_cov[0],
                                       found.keypoints[0], found.keypoint_cov[0])
        scores = np.where(chosen == 1, found.keypoint_scores[0], person.keypoint_scores[0])
        return person.with_fields(keypoints=keypoints[None], keypoint_cov=cov[None],
                                  keypoint_scores=scores[None])


def fused(a: np.ndarray, a_cov: np.ndarray, b: np.ndarray,
          b_cov: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fuse two estimates of keypoints by their covariances.

    Where they agree, by covariance intersection with equal weights: both saw the same pixels, so
    that their errors are correlated, and nothing says how much. Where they do not, the one with the
    smaller covariance is kept.

    Args:
        a, b (K, 2): px; a_cov, b_cov (K, 2, 2): px^2.
    Returns:
        Keypoints (K, 2) px, covariances (K, 2, 2) px^2, and (K,) which one was kept: 0 for a,
        1 for b, -1 where they were fused.
    Source: Julier and Uhlmann 1997, "A Non-divergent Estimation Algorithm in the Presence of
        Unknown Correlations".
    """
    difference = b - a
    distance2 = (difference * np.linalg.solve(a_cov + b_cov, difference[..., None])[..., 0]).sum(1)
    a_information, b_information = np.linalg.inv(a_cov), np.linalg.inv(b_cov)
    cov = 2 * np.linalg.inv(a_information + b_information)
    weighted = a_information @ a[..., None] + b_information @ b[..., None]
    together = (cov / 2 @ weighted)[..., 0]
    b_is_sharper = np.linalg.det(b_cov) < np.linalg.det(a_cov)
    kept = np.where(distance2 <= _GATE, -1, b_is_sharper.astype(int))
    alone, alone_cov = (np.where(b_is_sharper.reshape(-1, *[1] * (x.ndim - 1)), y, x)
                        for x, y in ((a, b), (a_cov, b_cov)))
    agree = kept < 0
    return (np.where(agree[:, None], together, alone),
            np.where(agree[:, None, None], cov, alone_cov), kept)

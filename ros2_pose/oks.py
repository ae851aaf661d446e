"""Object keypoint similarity: how alike two sets of COCO keypoints are, on a scale of 0 to 1.

COCO's definition: the mean over joints of exp(-d^2 / (2 s^2 k^2)), where s^2 is the person's area
and k a constant of each joint.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.skeleton import COCO17

# 2 sigma of each joint, in COCO-17 order.
FALL_OFF = 2 * np.array([.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062,
                         .107, .107, .087, .087, .089, .089])
_AREA_OF_BOX = 0.53  # COCO's areas are of a person's outline, which fills about half of its box
_SAME_PERSON = 0.55  # OKS above which two detections are one person


def area(boxes: np.ndarray) -> np.ndarray:
    """Area (...), px^2, that COCO would give people with boxes (..., 4)."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 1)
    return _AREA_OF_BOX * size[..., 0] * size[..., 1]


def similarity(a: np.ndarray, b: np.ndarray, areas: np.ndarray, variance=0.0) -> np.ndarray:
    """OKS (...) between keypoints a and b (..., 17, 2), px, of a person with `areas` (...), px^2.

    Joints that are NaN in either do not count; 0 if none is left. variance (..., 17), px^2 per
    axis: how uncertain the difference is; it widens the fall-off.
    """
    distance2 = ((a - b) ** 2).sum(-1)
    pairwise = np.exp(-distance2 / (2 * (areas[..., None] * FALL_OFF**2 + variance)))
    known = np.isfinite(distance2)
    return np.where(known, pairwise, 0).sum(-1) / np.maximum(known.sum(-1), 1)


def similarity_either_way(a: np.ndarray, b: np.ndarray, areas: np.ndarray,
                          variance=0.0) -> np.ndarray:
    """(2, ...) `similarity` of a to b, and of a with left and right changed round."""
    return np.stack([similarity(a, b, areas, variance),
                     similarity(a[..., COCO17.mirror, :], b, areas, variance)])


def suppress(keypoints: np.ndarray, areas: np.ndarray, scores: np.ndarray,
             threshold: float) -> np.ndarray:
    """Rows of people (P, 17, 2) to keep, best first: not below the threshold, and not a better one
    once more, also with left and right changed round."""
    keep: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if scores[row] < threshold:
            break
        pairwise = similarity_either_way(keypoints[row], keypoints[keep], areas[keep])
        if not (pairwise >= _SAME_PERSON).any():
            keep.append(int(row))
    return np.array(keep, int)


def expected(cov: np.ndarray, weights: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """OKS (P,) to be expected of keypoints with covariances (P, 17, 2, 2), px^2.

    The mean of COCO's fall-off over a normal error of variance v per axis is 1 / (1 + v / (s k)^2).
    weights (P, 17): how much a joint counts.
    """
    variance = np.trace(cov, axis1=-2, axis2=-1) / 2
    pairwise = 1 / (1 + variance / (areas[:, None] * FALL_OFF**2))
    return (pairwise * weights).sum(-1) / np.maximum(weights.sum(-1), 1e-6)

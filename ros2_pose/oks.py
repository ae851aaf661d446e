"""Object keypoint similarity (OKS) of COCO keypoints, 0 to 1.

It is the mean over joints of exp(-d^2 / (2 s^2 k^2)), with the distance d, px, the person's area
s^2, px^2, and a constant k of each joint.
Source: COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.skeleton import COCO17

# The constants k (17,), 2 sigma, in COCO order.
FALL_OFF = 2 * np.array([.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062,
                         .107, .107, .087, .087, .089, .089])
_AREA_OF_BOX = 0.53  # COCO's areas are of a person's silhouette, about half of its box
_SAME_PERSON = 0.55  # OKS from which two detections are of the same person


def area(boxes: np.ndarray) -> np.ndarray:
    """Return the estimated COCO areas (...), px^2, of people with boxes (..., 4), px."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 1)
    return _AREA_OF_BOX * size[..., 0] * size[..., 1]


def similarity(a: np.ndarray, b: np.ndarray, areas: np.ndarray, variance=0.0) -> np.ndarray:
    """Return the OKS (...) between keypoints a and b.

    Args:
        a, b: (..., 17, 2) keypoints, px; joints that are NaN in either do not count.
        areas: (...) of the person, px^2.
        variance: (..., 17) of the difference, px^2 per axis; widens the fall-off.
    Returns:
        (...) OKS; 0 if no joint is known in both.
    """
    distance2 = ((a - b) ** 2).sum(-1)
    by_joint = np.exp(-distance2 / (2 * (areas[..., None] * FALL_OFF**2 + variance)))
    is_known = np.isfinite(distance2)
    return np.where(is_known, by_joint, 0).sum(-1) / np.maximum(is_known.sum(-1), 1)


def similarity_either_way(a: np.ndarray, b: np.ndarray, areas: np.ndarray,
                          variance=0.0) -> np.ndarray:
    """Return the OKS (2, ...) of a and b, and of a with left and right exchanged and b.

    Arguments as for `similarity`.
    """
    return np.stack([similarity(a, b, areas, variance),
                     similarity(a[..., COCO17.mirror, :], b, areas, variance)])


def suppress(keypoints: np.ndarray, areas: np.ndarray, scores: np.ndarray,
             threshold: float) -> np.ndarray:
    """Return the rows of detections to keep (NMS by OKS), best first.

    A detection is dropped if it is the same person as a better one, also with left and right
    exchanged.

    Args:
        keypoints: (P, 17, 2) px, COCO order.
        areas: (P,) px^2.
        scores: (P,) 0..1; detections below `threshold` are dropped.
    """
    keep: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if scores[row] < threshold:
            break
        to_kept = similarity_either_way(keypoints[row], keypoints[keep], areas[keep])
        if not (to_kept >= _SAME_PERSON).any():
            keep.append(int(row))
    return np.array(keep, int)


def expected(cov: np.ndarray, weights: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Return the expected OKS (P,) of keypoints with normal errors.

    The mean of the fall-off over an error of variance v per axis is 1 / (1 + v / (s k)^2).

    Args:
        cov: (P, 17, 2, 2) covariances, px^2.
        weights: (P, 17) of the joints in the mean.
        areas: (P,) of the people, px^2.
    """
    variance = np.trace(cov, axis1=-2, axis2=-1) / 2
    by_joint = 1 / (1 + variance / (areas[:, None] * FALL_OFF**2))
    return (by_joint * weights).sum(-1) / np.maximum(weights.sum(-1), 1e-6)

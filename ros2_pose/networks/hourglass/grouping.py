"""Peaks become people: by their tags, or by part affinity fields.

A person is a row (19,) of indices of peaks, -1 where the keypoint is not found.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ros2_pose.networks.hourglass.joints import LIMBS, ORDER, K
from ros2_pose.networks.hourglass.network import sampled

TAG_GATE = 1.5  # distance of a tag from the person's mean at which it is another person's
_SAMPLES = 10  # of a field along a limb
_LEAST_INTEGRAL = 0.15
_LEAST_ALONG, _LEAST_SHARE = 0.05, 0.7  # so many samples must point along the limb


def group_by_tags(keypoint: np.ndarray, scores: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Group peaks greedily, one kind of keypoint after the other, trunk first.

    A peak belongs to the person with a mean tag near its own, high scores first; a peak without
    such a person begins another one.

    Args:
        keypoint (N,): kinds of the peaks.
        scores (N,): 0..1.
        tags (N, dims): of the peaks.
    Returns:
        (P, 19) people.
    Source: Benzine et al. 2019, section 3.5; Newell et al. 2017.
    """
    people: list[np.ndarray] = []
    for kind in ORDER:
        peaks = np.flatnonzero(keypoint == kind)
        peaks = peaks[np.argsort(-scores[peaks], kind="stable")]
        left = np.ones(len(peaks), bool)
        if people:
            means = np.array([tags[row[row >= 0]].mean(0) for row in people])
            distance = np.linalg.norm(tags[peaks, None] - means, axis=2)
            gain = scores[peaks, None] * (1 - (distance / TAG_GATE)**2)
            for peak, person in zip(*linear_sum_assignment(gain.clip(0), maximize=True)):
                if gain[peak, person] > 0:
                    people[person][kind] = peaks[peak]
                    left[peak] = False
        for peak in peaks[left]:
            row = np.full(K, -1)
            row[kind] = peak
            people.append(row)
    return np.array(people, int).reshape(-1, K)


def group_by_fields(keypoint: np.ndarray, scores: np.ndarray, points: Tensor, fields: Tensor,
                    stride: int) -> np.ndarray:
    """Group peaks by the limbs between them, the most certain limbs first.

    The limbs of a kind are matched one to one. Joined limbs are people; a limb that would give a
    person two keypoints of a kind is left out.

    Args:
        keypoint (N,): kinds of the peaks.
        scores (N,): 0..1.
        points (N, 2): px.
        fields (limbs, 2, h, w), stride: px per cell.
    Returns:
        (P, 19) people.
    Source: Cao et al. 2017, sections 2.4 and 2.5.
    """
    limbs: list[tuple[float, int, int]] = []
    for (a, b), field in zip(LIMBS, fields):
        starts, ends = (np.flatnonzero(keypoint == kind) for kind in (a, b))
        if not len(starts) or not len(ends):
            continue
        value = limb_scores(field, points[starts], points[ends], stride).cpu().numpy()
        value = value * np.sqrt(scores[starts, None] * scores[ends])
        for start, end in zip(*linear_sum_assignment(value, maximize=True)):
            if value[start, end] > 0:
                limbs.append((float(value[start, end]), int(starts[start]), int(ends[end])))
    return _joined(keypoint, sorted(limbs, reverse=True))


def _joined(keypoint: np.ndarray, limbs: list[tuple[float, int, int]]) -> np.ndarray:
    """Join limbs (score, peak, peak), in their order, to people (P, 19); lone peaks are people."""
    people = np.full((len(keypoint), K), -1)
    people[np.arange(len(keypoint)), keypoint] = np.arange(len(keypoint))
    person = np.arange(len(keypoint))  # of each peak
    for _, start, end in limbs:
        a, b = person[start], person[end]
        if a == b or ((people[a] >= 0) & (people[b] >= 0)).any():
            continue
        people[a] = np.maximum(people[a], people[b])
        people[b] = -1
        person[person == b] = a
    return people[(people >= 0).any(1)]


def limb_scores(field: Tensor, starts: Tensor, ends: Tensor, stride: int) -> Tensor:
    """Return the scores (N, M) of limbs between points; 0 of those that are none.

    Args:
        field (2, h, w): of one kind of limb.
        starts (N, 2), ends (M, 2): px.
        stride: px per cell.
    """
    along = along_limbs(field, starts, ends, stride)
    integral = along.mean(2)
    is_limb = (integral >= _LEAST_INTEGRAL) \
        & ((along >= _LEAST_ALONG).float().mean(2) >= _LEAST_SHARE)
    return torch.where(is_limb, integral, 0.0)


def along_limbs(field: Tensor, starts: Tensor, ends: Tensor, stride: int) -> Tensor:
    """Return the part of a field along limbs (N, M, samples), at equal steps between their ends.

    Its mean over the samples is the line integral.

    Args:
        field (2, h, w): of one kind of limb.
        starts (N, 2), ends (M, 2): px.
        stride: px per cell.
    Source: Cao et al. 2017, eqs 10 and 11.
    """
    share = torch.linspace(0, 1, _SAMPLES).to(starts)[:, None]
    vector = ends - starts[:, None]
    places = starts[:, None, None] + share * vector[..., None, :]
    picture = torch.zeros(1, dtype=torch.long, device=field.device)
    values = sampled(field[None], picture, places.flatten(0, 2)[None], stride)[0]
    unit = vector / vector.norm(dim=2, keepdim=True).clamp(min=1e-6)
    return (values.view(*places.shape) * unit[:, :, None]).sum(3)

"""L_DET: the loss of Deformable DETR (Zhu et al. 2021), for people of whom not all are labelled.

Boxes are (x, y of the centre, width, height) in parts of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ros2_pose.networks.tian.network import Detected, Layer
from ros2_pose.networks.tian.roi import corners

_CLASS, _BOX, _GIOU = 2.0, 5.0, 2.0  # the original's
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_COPIES = 4  # tokens of the encoder that may propose one person: more of them learn
_COVERED = 0.5  # of a detection by an ignored box: it is excused


class Truth(NamedTuple):
    """The people of one image. complete: whether everyone is here or in an ignored box."""

    boxes: Tensor  # (P, 4)
    ignored: Tensor  # (M, 4)
    complete: bool


class Matched(NamedTuple):
    """Which query stands for which person."""

    query: Tensor  # (P,)
    person: Tensor  # (P,)


def detection_loss(found: Detected, truths: list[Truth]) -> tuple[Tensor, list[Matched]]:
    """Mean over the batch's people, summed over layers, and the last layer's matches."""
    loss = found.queries.new_zeros(())
    if found.proposals is not None:
        loss = loss + layer_loss(found.proposals, truths, _COPIES)[0]
    for layer in found.layers:
        one, matches = layer_loss(layer, truths)
        loss = loss + one
    return loss, matches


def layer_loss(layer: Layer, truths: list[Truth], copies: int = 1) -> tuple[Tensor, list[Matched]]:
    """Of one layer: focal loss, L1 of boxes and generalised IoU, by the best one-to-one matches.

    copies: how many queries may stand for each person.
    """
    matches = [match(Layer(layer.logits[i], layer.boxes[i]), truth, copies)
               for i, truth in enumerate(truths)]
    count = max(sum(len(m.query) for m in matches), 1)
    focal = layer.logits.new_zeros(())
    for i, (truth, matched) in enumerate(zip(truths, matches)):
        focal = focal + focal_loss(layer.logits[i], layer.boxes[i], truth, matched)
    image = torch.cat([torch.full_like(m.query, i) for i, m in enumerate(matches)])
    boxes = layer.boxes[image, torch.cat([m.query for m in matches])]
    goal = torch.cat([t.boxes[m.person] for t, m in zip(truths, matches)])
    off = (boxes - goal).abs().sum()
    overlap = (1 - generalised_iou(corners(boxes), corners(goal)).diagonal()).sum()
    return (_CLASS * focal + _BOX * off + _GIOU * overlap) / count, matches


def focal_loss(logits: Tensor, boxes: Tensor, truth: Truth, matched: Matched) -> Tensor:
    """Sum over queries (Q,). Whoever is not matched is nobody, unless that cannot be known."""
    is_person = torch.zeros_like(logits)
    is_person[matched.query] = 1
    counts = is_person.clone()
    if truth.complete:
        counts = torch.where(is_covered(boxes, truth.ignored), counts, 1.0)
    p = logits.sigmoid()
    wrong = F.binary_cross_entropy_with_logits(logits, is_person, reduction="none")
    difficulty = torch.where(is_person > 0, 1 - p, p) ** _GAMMA
    share = torch.where(is_person > 0, _ALPHA, 1 - _ALPHA)
    return (counts * share * difficulty * wrong).sum()


def is_covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """(Q,) bool: boxes (Q, 4) that lie mostly in an ignored one (M, 4)."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    boxes, ignored = corners(boxes), corners(ignored)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-9)
    return (_shared(boxes, ignored) / area[:, None] > _COVERED).any(1)


@torch.no_grad()
def match(layer: Layer, truth: Truth, copies: int = 1) -> Matched:
    """The assignment of queries (Q,) to people that costs least (Carion et al. 2020)."""
    p = layer.logits.sigmoid()
    positive = _ALPHA * (1 - p) ** _GAMMA * -(p + 1e-8).log()
    negative = (1 - _ALPHA) * p**_GAMMA * -(1 - p + 1e-8).log()
    cost = _CLASS * (positive - negative)[:, None] \
        + _BOX * torch.cdist(layer.boxes, truth.boxes, p=1) \
        - _GIOU * generalised_iou(corners(layer.boxes), corners(truth.boxes))
    # A network that has gone astray is told so by its loss, not by the assignment.
    cost = torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6)
    rows, columns = linear_sum_assignment(cost.repeat(1, copies).cpu().numpy())
    person = torch.as_tensor(columns, device=p.device) % max(len(truth.boxes), 1)
    return Matched(torch.as_tensor(rows, device=p.device), person)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) of boxes (N, 4) and (M, 4) by corners (Rezatofighi et al. 2019)."""
    shared = _shared(a, b)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp(min=0).prod(1) for x in (a, b))
    union = area_a[:, None] + area_b - shared
    low, high = torch.minimum(a[:, None, :2], b[:, :2]), torch.maximum(a[:, None, 2:], b[:, 2:])
    hull = (high - low).clamp(min=0).prod(2)
    return shared / union.clamp(min=1e-9) - (hull - union) / hull.clamp(min=1e-9)


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) areas that boxes (N, 4) and (M, 4), by corners, have in common."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    return (high - low).clamp(min=0).prod(2)

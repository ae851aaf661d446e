"""L_DET: the loss of Deformable DETR, for images in which not everyone is labelled.

Boxes are (N, 4) x, y of the centre, width, height, relative to the image, unless said otherwise.

Source: Zhu et al. 2021.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ros2_pose.networks.tian.network import Detected
from ros2_pose.networks.tian.roi import corners

_CLASS, _BOX, _GIOU = 2.0, 5.0, 2.0  # the original's
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_COPIES = 4  # tokens of the encoder that are matched with one person: gradients for more of them
_COVERED = 0.5  # share of a detection in an ignored box from which on it does not count


# Boxes (P, 4) of the people of one image, and ignored boxes (M, 4): everyone else is in one of
# them. None instead of ignored boxes: not everyone is labelled.
Truth = tuple[Tensor, "Tensor | None"]


def detection_loss(found: Detected,
                   truths: list[Truth]) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Compute the loss of B images.

    Args:
        found: outputs of the network.
        truths: of each image.
    Returns:
        Mean over the batch's people, summed over layers; the last layer's matches (see `match`) of
        each image.
    """
    loss = found.queries.new_zeros(())
    if found.proposals is not None:
        loss = loss + layer_loss(*found.proposals, truths, _COPIES)[0]
    for logits, boxes in found.layers:
        one, matches = layer_loss(logits, boxes, truths)
        loss = loss + one
    return loss, matches


def layer_loss(logits: Tensor, boxes: Tensor, truths: list[Truth],
               copies: int = 1) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Compute the loss of one layer for B images: focal loss, L1 of boxes and generalised IoU.

    Args:
        logits (B, Q): of being a person.
        boxes (B, Q, 4): see `Detected`.
        truths: of each image.
        copies: number of queries that are matched with each person.
    Returns:
        Loss, and the matches (see `match`) of each image.
    """
    matches = []
    focal = logits.new_zeros(())
    matched_boxes, true_boxes = [], []
    for image_logits, image_boxes, (people, ignored) in zip(logits, boxes, truths):
        query, person = match(image_logits, image_boxes, people, copies)
        matches.append((query, person))
        focal = focal + focal_loss(image_logits, image_boxes, ignored, query)
        matched_boxes.append(image_boxes[query])
        true_boxes.append(people[person])
    found, goal = torch.cat(matched_boxes), torch.cat(true_boxes)
    error = (found - goal).abs().sum()
    overlap = (1 - generalised_iou(corners(found), corners(goal)).diagonal()).sum()
    return (_CLASS * focal + _BOX * error + _GIOU * overlap) / max(len(found), 1), matches


def focal_loss(logits: Tensor, boxes: Tensor, ignored: Tensor | None, matched: Tensor) -> Tensor:
    """Return the focal loss of one image, summed over its queries.

    Unmatched queries are background. They do not count in an ignored box, or in an image where not
    everyone is labelled.

    Args:
        logits (Q,): of being a person.
        boxes (Q, 4): see `Detected`.
        ignored (M, 4): see `Truth`.
        matched (P,): indices of the queries that are matched with a person.
    """
    is_person = torch.zeros_like(logits)
    is_person[matched] = 1
    counts = is_person.clone()
    if ignored is not None:
        counts = torch.where(is_covered(boxes, ignored), counts, 1.0)
    p = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, is_person, reduction="none")
    difficulty = torch.where(is_person > 0, 1 - p, p) ** _GAMMA
    share = torch.where(is_person > 0, _ALPHA, 1 - _ALPHA)
    return (counts * share * difficulty * cross_entropy).sum()


def is_covered(boxes: Tensor, ignored: Tensor) -> Tensor:
    """Return bool (Q,): boxes (Q, 4) that lie mostly in one of the ignored boxes (M, 4)."""
    if not len(ignored):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    boxes, ignored = corners(boxes), corners(ignored)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-9)
    return (_shared(boxes, ignored) / area[:, None] > _COVERED).any(1)


@torch.no_grad()
def match(logits: Tensor, boxes: Tensor, people: Tensor,
          copies: int = 1) -> tuple[Tensor, Tensor]:
    """Assign the queries of one image to its people at the least cost.

    Args:
        logits (Q,): of being a person.
        boxes (Q, 4): see `Detected`.
        people (P, 4): true boxes.
        copies: number of queries that are matched with each person.
    Returns:
        Pairs: indices (N,) of queries and (N,) of people.
    Source: Carion et al. 2020.
    """
    p = logits.sigmoid()
    positive = _ALPHA * (1 - p) ** _GAMMA * -(p + 1e-8).log()
    negative = (1 - _ALPHA) * p**_GAMMA * -(1 - p + 1e-8).log()
    cost = _CLASS * (positive - negative)[:, None] \
        + _BOX * torch.cdist(boxes, people, p=1) \
        - _GIOU * generalised_iou(corners(boxes), corners(people))
    # A network that diverges must raise an error by its loss, not by the assignment.
    cost = torch.nan_to_num(cost, nan=1e6, posinf=1e6, neginf=-1e6)
    rows, columns = linear_sum_assignment(cost.repeat(1, copies).cpu().numpy())
    person = torch.as_tensor(columns, device=p.device) % max(len(people), 1)
    return torch.as_tensor(rows, device=p.device), person


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return (N, M) for boxes (N, 4) and (M, 4) by corners.

    It is the intersection over union, less the share of the hull (the smallest box around both)
    that neither box covers. Source: Rezatofighi et al. 2019.
    """
    shared = _shared(a, b)
    union = _area(a)[:, None] + _area(b) - shared
    hull_low = torch.minimum(a[:, None, :2], b[:, :2])
    hull_high = torch.maximum(a[:, None, 2:], b[:, 2:])
    hull = _area(torch.cat([hull_low, hull_high], 2))
    iou = shared / union.clamp(min=1e-9)
    uncovered = (hull - union) / hull.clamp(min=1e-9)
    return iou - uncovered


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """Return the areas (N, M) of the intersections of boxes (N, 4) and (M, 4), by corners."""
    low = torch.maximum(a[:, None, :2], b[:, :2])
    high = torch.minimum(a[:, None, 2:], b[:, 2:])
    return _area(torch.cat([low, high], 2))


def _area(boxes: Tensor) -> Tensor:
    """Return the area (...) of boxes (..., 4) by corners; 0 if they are inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)

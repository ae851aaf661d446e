"""The losses of the stacked hourglasses, and the maps that they compare with.

Points are in px; cell c of a map lies at c * stride px. Unknown values are NaN and do not count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LIMB_PX = 8.0  # half the width of a limb's field, at most one cell less
_GAUSSIAN_PX = 6.0  # standard deviation of a keypoint's Gaussian
_POSITIVE = 0.1  # value of a target from which on it always counts
_LARGE_M = 0.1  # errors of bones from which the loss is linear


def cells_px(size: tuple[int, int], stride: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positions (h,) and (w,) px of the rows and columns of a map of `size` (h, w)."""
    rows, columns = (stride * torch.arange(n, device=like.device, dtype=like.dtype) for n in size)
    return rows, columns


def gaussians(points: Tensor, std_px: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Return maps (N, K, h, w) of Gaussians of height 1 at points; 0 where they are unknown.

    Args:
        points (N, K, 2): px.
        std_px (N, K): standard deviations of the labels; they widen the Gaussians.
        size: h, w of the maps.
    """
    rows, columns = cells_px(size, stride, points)
    known = points.isfinite().all(2)[..., None]
    x, y = torch.where(known, points, 0.0)[..., None].unbind(2)
    variance = 2 * (_GAUSSIAN_PX**2 + std_px.nan_to_num(0.0)[..., None].square())
    bump_x = torch.where(known, (-(columns - x).square() / variance).exp(), 0.0)
    bump_y = torch.where(known, (-(rows - y).square() / variance).exp(), 0.0)
    return bump_y[..., :, None] * bump_x[..., None, :]


def highest(maps: Tensor, image: Tensor, images: int) -> Tensor:
    """Return the maximum (B, ...) over the people of each picture of maps (N, ...); 0 without."""
    return torch.stack([maps[image == i].amax(0) if (image == i).any() else
                        maps.new_zeros(maps.shape[1:]) for i in range(images)])


def inside_boxes(boxes: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Return bool (N, h, w): cells of maps of `size` (h, w) inside boxes (N, 4) px."""
    rows, columns = cells_px(size, stride, boxes)
    x = (columns >= boxes[:, :1]) & (columns <= boxes[:, 2:3])
    y = (rows >= boxes[:, 1:2]) & (rows <= boxes[:, 3:])
    return y[:, :, None] & x[:, None]


def counted(known: Tensor, boxes: Tensor, image: Tensor, ignored: list[Tensor], complete: Tensor,
            size: tuple[int, int], stride: int) -> Tensor:
    """Return bool (B, C, h, w): cells of C channels at which background is known.

    It is not known in ignored boxes, in the box of a person for whom the channel is not labelled,
    and, where not everyone is labelled, outside of all boxes.

    Args:
        known (N, C) bool: channels that are labelled, of each person.
        boxes (N, 4), image (N,): of the people, px, and the index of their picture.
        ignored: boxes (M, 4) px of each of the B pictures; complete (B,): everyone is in a box.
        size: h, w of the maps.
    """
    inside = inside_boxes(boxes, size, stride)
    masks = []
    for i, (others, whole) in enumerate(zip(ignored, complete)):
        mine = image == i
        here = inside[mine]
        background = whole | here.any(0)
        background = background & ~inside_boxes(others, size, stride).any(0)
        unlabelled = (~known[mine])[..., None, None] & here[:, None]
        masks.append(background & ~unlabelled.any(0))
    return torch.stack(masks)


def heat_loss(logits: Tensor, target: Tensor, counts: Tensor, people: int) -> Tensor:
    """Return the cross-entropy of heat-maps with Gaussians.

    The paper's squared error has no gradient where a sigmoid is saturated.

    Args:
        logits, target (B, K, h, w): target 0..1.
        counts (B, K, h, w) bool: cells at which background is known.
        people: the loss is the sum over cells by people and keypoints.
    """
    counts = counts | (target > _POSITIVE)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (counts * loss).sum() / (max(people, 1) * logits.shape[1])


def tag_loss(tags: Tensor, known: Tensor, image: Tensor, images: int,
             sigma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the two terms of L_AE, means over pictures with people.

    Args:
        tags (N, K, dims): at the keypoints of N people.
        known (N, K) bool: keypoints that count.
        image (N,): index of each person's picture.
        sigma: of the second term, in units of tags.
    Returns:
        Squared distance of tags from the mean tag of the person; and, of pairs of people of a
        picture, exp(-d^2 / (2 sigma^2)) with the distance d of their mean tags.
    Source: Benzine et al. 2019, eqs 1 and 2.
    """
    pull, push, pictures = tags.sum() * 0, tags.sum() * 0, 0
    weight = known.to(tags)[..., None]
    for i in range(images):
        rows = ((image == i) & known.any(1)).nonzero()[:, 0]
        if not len(rows):
            continue
        pictures += 1
        count = weight[rows].sum(1)
        mean = (weight[rows] * tags[rows]).sum(1) / count
        squared = (weight[rows] * (tags[rows] - mean[:, None]).square()).sum((1, 2)) / count[:, 0]
        pull = pull + squared.mean()
        between = (mean[:, None] - mean[None]).square().sum(2)
        apart = (-between / (2 * sigma**2)).exp()
        push = push + (apart.sum() - apart.diagonal().sum()) / len(rows)**2
    return pull / max(pictures, 1), push / max(pictures, 1)


def limb_fields(points: Tensor, limbs: tuple[tuple[int, int], ...], image: Tensor, images: int,
                size: tuple[int, int], stride: int) -> Tensor:
    """Return part affinity fields (B, limbs, 2, h, w): unit vectors along the limbs of people.

    Where limbs of one kind overlap, the mean; 0 elsewhere.

    Args:
        points (N, K, 2): px.
        limbs: pairs of keypoints.
        image (N,): index of each person's picture.
        size: h, w of the maps.
    Source: Cao et al. 2017, section 2.3.
    """
    rows, columns = cells_px(size, stride, points)
    start, end = (points[:, [limb[side] for limb in limbs]] for side in (0, 1))
    known = (start.isfinite() & end.isfinite()).all(2)
    start, end = (torch.where(known[..., None], value, 0.0) for value in (start, end))
    length = (end - start).norm(dim=2)
    unit = (end - start) / length.clamp(min=1e-6)[..., None]  # (N, L, 2)
    x = columns - start[..., 0, None]
    y = rows - start[..., 1, None]
    along = (x * unit[..., :1])[..., None, :] + (y * unit[..., 1:])[..., :, None]
    across = (y * unit[..., :1])[..., :, None] - (x * unit[..., 1:])[..., None, :]
    on_limb = (along >= -_LIMB_PX / 2) & (along <= (length + _LIMB_PX / 2)[..., None, None]) \
        & (across.abs() <= _LIMB_PX) & known[..., None, None] & (length > 0)[..., None, None]
    shape = (images, len(limbs), *size)
    count = points.new_zeros(shape).index_add_(0, image, on_limb.to(points))
    vectors = on_limb[:, :, None] * unit[..., None, None]
    summed = points.new_zeros(images, len(limbs), 2, *size).index_add_(0, image, vectors)
    return summed / count.clamp(min=1)[:, :, None]


def field_loss(fields: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return the squared error of fields by cells on limbs.

    Args:
        fields, target (B, L, 2, h, w).
        counts (B, L, h, w) bool: cells at which background is known.
    """
    on_limb = target.square().sum(2) > 0
    error = (fields - target).square().sum(2)
    return ((counts | on_limb) * error).sum() / on_limb.sum().clamp(min=1)


def bone_loss(values: Tensor, bones: Tensor, known: Tensor, stored: Tensor) -> Tensor:
    """Return the mean error of the maps of 3D joints, m; quadratic when small.

    Args:
        values (N, K, 24, 3): m, at the keypoints.
        bones (N, 24, 3): m, the truth.
        known (N, K) bool: keypoints that count.
        stored (24, K) bool: keypoints at which a joint is stored.
    """
    counts = (known[:, :, None] & stored.mT)[..., None] & bones.isfinite()[:, None]
    goal = torch.where(counts, bones[:, None], values.detach())
    loss = F.smooth_l1_loss(values, goal, beta=_LARGE_M, reduction="none").sum(3)
    return loss.sum() / counts.any(3).sum().clamp(min=1)

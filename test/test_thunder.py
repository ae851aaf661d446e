"""Thunder: guided decoding against loops over the cells, and real people in crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.imaging.crop import crop_person
from ros2_pose.networks.movenet import MoveNet
from ros2_pose.networks.refiner import Guide
from ros2_pose.networks.thunder import Thunder, decode, decode_batch
from ros2_pose.people import Frame

_UNKNOWN = np.full((17, 2), np.nan)
_SHAPES = [(1, 1), (1, 9), (3, 2), (24, 64), (64, 24), (40, 40)]


def _heads(shape, seed=0, scale=4.0):
    """Random heads of a crop with (h, w) cells."""
    rng = np.random.default_rng(seed)
    return [(scale * rng.normal(size=(channels, *shape))).astype(np.float32)
            for channels in (1, 17, 34, 34)]


def _empty_heads(shape):
    """Heads without a person, an offset or a displacement."""
    return [np.full((1, *shape), -12.0, np.float32), np.full((17, *shape), -12.0, np.float32),
            np.zeros((34, *shape), np.float32), np.zeros((34, *shape), np.float32)]


# ------------------------------------------------------------------------- an oracle in loops


def _probability(logit) -> float:
    return 1 / (1 + np.exp(-float(logit)))


def _best_cell(logits, y, x):
    """Row and column with the largest probability / (distance + 1.8)."""
    cells = [(row, col) for row in range(logits.shape[0]) for col in range(logits.shape[1])]
    return max(cells, key=lambda cell: _probability(logits[cell])
               / (np.hypot(cell[0] - y, cell[1] - x) + 1.8))


def _votes(logits, row, col):
    """Covariance (2, 2) x, y, cells^2, of the probabilities in the 7 x 7 cells around one."""
    cells = [(r, c) for r in range(row - 3, row + 4) for c in range(col - 3, col + 4)
             if 0 <= r < logits.shape[0] and 0 <= c < logits.shape[1]]
    votes = np.array([_probability(logits[cell]) for cell in cells])
    return np.cov(np.array(cells, float)[:, ::-1].T, aweights=votes, ddof=0).reshape(2, 2)


def _written_out(heads, guide):
    center, heat, offset, displacement = heads
    row, col = _best_cell(center[0], guide.middle[1] / 4, guide.middle[0] / 4)
    points, cov, scores = [], [], []
    for joint in range(17):
        y, x = guide.keypoints[joint, ::-1] / 4
        if np.isnan(guide.keypoints).any():
            y, x = (displacement[2 * joint, row, col] + row,
                    displacement[2 * joint + 1, row, col] + col)
        r, c = _best_cell(heat[joint], y, x)
        points.append(((c + offset[2 * joint + 1, r, c]) * 4, (r + offset[2 * joint, r, c]) * 4))
        cov.append(16 * _votes(heat[joint], r, c))
        scores.append(_probability(heat[joint, r, c]))
    return points, cov, scores, _probability(center[0, row, col])


def _guides(shape, seed):
    rng = np.random.default_rng(seed)
    size = 4 * np.array(shape[::-1])
    inside = rng.uniform(0, 1, (17, 2)) * size
    partly = np.where(np.arange(17)[:, None] == 3, np.nan, inside)
    return {"keypoints": Guide(inside, size / 2), "box": Guide(_UNKNOWN, size / 3),
            "outside": Guide(inside + 5 * size, -size), "partly known": Guide(partly, size / 2)}


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["keypoints", "box", "outside", "partly known"])
def test_decodes_by_its_definition(shape, kind):
    heads, guide = _heads(shape, seed=shape[1]), _guides(shape, 5)[kind]
    found = decode(heads, guide)
    points, cov, scores, center_score = _written_out(heads, guide)
    np.testing.assert_allclose(found.keypoints, points, atol=1e-3)
    np.testing.assert_allclose(found.votes_cov, cov, atol=2e-3)
    np.testing.assert_allclose(found.keypoint_scores, scores, rtol=1e-5)
    assert found.center_score == pytest.approx(center_score, rel=1e-5)


# ------------------------------------------------------------------------- made-up people


def _two_people(strengths, seed=1):
    """Heads (24, 40 cells) of two people, and the keypoints (2, 17, 2), px of the crop.

    Args:
        strengths: logit of each one's cells.
    """
    rng = np.random.default_rng(seed)
    heads = _empty_heads((24, 40))
    center, heat, offset, displacement = heads
    cells = rng.integers((2, 2), (22, 16), (2, 17, 2)) + [[[0, 0]], [[0, 21]]]  # y, x
    shift = rng.uniform(-0.5, 0.5, (2, 17, 2))
    for cell, by, strength, middle in zip(cells, shift, strengths, ((12, 9), (12, 30))):
        center[0, middle[0], middle[1]] = strength
        displacement[:, middle[0], middle[1]] = (cell - middle).ravel()
        for joint in range(17):
            heat[joint, cell[joint, 0], cell[joint, 1]] = strength
            offset[2 * joint:2 * joint + 2, cell[joint, 0], cell[joint, 1]] = by[joint]
    return heads, (4 * (cells + shift))[..., ::-1]


@pytest.mark.parametrize("strengths", [(2.0, 2.0), (0.0, 3.0), (3.0, 0.0)])
@pytest.mark.parametrize("person", [0, 1])
def test_the_guide_chooses_between_two_people(strengths, person):
    """Also the fainter one, from keypoints that are some px off or from the box alone."""
    heads, keypoints = _two_people(strengths)
    rng = np.random.default_rng(2)
    middle = np.array([36.0 + 84 * person, 48.0])
    for guide in (Guide(keypoints[person] + rng.normal(scale=3, size=(17, 2)), middle),
                  Guide(_UNKNOWN, middle + rng.normal(scale=6, size=2))):
        found = decode(heads, guide)
        np.testing.assert_allclose(found.keypoints, keypoints[person], atol=1e-4)
        np.testing.assert_allclose(found.keypoint_scores, _probability(strengths[person]),
                                   rtol=1e-5)
        assert found.center_score == pytest.approx(_probability(strengths[person]), rel=1e-5)


def test_positions_are_exact_between_the_cells():
    """Any half px of the crop can be reported, at its edges, too."""
    for x in np.arange(0, 96.1, 0.5):
        heads = _empty_heads((8, 24))
        col = min(int(x / 4), 23)
        heads[1][:, 3, col] = 4.0
        heads[2][::2, 3, col], heads[2][1::2, 3, col] = 0.125, x / 4 - col
        found = decode(heads, Guide(np.tile([x + 2.0, 10.0], (17, 1)), np.array([48.0, 16.0])))
        np.testing.assert_array_equal(found.keypoints, np.tile([x, 12.5], (17, 1)))


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -4), (5, 2)])
def test_what_moves_in_the_crop_moves_in_the_result(shift):
    heads, keypoints = _two_people((1.0, 2.0))
    padded = [np.pad(head, ((0, 0), (8, 8), (8, 8)), constant_values=-12.0 if number < 2 else 0.0)
              for number, head in enumerate(heads)]
    moved = [np.roll(head, shift, (1, 2)) for head in padded]
    step = 4.0 * np.array(shift[::-1])
    for guide in (Guide(keypoints[0] + 32, np.array([68.0, 80.0])),
                  Guide(_UNKNOWN, np.array([68.0, 80.0]))):
        before = decode(padded, guide)
        after = decode(moved, Guide(guide.keypoints + step, guide.middle + step))
        np.testing.assert_allclose(after.keypoints, before.keypoints + step, atol=1e-4)
        np.testing.assert_allclose(after.votes_cov, before.votes_cov, atol=1e-4)


# ------------------------------------------------------------------------- covariances


def _with_peak(shape, row, col, precision):
    """Heads with a Gaussian peak of a precision (2, 2), 1/cells^2, in each keypoint's map."""
    y, x = np.mgrid[:shape[0], :shape[1]]
    away = np.stack([x - col, y - row], -1)
    log_votes = -6.0 - 0.5 * np.einsum("hwi,ij,hwj->hw", away, precision, away)
    heads = _empty_heads(shape)
    heads[1][:] = log_votes  # a small probability is close to the exponential of its logit
    return heads


@pytest.mark.parametrize("std, angle_deg", [((1.0, 1.0), 0), ((1.2, 0.6), 0), ((1.2, 0.6), 90),
                                            ((1.2, 0.6), 45), ((1.2, 0.6), -30)])
def test_the_votes_have_the_covariance_of_a_peak(std, angle_deg):
    cos, sin = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    rotmat = np.array([[cos, -sin], [sin, cos]])
    cov = rotmat @ np.diag(np.square(std)) @ rotmat.T
    heads = _with_peak((20, 20), 9, 10, np.linalg.inv(cov))
    found = decode(heads, Guide(np.tile([40.0, 36.0], (17, 1)), np.array([40.0, 40.0])))
    np.testing.assert_allclose(found.votes_cov, np.tile(16 * cov, (17, 1, 1)), atol=0.06 * 16)


def test_a_wider_peak_is_less_certain():
    guide = Guide(np.tile([40.0, 40.0], (17, 1)), np.array([40.0, 40.0]))
    traces = [np.trace(decode(_with_peak((20, 20), 10, 10, np.eye(2) / std**2), guide).votes_cov[0])
              for std in (0.5, 1, 1.5, 2, 4)]
    assert (np.diff(traces) > 0).all()


@pytest.mark.parametrize("shape", _SHAPES[1:], ids=str)
@pytest.mark.parametrize("fill", [-1e6, -60.0, 0.0, 60.0, 1e6, "mixed"])
def test_extreme_maps_give_finite_results(shape, fill):
    heads = _heads(shape)
    for head in heads[:2]:
        head[:] = np.where(head > 0, 1e6, -1e6) if fill == "mixed" else fill
    with np.errstate(all="raise", under="ignore"):
        for guide in _guides(shape, 1).values():
            found = decode(heads, guide)
            assert found.joints is None  # Thunder is 2D
            for values in found._replace(joints=np.zeros(0)):
                assert np.isfinite(values).all()
            assert (found.keypoint_scores >= 0).all() and (found.keypoint_scores <= 1).all()
            eigenvalues = np.linalg.eigvalsh(found.votes_cov)
            assert eigenvalues.min() > -1e-4 and eigenvalues.max() <= 16 * 9.01


# ------------------------------------------------------------------------- the network


@pytest.fixture(scope="module")
def thunder():
    return Thunder(PoseConfig())


@pytest.fixture(scope="module")
def seen(clip):
    """Pictures of the clip, and MoveNet's clear people in each."""
    movenet = MoveNet(PoseConfig(network="movenet", score_threshold=0.5))
    pictures = clip[::3]
    return list(zip(pictures, movenet.detect([Frame(picture) for picture in pictures])))


def _refined(thunder, picture, box, keypoints):
    """Keypoints (17, 2), px of the picture, and the result in the crop of a box."""
    crop = crop_person(Frame(picture), box, thunder.long_side)
    guide = Guide(crop.from_picture(keypoints), crop.from_picture((box[:2] + box[2:]) / 2))
    found = thunder.refine([crop.image], [guide])[0]
    return crop.to_picture(found.keypoints), found


@pytest.mark.parametrize("known", ["keypoints", "box"])
def test_people_of_the_clip_are_where_movenet_sees_them(thunder, seen, known):
    count, steps = 0, []
    for picture, people in seen:
        for box, keypoints, scores in zip(people.boxes, people.keypoints, people.keypoint_scores):
            points, found = _refined(thunder, picture, box,
                                     keypoints if known == "keypoints" else _UNKNOWN)
            clear = (scores > 0.4) & (found.keypoint_scores > 0.4)
            assert clear.sum() >= 8
            steps.extend((points - keypoints)[clear] / np.sqrt(oks.area(box)))
            count += 1
    assert count >= 6
    # A person's size is about 200 px here, and MoveNet's own error 3 % of it.
    distances = np.linalg.norm(steps, axis=1)
    assert np.median(distances) < 0.035 and np.quantile(distances, 0.95) < 0.12
    assert (np.abs(np.median(steps, 0)) < 0.015).all()  # a shift of one px of the crop is 0.01


def test_in_a_crop_of_two_people_the_guide_chooses(thunder, seen):
    picture, people = seen[0]
    people = people[:2]
    both = np.r_[people.boxes[:, :2].min(0), people.boxes[:, 2:].max(0)]
    for own, other in ((0, 1), (1, 0)):
        points, _ = _refined(thunder, picture, both, people.keypoints[own])
        areas = oks.area(people.boxes)
        assert oks.similarity(points, people.keypoints[own], areas[[own]]) > 0.6
        assert oks.similarity(points, people.keypoints[other], areas[[other]]) < 0.1


def test_crops_do_not_depend_on_each_other(thunder, seen):
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (*shape, 3), np.uint8)
             for shape in ((256, 96), (96, 256), (256, 256))]
    crops.append(np.zeros((256, 160, 3), np.uint8))
    picture, people = seen[0]
    crops.append(crop_person(Frame(picture), people.boxes[0]).image)
    guides = [Guide(_UNKNOWN, np.array(crop.shape[1::-1]) / 2) for crop in crops]
    together = thunder.refine(crops, guides)
    for crop, guide, found in zip(crops, guides, together):
        alone = thunder.refine([crop], [guide])[0]
        assert found.joints is None and alone.joints is None
        for one, other in zip(found[:4], alone[:4]):
            np.testing.assert_allclose(one, other, atol=1e-4)
            assert np.isfinite(one).all()
    assert together[-1].center_score > 0.3 > together[-2].center_score
    assert thunder.refine([], []) == []


def test_on_a_gpu_batches_of_equal_crops_give_what_each_crop_gives(thunder, seen):
    """The same way on a CPU: crops of three shapes, with and without keypoints in the guide."""
    picture, people = seen[0]
    frame = Frame(picture)
    crops = [crop_person(frame, box) for box in people.boxes]
    images = [crop.image for crop in crops]
    guides = [Guide(crop.from_picture(points), np.array(crop.image.shape[1::-1]) / 2)
              for crop, points in zip(crops, people.keypoints)]
    images += [images[0], images[0][:, ::-1].copy(), images[1][32:]]
    guides += [Guide(_UNKNOWN, guides[0].middle), guides[1], Guide(_UNKNOWN, guides[1].middle)]
    together = thunder._refined_in_batches(images, guides)
    for one, other in zip(together, thunder.refine(images, guides), strict=True):
        np.testing.assert_allclose(one.keypoints, other.keypoints, atol=1e-3)
        np.testing.assert_allclose(one.votes_cov, other.votes_cov, atol=1e-3)
        np.testing.assert_allclose(one.keypoint_scores, other.keypoint_scores, atol=1e-5)
        assert one.center_score == pytest.approx(other.center_score, abs=1e-5)
    assert thunder._refined_in_batches([], []) == []


@pytest.mark.parametrize("shape", _SHAPES[1:], ids=str)
def test_maps_are_decoded_in_a_batch_as_one_by_one(shape):
    """Random maps and guides of all kinds; of extreme maps the results are finite."""
    guides = list(_guides(shape, 3).values())
    heads = [_heads(shape, seed=number) for number in range(len(guides))]
    batch = tuple(torch.from_numpy(np.stack(kind)) for kind in zip(*heads))
    extreme = tuple(torch.where(kind > 0, 1e6, -1e6) for kind in batch[:2]) + batch[2:]
    for found in decode_batch(extreme, guides):
        assert all(np.isfinite(values).all() for values in found[:4])
    for one, own, guide in zip(decode_batch(batch, guides), heads, guides, strict=True):
        other = decode(own, guide)
        for ours, expected in zip(one[:4], other[:4]):
            np.testing.assert_allclose(ours, expected, atol=2e-3)

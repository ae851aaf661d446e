"""The contract of every refiner in one place: what `Refiner.refine` promises, on real crops.

A new refiner is tested by its entry in the registry.
"""

from __future__ import annotations

import numpy as np
import pytest

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.imaging.crop import crop_person
from ros2_pose.networks.refiner import Guide
from ros2_pose.networks.registry import REFINERS, create_network, create_refiner
from ros2_pose.people import Frame
from ros2_pose.skeleton import COCO17, SMPL24

_UNKNOWN = np.full((17, 2), np.nan)


@pytest.fixture(scope="module", params=REFINERS)
def refiner(request):
    return create_refiner(PoseConfig(refiner=request.param))


@pytest.fixture(scope="module")
def people(clip):
    """The clip's first picture, and two people in it as MoveNet finds them."""
    network = create_network(PoseConfig(network="movenet"))
    return clip[0], network.detect([Frame(clip[0])])[0][:2]


@pytest.fixture(scope="module")
def crops(people, refiner):
    """Crops of the two people, and what is known of them."""
    picture, found = people
    made = [crop_person(Frame(picture), box, refiner.long_side) for box in found.boxes]
    guides = [Guide(crop.from_picture(points), np.array(crop.image.shape[1::-1]) / 2)
              for crop, points in zip(made, found.keypoints)]
    return [crop.image for crop in made], guides


def test_each_crop_gives_one_whole_person(refiner, crops):
    for refined in refiner.refine(*crops):
        assert refined.keypoints.shape == (17, 2) and refined.votes_cov.shape == (17, 2, 2)
        for value in (refined.keypoints, refined.votes_cov, refined.keypoint_scores):
            assert np.isfinite(value).all()
        assert (np.linalg.eigvalsh(refined.votes_cov) >= -1e-9).all()
        assert refined.keypoint_scores.min() >= 0 and refined.keypoint_scores.max() <= 1
        assert 0 <= refined.center_score <= 1
        if refined.joints is not None:
            assert refined.joints.shape == (24, 3) and np.isfinite(refined.joints).all()


def test_it_finds_the_people_that_the_finder_found(refiner, crops):
    for refined, guide in zip(refiner.refine(*crops), crops[1]):
        area = np.prod(np.ptp(guide.keypoints, axis=0))
        assert oks.similarity(refined.keypoints, guide.keypoints, area) > 0.6


def test_crops_do_not_depend_on_each_other(refiner, crops):
    images, guides = crops
    first, second = refiner.refine(images, guides)
    again, = refiner.refine(images[1:], guides[1:])
    for a, b in zip(second, again):
        if a is not None:
            np.testing.assert_allclose(a, b, atol=1e-3)
    assert not np.allclose(first.keypoints, second.keypoints)
    assert refiner.refine([], []) == []


@pytest.mark.parametrize("shape", [(32, 256), (256, 32), (96, 96)])
def test_crops_of_any_shape_and_content_are_read(refiner, shape):
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (*shape, 3), dtype=np.uint8)
    refined, = refiner.refine([noise], [Guide(_UNKNOWN, np.array(shape[::-1]) / 2)])
    assert np.isfinite(refined.keypoints).all() and np.isfinite(refined.votes_cov).all()


def test_a_mirrored_crop_gives_mirrored_keypoints(refiner, crops):
    images, guides = crops
    width = images[0].shape[1]
    mirrored = Guide(guides[0].keypoints[COCO17.mirror] * (-1, 1) + (width, 0),
                     guides[0].middle * (-1, 1) + (width, 0))
    one, = refiner.refine(images[:1], guides[:1])
    other, = refiner.refine([np.ascontiguousarray(images[0][:, ::-1])], [mirrored])
    back = other.keypoints[COCO17.mirror] * (-1, 1) + (width, 0)
    sure = one.keypoint_scores > 0.3
    assert sure.sum() >= 8
    assert np.median(np.linalg.norm(back - one.keypoints, axis=1)[sure]) < 8
    if one.joints is not None:
        joints = other.joints[SMPL24.mirror] * (-1, 1, 1) + (width, 0, 0)
        assert np.median(np.abs(joints - one.joints)[:, :2]) < 16
        assert np.median(np.abs(joints - one.joints)[:, 2]) < 0.15


def test_the_guide_says_which_of_two_people(refiner, people):
    """Both are in one crop of the picture; each guide gets the one that it describes."""
    picture, found = people
    both = np.r_[found.boxes[:, :2].min(0), found.boxes[:, 2:].max(0)]
    crop = crop_person(Frame(picture), both, refiner.long_side)
    points = crop.from_picture(found.keypoints)
    middles = (points.min(1) + points.max(1)) / 2
    areas = np.prod(np.ptp(points, axis=1), axis=1)
    for person in range(2):
        refined, = refiner.refine([crop.image], [Guide(points[person], middles[person])])
        similar = oks.similarity(refined.keypoints[None], points, areas)
        assert similar[person] > 0.4 and similar[person] > 2 * similar[1 - person]


def test_without_keypoints_in_the_guide_the_middle_counts(refiner, crops):
    images, guides = crops
    with_keypoints, = refiner.refine(images[:1], guides[:1])
    without, = refiner.refine(images[:1], [Guide(_UNKNOWN, guides[0].middle)])
    sure = with_keypoints.keypoint_scores > 0.5
    off = np.linalg.norm(with_keypoints.keypoints - without.keypoints, axis=1)
    assert np.median(off[sure]) < 4
    assert without.center_score > 0.1

"""Top-down and bottom-up together: the fusion's properties, and people whom both have seen."""

import numpy as np
import pytest

from ros2_pose.config import ConfigError, PoseConfig, from_dict
from ros2_pose.evaluation.benchmarks.occlusion import with_the_occluded
from ros2_pose.networks.registry import create_network
from ros2_pose.networks.top_down_bottom_up import fused
from ros2_pose.people import Frame


def drawn(rng, joints=17, scale=4.0):
    factor = rng.normal(0, scale, (joints, 2, 2))
    return factor @ factor.swapaxes(1, 2) + np.eye(2)


@pytest.mark.parametrize("seed", range(3))
def test_neither_order_nor_frame_matters(seed):
    rng = np.random.default_rng(seed)
    a_cov, b_cov = drawn(rng), drawn(rng)
    a, b = rng.normal(0, 5, (17, 2)), rng.normal(0, 5, (17, 2))
    keypoints, cov, kept = fused(a, a_cov, b, b_cov)
    other, other_cov, other_kept = fused(b, b_cov, a, a_cov)
    np.testing.assert_allclose(keypoints, other, atol=1e-9)
    np.testing.assert_allclose(cov, other_cov, atol=1e-9)
    assert (np.where(kept < 0, -1, 1 - kept) == other_kept).all()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = fused(a @ turn.T, turn @ a_cov @ turn.T, b @ turn.T, turn @ b_cov @ turn.T)
    np.testing.assert_allclose(turned[0], keypoints @ turn.T, atol=1e-9)


def test_agreeing_estimates_are_never_claimed_to_be_better_than_the_sharper_one():
    """Covariance intersection: errors may be equal, then a product of Gaussians would be too sure.
    """
    rng = np.random.default_rng(0)
    a_cov = drawn(rng)
    same = rng.normal(0, 5, (17, 2))
    keypoints, cov, kept = fused(same, a_cov, same, a_cov)
    np.testing.assert_allclose(keypoints, same)
    np.testing.assert_allclose(cov, a_cov)
    assert (kept == -1).all()
    _, cov, _ = fused(same, a_cov, same, 100 * a_cov)
    assert (np.linalg.eigvalsh(cov - a_cov) > -1e-9).all()


def test_the_sharper_one_of_two_that_exclude_each_other_is_kept():
    a, b = np.zeros((17, 2)), np.full((17, 2), 50.0)
    sharp, blurred = np.tile(np.eye(2), (17, 1, 1)), np.tile(9 * np.eye(2), (17, 1, 1))
    assert (fused(a, sharp, b, blurred)[0] == a).all()
    keypoints, cov, kept = fused(a, blurred, b, sharp)
    assert (keypoints == b).all() and (cov == sharp).all() and (kept == 1).all()


def test_people_are_those_of_the_default_network_with_fused_keypoints(clip):
    alone, both = (create_network(PoseConfig(network=name)).detect([Frame(clip[0])])[0]
                   for name in ("top_down", "top_down_bottom_up"))
    assert len(alone) == len(both) >= 2
    moved = np.linalg.norm(alone.keypoints - both.keypoints, axis=2)
    assert (moved > 0).any() and np.median(moved) < 5


@pytest.mark.parametrize("finder", ["top_down", "top_down_bottom_up", "thunder"])
def test_a_network_with_finders_and_a_refiner_cannot_be_a_finder(finder):
    with pytest.raises(ConfigError, match=f"finders: '{finder}' is not one of movenet"):
        from_dict(PoseConfig, {"finders": [finder]})


@pytest.mark.parametrize("refiner", ["movenet", "nanodet", "tian"])
def test_a_finder_cannot_be_a_refiner(refiner):
    with pytest.raises(ConfigError, match=f"refiner: '{refiner}' is not one of thunder"):
        from_dict(PoseConfig, {"refiner": refiner})


def test_the_occluded_third_counts_alone():
    def person(number, box, visibility):
        return {"id": number, "image_id": 1, "bbox": box, "iscrowd": 0, "num_keypoints": 17,
                "keypoints": [5, 5, visibility] * 17}
    labels = {"annotations": [person(1, [0, 0, 10, 10], 2), person(2, [50, 0, 10, 10], 1),
                              person(3, [100, 0, 10, 10], 2)]}
    counted = [label["id"] for label in with_the_occluded(labels)["annotations"]
               if label["num_keypoints"]]
    assert counted == [2]
    labels["annotations"][1] = person(2, [101, 0, 10, 10], 2)  # almost the same box as the third
    labels["annotations"][2]["keypoints"][2] = 1  # and one of its keypoints is hidden
    counted = [label["id"] for label in with_the_occluded(labels)["annotations"]
               if label["num_keypoints"]]
    assert counted == [3]

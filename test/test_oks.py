"""Object keypoint similarity: COCO's own code as the oracle; the expected value by sampling."""

import numpy as np
import pytest

from ros2_pose import oks


def test_similarity_is_that_of_cocos_code():
    params = pytest.importorskip("pycocotools.cocoeval").Params(iouType="keypoints")
    rng = np.random.default_rng(0)
    truth, found, area = rng.uniform(0, 100, (17, 2)), rng.uniform(0, 100, (17, 2)), 2500.0
    # cocoeval.computeOks, for one person with every joint labelled
    e = ((found - truth) ** 2).sum(1) / (params.kpt_oks_sigmas * 2) ** 2 / area / 2
    assert oks.similarity(found, truth, np.array(area)) == pytest.approx(np.exp(-e).mean())


def test_same_is_one_far_is_zero_unknown_does_not_count():
    points = np.random.default_rng(1).uniform(0, 100, (17, 2))
    assert oks.similarity(points, points, np.array(100.0)) == 1
    assert oks.similarity(points, points + 1e4, np.array(100.0)) == 0
    holed = points.copy()
    holed[3:] = np.nan
    assert oks.similarity(points, holed, np.array(100.0)) == 1
    assert oks.similarity(points, points * np.nan, np.array(100.0)) == 0


def test_expected_is_the_mean_over_the_errors_that_the_covariance_describes():
    rng = np.random.default_rng(2)
    variance, area = 30.0, np.array([5000.0])
    cov = np.tile(variance * np.eye(2), (1, 17, 1, 1))
    truth = np.zeros((1, 17, 2))
    errors = rng.normal(scale=variance**0.5, size=(20_000, 17, 2))
    sampled = oks.similarity(errors, truth, np.tile(area, 20_000)).mean()
    assert oks.expected(cov, np.ones((1, 17)), area)[0] == pytest.approx(sampled, abs=0.01)

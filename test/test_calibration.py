"""The default network's covariances: constants found again in made-up errors, and real coverage."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.benchmarks import calibration
from ros2_pose.evaluation.benchmarks.calibration import Errors
from ros2_pose.evaluation.harness import (
    Curve,
    EvaluationError,
    Options,
    Row,
    as_tables,
    run,
)
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE
from ros2_pose.networks.registry import create_network
from ros2_pose.people import Frame
from ros2_pose.skeleton import COCO17

_HIP = COCO17.index("left_hip")


def _known_noise():
    """A noise model with constants of our own: 5 % outliers, hips worse than the rest."""
    votes, floor = np.full(17, 0.3), np.full(17, 0.015)
    hips = [_HIP, COCO17.mirror[_HIP]]
    votes[hips], floor[hips] = 0.5, 0.03
    return replace(KEYPOINT_NOISE, votes=votes, floor=floor, outliers=np.full(17, 0.05), wide=5.0,
                   by_score=-2.0)


def _scores(rng, people: int):
    """Keypoint scores (P, 17)."""
    return rng.uniform(0.3, 0.9, (people, 17))


def _votes(rng, people: int):
    """Covariances (P, 17, 2, 2), px^2, of many sizes and shapes, and areas (P,), px^2."""
    areas = np.exp(rng.uniform(np.log(30), np.log(500), people)) ** 2
    axes = np.exp(rng.normal(np.log(0.04), 0.7, (people, 17, 1, 1)))
    factor = axes * (np.eye(2) + 0.3 * rng.normal(size=(people, 17, 2, 2)))
    return factor @ factor.swapaxes(-1, -2) * areas[:, None, None, None], areas


def _made_up(noise, people: int, seed: int = 0) -> Errors:
    """Errors as a noise model has them, three people a picture."""
    rng = np.random.default_rng(seed)
    votes, areas = _votes(rng, people)
    scores = _scores(rng, people)
    factor = np.linalg.cholesky(noise.cov(votes, areas[:, None], scores))
    length = np.where(rng.random((people, 17)) < noise.outliers, noise.wide, 1)
    error = factor @ (length[..., None] * rng.normal(size=(people, 17, 2)))[..., None]
    person = np.repeat(np.arange(people), 17)
    return Errors(error.reshape(-1, 2), votes.reshape(-1, 2, 2), np.repeat(areas, 17),
                  scores.ravel(), np.tile(np.arange(17), people), person, person // 3)


def test_constants_are_found_again_in_spite_of_outliers():
    truth = _known_noise()
    found = calibration.fit(_made_up(truth, 500))
    assert found.votes == pytest.approx(truth.votes, rel=0.2)
    assert found.floor == pytest.approx(truth.floor, rel=0.15)
    assert found.outliers == pytest.approx(truth.outliers, abs=0.02)
    assert found.wide == pytest.approx(truth.wide, rel=0.15)
    assert found.by_score == pytest.approx(truth.by_score, abs=0.25)
    assert found.votes[_HIP] > 1.3 * found.votes[0] and found.floor[_HIP] > 1.7 * found.floor[0]


def test_coverage_is_as_stated_on_people_not_fitted_and_wrong_for_plain_votes():
    errors = _made_up(_known_noise(), 300)
    judged = calibration.two_fold(errors)
    assert len(judged["kind"]) == len(errors)
    assert calibration.coverage(judged["calibrated"], judged["inlier"]) == \
        pytest.approx([0.68, 0.95], abs=0.02)
    every = np.ones(len(errors))
    assert calibration.coverage(judged["calibrated"], every) == \
        pytest.approx(judged["expected"].mean(0), abs=0.02)
    assert calibration.coverage(judged["votes"], judged["inlier"])[0] > 0.75
    assert 1 - judged["inlier"].mean() == pytest.approx(0.05, abs=0.015)


def test_few_errors_of_one_joint_still_make_constants_for_all():
    errors = _made_up(_known_noise(), 12)
    found = calibration.fit(errors[errors.joint == _HIP])
    for value in (found.votes, found.floor, found.outliers, found.median_std):
        assert value.shape == (17,) and (value > 0).all()
    judged = calibration.judge(found, errors[errors.joint == _HIP])
    rows = list(calibration.rows(found, judged))
    assert [(row.name, row.values["n"]) for row in rows] == [("hip", 12), ("all", 12)]


def test_covariances_stay_positive_definite_and_the_votes_can_be_had_back():
    votes, areas = _votes(np.random.default_rng(1), 20)
    votes[0] = 0  # every vote for one cell
    scores = _scores(np.random.default_rng(2), 20)
    cov = KEYPOINT_NOISE.cov(votes, areas[:, None], scores)
    assert (np.linalg.eigvalsh(cov) > 0).all()
    assert np.allclose(cov, cov.swapaxes(-1, -2))
    back = KEYPOINT_NOISE.votes_cov(cov, areas[:, None], scores)
    assert np.allclose(back, votes, atol=1e-9 * areas.max())
    assert (np.linalg.eigvalsh(KEYPOINT_NOISE.with_outliers(cov) - cov) > 0).all()


def test_a_person_alone_and_among_others_and_a_joint_alone_are_the_same():
    votes, areas = _votes(np.random.default_rng(2), 5)
    scores = _scores(np.random.default_rng(3), 5)
    together = KEYPOINT_NOISE.cov(votes, areas[:, None], scores)
    alone = KEYPOINT_NOISE.cov(votes[3:4], areas[3:4, None], scores[3:4])
    assert np.array_equal(alone[0], together[3])
    joints = np.array([4, 0, 4])
    some = KEYPOINT_NOISE.at(joints).cov(votes[:3][np.arange(3), joints], areas[:3],
                                          scores[np.arange(3), joints])
    assert np.allclose(some, together[np.arange(3), joints])


def test_covariances_go_with_the_square_of_the_picture():
    votes, areas = _votes(np.random.default_rng(3), 5)
    scores = _scores(np.random.default_rng(4), 5)
    assert np.allclose(KEYPOINT_NOISE.cov(9 * votes, 9 * areas[:, None], scores),
                       9 * KEYPOINT_NOISE.cov(votes, areas[:, None], scores))


def test_the_lower_the_peak_the_larger_the_covariance():
    noise = _known_noise()
    votes, areas = _votes(np.random.default_rng(3), 5)
    low, high = (noise.cov(votes, areas[:, None], np.full((5, 17), score)) for score in (0.2, 0.7))
    assert np.allclose(low, np.exp(1.0) * high)


def test_drawn_errors_fit_their_covariances_and_outliers_do_not():
    error, cov = KEYPOINT_NOISE.draw(np.random.default_rng(4), 4000)
    assert error.shape == (4000, 17, 2) and cov.shape == (4000, 17, 2, 2)
    errors = Errors(error.reshape(-1, 2), cov.reshape(-1, 2, 2), np.ones(4000 * 17),
                    np.full(4000 * 17, 0.5), np.tile(np.arange(17), 4000),
                    np.repeat(np.arange(4000), 17), np.arange(4000))
    as_drawn = replace(KEYPOINT_NOISE, votes=np.ones(17), floor=np.full(17, 1e-6), by_score=0)
    judged = calibration.judge(as_drawn, errors)
    every = np.ones(len(errors))
    assert calibration.coverage(judged["calibrated"], every) == \
        pytest.approx(judged["expected"].mean(0), abs=0.01)
    assert calibration.coverage(judged["calibrated"], judged["inlier"]) == \
        pytest.approx([0.68, 0.95], abs=0.01)


def test_drawn_covariances_vary_as_stated_and_a_seed_tells_them():
    noise = KEYPOINT_NOISE
    _, cov = noise.draw(np.random.default_rng(5), 4000)
    log_std = np.log(np.linalg.det(cov)) / 4
    assert np.exp(log_std.mean(0)) == pytest.approx(noise.median_std, rel=0.05)
    assert log_std.std(0) == pytest.approx(np.hypot(noise.person_std, noise.joint_std), rel=0.05)
    axes = np.linalg.eigvalsh(cov)
    stretch = np.log(axes[..., 1] / axes[..., 0]) / 2
    assert np.sqrt((stretch**2).mean()) == pytest.approx(noise.stretch_std, rel=0.05)
    again = noise.draw(np.random.default_rng(5), 4000)[1]
    assert np.array_equal(cov, again)


@pytest.fixture
def labelled(clip, tmp_path):
    """A COCO file of a picture, labelled by the network itself; its path and the number of people.

    The last person is a crowd, and everybody's nose is labelled as hidden, far off.
    """
    cv2.imwrite(str(tmp_path / "a.png"), clip[0][..., ::-1])
    people = create_network(PoseConfig()).detect([Frame(clip[0])])[0]
    entries = []
    for number, (points, box) in enumerate(zip(people.keypoints, people.boxes)):
        keypoints = np.c_[points - 0.5, np.full(17, 2)]
        keypoints[0] += (50, 50, -1)
        size = box[2:] - box[:2]
        entries.append({"image_id": 7, "keypoints": keypoints.ravel().tolist(),
                        "bbox": [*box[:2], *size], "area": size.prod() * 0.53,
                        "iscrowd": int(number == len(people) - 1)})
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": [{"id": 7, "file_name": "a.png"}],
                                "annotations": entries}))
    return path, len(people)


def test_errors_of_labels_that_agree_are_none_and_hidden_ones_do_not_count(labelled):
    path, count = labelled
    errors = calibration.collect(path, path.parent)
    assert len(np.unique(errors.person)) == count - 1
    assert np.abs(errors.error).max() < 1e-6
    assert 0 not in errors.joint and (np.linalg.eigvalsh(errors.votes_cov) > 0).all()


def test_the_benchmark_gives_rows_and_curves(labelled):
    path, _ = labelled
    options = Options(path, annotations=path, images=path.parent)
    results = run(calibration.BENCHMARKS, options)
    rows = [one for one in results["calibration"] if isinstance(one, Row)]
    curves = {one.label: one for one in results["calibration"] if isinstance(one, Curve)}
    assert rows[-1].name == "all" and "| all |" in as_tables(results)
    assert curves["2D keypoints, calibrated"].y[-1] == 1  # labels are the network's own points
    assert max(curves["network"].y) < 1e-6


def test_a_file_that_is_none_and_one_without_people_are_refused(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text("[]")
    with pytest.raises(EvaluationError, match="annotations.json is not a COCO keypoints file"):
        calibration.collect(path, tmp_path)
    path.write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(EvaluationError, match="no labelled person was detected"):
        calibration.collect(path, tmp_path)


@pytest.fixture(scope="module")
def real_errors(devset, tmp_path_factory):
    """The network's errors in the development set's completely labelled pictures."""
    import runpy
    from pathlib import Path
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "devset_to_coco.py"))
    path = tmp_path_factory.mktemp("coco") / "devset.json"
    script["main"](devset / "index.json", path)
    return calibration.collect(path, devset)


def test_real_errors_are_covered_as_stated_by_constants_of_other_pictures(real_errors):
    judged = calibration.two_fold(real_errors)
    every = np.ones(len(judged["kind"]))
    assert len(every) > 400
    assert calibration.coverage(judged["calibrated"], judged["inlier"]) == \
        pytest.approx([0.68, 0.95], abs=0.04)
    assert calibration.coverage(judged["calibrated"], every) == \
        pytest.approx(judged["expected"].mean(0), abs=0.04)


def test_the_constants_in_the_code_are_those_of_the_fit(real_errors):
    found = calibration.fit(real_errors)
    for name in ("votes", "floor", "outliers", "median_std", "wide", "person_std"):
        assert getattr(found, name) == pytest.approx(getattr(KEYPOINT_NOISE, name), rel=0.15), name

"""Scores of a network that knows the truth, or errs in known ways; oracles are other people's."""

import contextlib
import io
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, pearsonr, rankdata

from ros2_pose.body.model import BodyModel
from ros2_pose.boxes import overlaps, shares_within
from ros2_pose.camera import Camera
from ros2_pose.data.mupots import MupotsPeople
from ros2_pose.data.sample import HIDDEN, VISIBLE, Sample
from ros2_pose.evaluation import published
from ros2_pose.evaluation.benchmarks.network import Scores, evaluate, mean_pose
from ros2_pose.evaluation.tables import tables
from ros2_pose.metrics import detection_ap
from ros2_pose.metrics import pose as metrics
from ros2_pose.metrics.matching import EvaluatedImage, greedy, match, matched_pairs
from ros2_pose.metrics.mupots import mupots_match, mupots_pck
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import SMPL24

_CAMERA = Camera(640, 480, 500.0, 500.0, 320.0, 240.0)
_PER_PICTURE = (2, 0, 1, 3, 1)


# ------------------------------------------------------------------------------ the people


def boxed(boxes, scores=None, **fields):
    """People of whom little but boxes is known."""
    boxes = np.array(boxes, float).reshape(-1, 4)
    count = len(boxes)
    scores = np.ones(count) if scores is None else np.array(scores, float)
    return People(boxes, scores, np.full((count, 17, 2), np.nan),
                  np.full((count, 17, 2, 2), np.nan), np.full((count, 17), np.nan), **fields)


def picture(found, truth, ignored=(), complete=True):
    return EvaluatedImage(found, truth, np.array(ignored, float).reshape(-1, 4), complete)


def sample(number, people, ignored=(), complete=True):
    """Pictures are told apart by their colour."""
    frame = Frame(np.full((2, 2, 3), number, np.uint8), _CAMERA)
    return Sample(frame, people, np.array(ignored, float).reshape(-1, 4), complete)


def standing(count, rng, body):
    """People side by side in random poses, everything about them known."""
    theta = rng.normal(size=(count, 24, 4)) * 0.15 + (0, 0, 0, 1)
    theta[:, 0] = (1, 0, 0, 0) + rng.normal(size=(count, 4)) * 0.1
    theta /= np.linalg.norm(theta, axis=2, keepdims=True)
    betas = rng.normal(size=(count, 10)) * 0.5
    root = np.c_[np.arange(count) * 1.5 - 1, rng.uniform(-0.1, 0.1, count),
                 rng.uniform(4, 6, count)]
    out = body(*(torch.from_numpy(value).float() for value in (theta, betas, root)))
    pixels = _CAMERA.project(out.keypoints.numpy().astype(float))
    boxes = np.c_[pixels.min(1) - 5, pixels.max(1) + 5] if count else np.zeros((0, 4))
    visible = np.where(rng.random((count, 17)) < 0.8, VISIBLE, HIDDEN)
    return People(boxes, np.ones(count), pixels, np.zeros((count, 17, 2, 2)), visible,
                  joints=out.joints.numpy().astype(float), theta=theta, betas=betas, root=root)


@pytest.fixture(scope="module")
def body():
    return BodyModel.load()


@pytest.fixture(scope="module")
def samples(body):
    rng = np.random.default_rng(3)
    return [sample(number, standing(count, rng, body))
            for number, count in enumerate(_PER_PICTURE)]


def knowing(samples, change=lambda people, rng: people):
    """A network that answers with the truth, changed in a way that depends on the picture alone."""
    def detect(frames):
        numbers = [int(frame.image[0, 0, 0]) for frame in frames]
        return [change(samples[number].people, np.random.default_rng(number))
                for number in numbers]
    return detect


def noisy(people, rng):
    """Errors of known size everywhere, covariances that say so; everybody is still found."""
    count = len(people)
    std = rng.uniform(0.5, 6, (count, 17, 1))
    theta = people.theta + 0.05 * rng.normal(size=people.theta.shape)
    moved = 0.1 * rng.normal(size=(count, 3))
    return people.with_fields(
        boxes=people.boxes + rng.normal(size=(count, 4)), scores=rng.uniform(0.3, 1, count),
        keypoints=people.keypoints + std * rng.normal(size=(count, 17, 2)),
        keypoint_cov=std[..., None]**2 * np.eye(2),
        joints=people.joints + 0.03 * rng.normal(size=(count, 24, 3)) + moved[:, None],
        theta=theta / np.linalg.norm(theta, axis=2, keepdims=True), root=people.root + moved)


def same(ours, theirs):
    """Whether all scores agree, NaN with NaN."""
    ours, theirs = asdict(ours), asdict(theirs)
    return all(value == pytest.approx(theirs[name], rel=1e-6, abs=1e-6, nan_ok=True)
               for name, value in ours.items())


# --------------------------------------------------------------------------------- metrics


def test_pve_by_hand():
    truth = np.zeros((1, 2, 3))
    found = np.array([[[1.0, 0, 0], [1, 3, 4]]])
    root = np.array([[1.0, 0, 0]])
    assert metrics.pve(found, truth, 0 * root, 0 * root)[0] == pytest.approx((1 + 26**0.5) / 2)
    assert metrics.pve(found, truth, root, 0 * root)[0] == pytest.approx((0 + 5) / 2)


def test_mrpe_by_hand_and_who_is_not_known_is_left_out():
    truth = np.array([[0.0, 0, 4], [1, 0, 5], [2, 2, 2]])
    found = truth + [[0.3, 0, -0.4], [0, -0.1, 0], [np.nan] * 3]
    error = metrics.mrpe(found, truth)
    assert error == pytest.approx((0.3, 0.15, 0.05, 0.2))
    assert np.isnan(metrics.mrpe(found[2:], truth[2:])).all()


def test_pckh_by_hand():
    """A head box of 30 x 40 px: size 0.6 x 50 = 30, so that up to 15 px are right."""
    truth = np.zeros((2, 16, 2))
    truth[1, 2:] = np.nan  # two joints labelled of the second one
    found = np.zeros((2, 16, 2))
    found[0, 0], found[0, 1] = (9, 12), (15.1, 0)
    found[0, 6:8] = 1000  # pelvis and thorax are not scored
    found[1, 0] = np.nan  # not found: wrong
    heads = np.array([[100.0, 100, 130, 140], [0, 0, 30, 40]])
    assert metrics.pckh(found, truth, heads) == pytest.approx((14 - 1 + 2 - 1) / 16)
    assert metrics.pckh(found, truth, heads, share=0.6) == pytest.approx((14 + 2 - 1) / 16)
    assert np.isnan(metrics.pckh(found, np.nan * truth, heads))


@pytest.mark.parametrize("size", [2, 3])
def test_nll_is_that_of_scipys_normal(size):
    rng = np.random.default_rng(size)
    error, spread = rng.normal(size=(7, size)), rng.normal(size=(7, size, size))
    cov = spread @ spread.swapaxes(1, 2) + 0.1 * np.eye(size)
    oracle = [-multivariate_normal.logpdf(e, cov=c) for e, c in zip(error, cov)]
    assert metrics.gaussian_nll(error, cov) == pytest.approx(np.mean(oracle))
    error[0], cov[1] = np.nan, np.nan
    assert metrics.gaussian_nll(error, cov) == pytest.approx(np.mean(oracle[2:]))
    assert np.isnan(metrics.gaussian_nll(error[:1], cov[:1]))
    with pytest.raises(ValueError, match="not positive definite"):
        metrics.gaussian_nll(error, -cov)


def test_rank_correlation_is_that_of_ranks():
    rng = np.random.default_rng(0)
    deviation = rng.uniform(size=50)
    error = np.exp(3 * deviation) + rng.normal(size=50)
    oracle = pearsonr(rankdata(deviation), rankdata(error))[0]
    assert metrics.rank_correlation(deviation, error) == pytest.approx(oracle)
    assert metrics.rank_correlation(deviation, deviation**3) == pytest.approx(1)
    assert metrics.rank_correlation(deviation, -deviation) == pytest.approx(-1)
    assert np.isnan(metrics.rank_correlation(np.ones(50), error))


@pytest.mark.parametrize("call, message", [
    (lambda: metrics.pve(np.zeros((2, 5, 3)), np.zeros((2, 4, 3)), np.zeros((2, 3)),
                         np.zeros((2, 3))), "poses are"),
    (lambda: metrics.pve(np.zeros((2, 5, 3)), np.zeros((2, 5, 3)), np.zeros((1, 3)),
                         np.zeros((2, 3))), "roots for"),
    (lambda: metrics.mrpe(np.zeros((2, 3)), np.zeros((1, 3))), "poses are"),
    (lambda: metrics.mrpe(np.zeros((2, 2)), np.zeros((2, 2))), "poses are"),
    (lambda: metrics.pckh(np.zeros((2, 14, 2)), np.zeros((2, 14, 2)), np.zeros((2, 4))),
     "expected"),
    (lambda: metrics.pckh(np.zeros((2, 16, 2)), np.zeros((2, 16, 2)), np.zeros((1, 4))),
     "expected"),
    (lambda: metrics.gaussian_nll(np.zeros((2, 2)), np.zeros((1, 2, 2))), "covariances are"),
    (lambda: metrics.rank_correlation(np.zeros(3), np.zeros((3, 1))), "deviations are"),
    (lambda: greedy(np.zeros((3, 2)), np.zeros(2), 0.5), "similarities are"),
    (lambda: detection_ap.plain(np.zeros(2, bool), np.zeros(3), 4), "hits are")])
def test_shapes_that_do_not_fit_are_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -------------------------------------------------------------------------------- matching


def test_overlaps_by_hand():
    a, b = np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6], [1, 1, 1, 1]])
    np.testing.assert_allclose(overlaps(a, b), [[1 / 3, 0, 0]])
    np.testing.assert_allclose(shares_within(a, b), [[1 / 2, 0, 0]])
    np.testing.assert_allclose(shares_within(b, a), [[1 / 2], [0], [0]])


def test_the_surest_chooses_first_and_everybody_goes_once():
    truth = boxed([[0, 0, 10, 10], [8, 0, 18, 10]])
    found = boxed([[0, 0, 10, 10], [1, 0, 11, 10], [40, 0, 50, 10]], [0.5, 0.9, 0.7])
    partner, excused = match(picture(found, truth))
    assert partner.tolist() == [-1, 0, -1]  # the better box came too late
    assert not excused.any()
    assert [rows.tolist() for rows in matched_pairs(picture(found, truth))] == [[1], [0]]


def test_a_box_to_ignore_excuses_any_number_but_not_those_beside_it():
    found = boxed([[0, 0, 10, 10], [0, 0, 9, 10], [6, 0, 16, 10], [100, 0, 110, 10]])
    partner, excused = match(picture(found, boxed([]), ignored=[[0, 0, 10, 50]]))
    assert excused.tolist() == [True, True, False, False]
    assert partner.tolist() == [-1] * 4


def test_an_incomplete_picture_excuses_detections_but_may_have_missed_people():
    truth = boxed([[0, 0, 10, 10], [30, 0, 40, 10]])
    found = boxed([[0, 0, 10, 10], [60, 0, 70, 10]])
    partner, excused = match(picture(found, truth, complete=False))
    assert partner.tolist() == [0, -1] and excused.tolist() == [False, True]


def test_true_people_without_a_box_are_left_out_and_make_a_picture_incomplete():
    truth = boxed([[0, 0, 10, 10], [np.nan] * 4])
    found = boxed([[0, 0, 10, 10], [60, 0, 70, 10]])
    seen = EvaluatedImage.of(found, sample(0, truth))
    assert len(seen.truth) == 1 and not seen.complete
    partner, excused = match(seen)
    assert partner.tolist() == [0, -1] and excused.tolist() == [False, True]


def test_nobody_found_and_nobody_there():
    somebody, nobody = boxed([[0, 0, 1, 1]]), People.nobody()
    assert [len(part) for part in match(picture(nobody, somebody))] == [0, 0]
    assert [part.tolist() for part in match(picture(somebody, nobody))] == [[-1], [False]]
    assert [len(part) for part in match(picture(nobody, nobody))] == [0, 0]


# ----------------------------------------------------------------------- average precision


def some_pictures(seed, pictures=25):
    """Found and true boxes at random, crowds among them, and one picture full of detections."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(pictures):
        truth = boxes_at_random(rng, rng.integers(0, 6))
        near = truth[rng.random(len(truth)) < 0.8].repeat(rng.integers(1, 3), 0)
        found = np.r_[near + rng.normal(size=near.shape) * 6,
                      boxes_at_random(rng, 150 if number == 3 else rng.integers(0, 5))]
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        scores = rng.uniform(size=len(found)).round(2)  # with ties
        out.append(picture(boxed(found, scores), boxed(truth),
                           boxes_at_random(rng, rng.integers(0, 2)) * (1, 1, 1.3, 1.3)))
    return out


def boxes_at_random(rng, count):
    low = rng.uniform(0, 200, (count, 2))
    return np.c_[low, low + rng.uniform(20, 100, (count, 2))]


def coco_ap(pictures):
    """(10,) AP of COCO's own code at its ten overlaps."""
    coco, cocoeval = (pytest.importorskip(f"pycocotools.{name}") for name in ("coco", "cocoeval"))
    size = np.array([0, 0, 1, 1])
    truth, found = [], []
    for number, seen in enumerate(pictures, 1):
        for crowd, boxes in enumerate((seen.truth.boxes, seen.ignored)):
            truth += [{"image_id": number, "category_id": 1, "iscrowd": crowd,
                       "bbox": (box - np.roll(box, 2) * size).tolist(),
                       "area": float(np.prod(box[2:] - box[:2]))} for box in boxes]
        found += [{"image_id": number, "category_id": 1, "score": float(score),
                   "bbox": (box - np.roll(box, 2) * size).tolist()}
                  for box, score in zip(seen.found.boxes, seen.found.scores)]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = coco.COCO()
        dataset.dataset = {
            "images": [{"id": number} for number in range(1, len(pictures) + 1)],
            "categories": [{"id": 1}],
            "annotations": [{"id": i, **entry} for i, entry in enumerate(truth, 1)]}
        dataset.createIndex()
        judge = cocoeval.COCOeval(dataset, dataset.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, 0, 0, 2].mean(1)


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_boxes_is_cocos_own(seed):
    pictures = some_pictures(seed)
    ours = [detection_ap.of_boxes(pictures, limit) for limit in detection_ap.COCO_LIMITS]
    assert 0.05 < np.mean(ours) < 0.95
    np.testing.assert_allclose(ours, coco_ap(pictures), atol=1e-9)


def test_plain_ap_by_hand():
    """Right, wrong, right of three true people: precision 1 and 2/3 where one is found."""
    hits, scores = np.array([True, True, False]), np.array([0.3, 0.9, 0.5])
    assert detection_ap.plain(hits, scores, 3) == pytest.approx((1 + 2 / 3) / 3)
    assert detection_ap.plain(hits[:0], scores[:0], 3) == 0
    assert np.isnan(detection_ap.plain(hits, scores, 0))


def placed(positions, scores=None):
    """People at places, their boxes beside one another by x."""
    positions = np.array(positions, float).reshape(-1, 3)
    low = np.nan_to_num(positions[:, :1]) * 100
    return boxed(np.c_[low, 0 * low, low + 50, 0 * low + 100], scores, root=positions)


def test_ap_root_by_hand():
    first = picture(placed([[0, 0, 4.1], [0, 0, 4.2], [1, 0, 5.3]], [0.9, 0.8, 0.7]),
                    placed([[0, 0, 4], [1, 0, 5]]))  # right, its double, and one 30 cm off
    second = picture(placed([[0, 0.1, 4.2]], [0.75]), placed([[0, 0, 4]]))  # 22 cm off
    # In the order of scores: right, wrong, right, wrong; of three.
    assert detection_ap.of_roots([first, second]) == pytest.approx((1 + 2 / 3) / 3)
    assert detection_ap.of_roots([first, second], 0.05) == 0
    assert detection_ap.of_roots([first, second], 0.35) == pytest.approx(
        (1 + 2 / 3 + 3 / 4) / 3)


def test_ap_root_takes_the_nearest_truth_even_if_it_is_gone():
    """By Moon's code a double is wrong, though somebody else is within reach."""
    truth = placed([[0, 0, 4], [0.2, 0, 4]])
    found = placed([[0, 0, 4], [0.05, 0, 4]], [0.9, 0.8])
    assert detection_ap.of_roots([picture(found, truth)]) == pytest.approx(1 / 2)


def test_ap_root_excuses_who_has_no_true_place_and_skips_pictures_without_any():
    truth = placed([[0, 0, 4], [np.nan] * 3])
    truth = replace(truth, boxes=np.array([[0.0, 0, 50, 100], [100, 0, 150, 100]]))
    found = placed([[0, 0, 4], [1, 0, 4]], [0.5, 0.9])
    empty = picture(placed([[0, 0, 4]]), boxed([[0, 0, 50, 100]]))
    assert detection_ap.of_roots([picture(found, truth), empty]) == 1
    assert np.isnan(detection_ap.of_roots([empty]))


# --------------------------------------------------------------------------------- MuPoTS


def test_mupots_matched_people_score_better_than_all():
    poses = np.random.default_rng(0).normal(size=(6, 17, 3))
    truth = MupotsPeople(np.zeros((6, 17, 2)), poses, np.array([1, 1, 1, 2, 2, 3]),
                             np.zeros(6, int))
    found = poses.copy()
    found[[1, 5]] = np.nan
    everybody = mupots_pck(found, truth)
    assert everybody == pytest.approx((100 * (2 / 3 + 1 + 0) / 3,) * 2)
    assert mupots_pck(found, truth, matched=True) == pytest.approx((100, 100))
    assert mupots_pck(poses, truth) == mupots_pck(poses, truth, matched=True)
    assert np.isnan(mupots_pck(np.nan * poses, truth, matched=True)).all()


def test_mupots_people_are_known_by_the_joints_within_40_px():
    truth = np.random.default_rng(1).uniform(0, 1000, (3, 17, 2))
    found = truth[[2, 0]] + 39
    found[1, 5:] += 500  # fewer joints will do
    assert mupots_match(found, truth).tolist() == [1, -1, 0]
    assert mupots_match(found[:0], truth).tolist() == [-1, -1, -1]
    far = truth[:1].copy()
    far[0, 1:14, 1] += 41  # v alone is too far, and other joints do not count
    assert mupots_match(far, truth)[0] == -1


# --------------------------------------------------------------------------------- network


def test_the_truth_scores_without_errors(samples, body):
    scores = evaluate(knowing(samples), samples, body)
    assert (scores.people, scores.matched, scores.bodies, scores.bodies_found) == (7, 7, 7, 7)
    assert scores.keypoints == scores.keypoints_found > 0
    assert (scores.ap, scores.ap50, scores.ap_root_25) == pytest.approx((1, 1, 100))
    for name in ("keypoint_error", "keypoint_error_median", "mpjpe", "pa_mpjpe", "pve", "mrpe"):
        assert getattr(scores, name) == pytest.approx(0, abs=1e-3), name
    assert (scores.pck_rel, scores.pck_abs, scores.pck_rel_matched) == (100, 100, 100)
    assert scores.baseline_mpjpe > 10
    assert np.isnan(scores.nll) and np.isnan(scores.coverage_68)  # no covariance was given


def test_changed_sides_are_an_error(samples, body):
    def swapped(people, rng):
        people = people.with_sides_changed(list(range(len(people))))
        return people.with_fields(joints=people.joints[:, SMPL24.mirror],
                                  theta=people.theta[:, SMPL24.mirror])
    scores = evaluate(knowing(samples, swapped), samples, body)
    assert scores.ap == pytest.approx(1) and scores.mrpe == pytest.approx(0)
    assert scores.keypoint_error > 5 and scores.mpjpe > 100 and scores.pve > 10
    assert scores.pa_mpjpe > 50  # a turned body would do, were it not for the feet


def test_alignment_never_reflects(samples, body):
    """Depths of the wrong sign look right in the image, and must not look right in 3D."""
    def mirrored(people, rng):
        about = people.joints - people.joints[:, :1]
        return people.with_fields(joints=about * (1, 1, -1) + people.joints[:, :1])
    scores = evaluate(knowing(samples, mirrored), samples, body)
    assert scores.pa_mpjpe > 20


@pytest.mark.parametrize("batch", [2, 3, 5, 9])
def test_batches_change_nothing(samples, body, batch):
    alone = evaluate(knowing(samples, noisy), samples, body)
    assert same(evaluate(knowing(samples, noisy), samples, body, batch=batch), alone)


def test_the_order_of_detections_changes_nothing(samples, body):
    def turned_round(people, rng):
        return noisy(people, rng)[::-1]
    alone = evaluate(knowing(samples, noisy), samples, body)
    assert same(evaluate(knowing(samples, turned_round), samples, body), alone)


@pytest.mark.parametrize("pictures", [1, 2, 3])
def test_people_of_many_pictures_are_measured_as_each_alone(samples, body, pictures):
    """Two and three people are those whom VIBE's alignment takes for transposed poses."""
    inhabited = [part.people[:1] for part in samples if len(part.people)]
    single = [sample(number, people) for number, people in enumerate(inhabited[:pictures])]
    detect = knowing(single, noisy)
    together = evaluate(detect, single, body, batch=3)
    alone = [evaluate(detect, [one], body) for one in single]
    assert together.people == pictures
    for name in ("mpjpe", "pa_mpjpe", "pve", "mrpe", "mrpe_z", "pck_rel"):
        expected = np.mean([getattr(scores, name) for scores in alone])
        assert getattr(together, name) == pytest.approx(expected, rel=1e-5), name


def test_known_errors_come_out_as_what_they_are(samples, body):
    scores = evaluate(knowing(samples, noisy), samples, body)
    assert scores.uncertainty_rank > 0.3
    assert scores.coverage_68 == pytest.approx(0.68, abs=0.12)
    assert scores.coverage_95 == pytest.approx(0.95, abs=0.06)
    assert scores.mpjpe == pytest.approx(30 * 8**0.5 / np.pi**0.5 * 2**0.5, rel=0.2)
    assert scores.pa_mpjpe < scores.mpjpe
    assert scores.mrpe == pytest.approx(160, rel=0.5)  # a normal error's mean in three dimensions
    assert scores.mrpe >= max(scores.mrpe_x, scores.mrpe_y, scores.mrpe_z)
    assert scores.keypoint_error > scores.keypoint_error_median > 0


def test_keypoint_errors_by_hand_hidden_ones_do_not_count():
    points = np.full((1, 17, 2), np.nan)
    points[0, :3] = 10
    seen = np.full((1, 17), np.nan)
    seen[0, :3] = VISIBLE, VISIBLE, HIDDEN
    truth = replace(boxed([[0, 0, 30, 40]]), keypoints=points, keypoint_scores=seen)
    shifted = points + np.array([(3.0, 4), (0, 2), (20, 20), *[(0, 0)] * 14])
    found = replace(truth, keypoints=shifted, keypoint_cov=np.tile(np.eye(2), (1, 17, 1, 1)))
    scores = evaluate(lambda frames: [found], [sample(0, truth)])
    assert (scores.keypoints, scores.keypoints_found) == (2, 2)
    assert scores.keypoint_error == pytest.approx((10 + 4) / 2)  # of a diagonal of 50 px
    assert scores.nll == pytest.approx(np.log(2 * np.pi) + (25 + 4) / 4)
    assert scores.coverage_95 == 0.5


def test_matched_and_all_differ_when_somebody_is_missed(samples, body):
    def short_sighted(people, rng):
        return people[: max(len(people) - 1, 1)]
    scores = evaluate(knowing(samples, short_sighted), samples, body)
    assert (scores.people, scores.matched) == (7, 5)
    assert scores.pck_rel_matched == scores.pck_abs_matched == 100
    assert scores.pck_rel == scores.pck_abs == pytest.approx(500 / 7)
    assert scores.ap50 == pytest.approx(5 / 7, abs=0.01)
    assert scores.ap_root_25 == pytest.approx(500 / 7)
    assert scores.mpjpe == pytest.approx(0) and (scores.bodies, scores.bodies_found) == (7, 5)


def test_what_is_found_besides_labelled_people_counts_where_all_are_labelled(samples, body):
    def with_ghosts(people, rng):
        return boxed(np.r_[people.boxes, [[600, 400, 640, 480]]],
                     np.r_[people.scores * 0.5, 0.9])
    detect = knowing(samples, with_ghosts)
    aps = [evaluate(detect, [part._replace(**change) for part in samples], body).ap50
           for change in ({}, {"complete": False},
                          {"ignored": np.array([[590.0, 390, 640, 480]])})]
    assert aps[0] < 0.8 and aps[1:] == pytest.approx([1, 1])


def test_what_a_network_does_not_say_is_nan(samples, body):
    def flat(people, rng):
        return people.with_fields(joints=None, theta=None, betas=None, root=None)
    scores = evaluate(knowing(samples, flat), samples, body)
    assert scores.ap == pytest.approx(1) and scores.keypoint_error == 0
    for name in ("mpjpe", "pa_mpjpe", "pve", "mrpe", "ap_root_25", "pck_rel", "pck_abs_matched",
                 "baseline_mpjpe"):
        assert np.isnan(getattr(scores, name)), name
    assert "| MPJPE, mm | - |" in tables(published.all_scores({"flat": scores}, "made up"))


def test_pictures_without_truth_in_3d_and_networks_that_find_nobody(samples, body):
    flat = [part._replace(people=part.people.with_fields(joints=None, theta=None, betas=None,
                                                          root=None)) for part in samples]
    scores = evaluate(knowing(samples), flat, body)
    assert scores.bodies == 0 and np.isnan([scores.mpjpe, scores.pve, scores.ap_root_25]).all()
    blind = evaluate(lambda frames: [People.nobody() for _ in frames], samples, body)
    assert (blind.ap, blind.matched, blind.people) == (0, 0, 7) and np.isnan(blind.mpjpe)
    nothing = evaluate(knowing(samples), [], body)
    assert nothing.people == 0 and np.isnan(nothing.ap)


def test_the_baseline_is_the_best_constant_pose(samples, body):
    joints = np.concatenate([part.people.joints for part in samples])
    about = joints - joints[:, :1]
    pose = mean_pose(joints)
    least = ((about - pose) ** 2).sum()
    for seed in range(3):
        other = pose + 0.01 * np.random.default_rng(seed).normal(size=pose.shape)
        assert ((about - other) ** 2).sum() > least
    scores = evaluate(knowing(samples, noisy), samples, body)
    expected = np.linalg.norm(about - pose, axis=2).mean()
    assert scores.baseline_mpjpe == pytest.approx(1000 * expected)
    given = evaluate(knowing(samples, noisy), samples, body, training_joints=joints[:1])
    expected = np.linalg.norm(about - about[0], axis=2).mean()
    assert given.baseline_mpjpe == pytest.approx(1000 * expected)
    assert given.mpjpe == scores.mpjpe


def test_where_the_truth_has_no_pelvis_the_middle_of_the_hips_is_the_root(samples, body):
    """As in Panoptic and MuPoTS, on the same people: the root's own error is not in it then."""
    def without_pelvis(people):
        joints = people.joints.copy()
        joints[:, [0, 10]] = np.nan
        return people.with_fields(joints=joints, root=None, theta=None, betas=None)

    def higher_pelvis(people, rng):
        moved = people.joints + (0, 0, 0.1)
        moved[:, 0, 1] -= 0.3
        return people.with_fields(joints=moved, root=people.root - (0, 0.3, 0))
    others = [part._replace(people=without_pelvis(part.people)) for part in samples]
    scores = evaluate(knowing(samples, higher_pelvis), others, body)
    assert (scores.bodies, scores.bodies_found) == (7, 7)
    assert scores.mpjpe == pytest.approx(0) and scores.mrpe == pytest.approx(100)
    assert (scores.mrpe_y, scores.mrpe_z) == pytest.approx((0, 100))
    assert (scores.ap_root_25, scores.pck_rel, scores.pck_abs) == pytest.approx((100, 100, 100))
    assert scores.baseline_mpjpe > 10
    assert evaluate(knowing(samples, higher_pelvis), samples, body).mpjpe > 250


def test_a_network_must_answer_to_every_frame(samples, body):
    with pytest.raises(ValueError, match="1 answers to 2 frames"):
        evaluate(lambda frames: [People.nobody()], samples, body, batch=2)


# ---------------------------------------------------------------------------------- tables


def scores_of(**values):
    counts = dict.fromkeys(("people", "matched", "keypoints", "keypoints_found", "bodies",
                            "bodies_found"), 4)
    return Scores(**{**counts, "ap": 0.5, "ap50": 0.75, **values})


def cells(text):
    """Rows of a Markdown table, by their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines() if line.startswith("|")]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows}


def test_published_rows_stand_beside_ours_and_say_that_they_are_published():
    text = tables(published.comparison(
        published.THREE_DPW, {"ours": scores_of(mpjpe=81.26, bodies_found=3)},
        "our own pictures, 24 joints"))
    rows = cells(text)
    assert rows["ours"] == ["81.3", "-", "-", "3 of 4"]
    assert rows["SPIN 2019 ‡"] == ["96.9", "59.2", "116", "-"]
    assert "ours: our own pictures, 24 joints" in text.splitlines()[0]
    assert "† published by its authors, not measured here; ‡ the same" in text


@pytest.mark.parametrize("benchmark", [published.THREE_DPW, published.MUPOTS, published.PANOPTIC])
def test_benchmarks_have_a_figure_for_every_column(benchmark):
    assert len({tuple(row.values) for row in benchmark}) == 1
    rows = published.comparison(benchmark, {"ours": scores_of()}, "made up")
    assert cells(tables(rows))["ours"][-1] == "4 of 4"


def test_the_ablation_has_the_papers_order_and_changes_from_row_to_row():
    rows = cells(tables(published.ablation(
        {"FPN + correction": scores_of(mpjpe=90.0), "FPN": scores_of(mpjpe=91.5, pa_mpjpe=60.0)},
        "made up, 24 joints")))
    assert list(rows)[2:] == ["direct multi-scale", "FPN", "FPN + correction"]
    assert rows["direct multi-scale"] == ["-"] * 6
    assert rows["FPN"] == ["91.5", "60.0", "-", "-0.600", "-", "4 of 4"]
    assert rows["FPN + correction"][2:4] == ["-1.50", "-0.700"]
    with pytest.raises(ValueError, match="HRNet: not among"):
        published.ablation({"HRNet": scores_of()}, "made up")


def test_all_scores_has_a_line_for_every_score():
    rows = cells(tables(published.all_scores(
        {"a": scores_of(nll=4.321), "b": scores_of(mrpe=120.4)}, "made up")))
    assert rows["NLL, nats, px"] == ["4.32", "-"] and rows["MRPE, mm"] == ["-", "120"]
    assert rows["bodies measured"] == ["4 of 4", "4 of 4"]
    assert len(rows) == 2 + len(asdict(scores_of())) - 3  # head and rule; six counts in three lines

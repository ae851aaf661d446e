"""The lift and the fit on simulated people in motion: one image alone, and with what was before.

The people are of motion capture that is held back from all training. Noise is that of
`data.synthetic.keypoints`, a share of which lasts over time (`data.synthetic.motion`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ros2_pose.body.fitter import BodyFit, Fitter, Sighting
from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.lift import Lifted
from ros2_pose.body.so3 import rotmat_from_quat
from ros2_pose.body.state import BodyState
from ros2_pose.body.temporal_prior import Previous
from ros2_pose.data.synthetic.keypoints import Projections
from ros2_pose.data.synthetic.motion import MOCAP_S, MotionProjector, Motions
from ros2_pose.evaluation.benchmarks.fitting import MOCAP, body_model, fitter, statures
from ros2_pose.evaluation.harness import Options, Row
from ros2_pose.metrics.pose import acceleration_error, at_root, coverage, mpjpe, pa_mpjpe
from ros2_pose.skeleton import SMPL24

_PEOPLE, _IMAGES = 100, 40
_SETTLED = 10  # images after which people count
_PELVIS = SMPL24.index("pelvis")

# Joints (T, P, 24, 3) m of each image, and the fits that they come from.
Joints = Callable[[Fitter, list[Projections]], tuple[np.ndarray, list[BodyFit]]]


@torch.inference_mode()
def motion(options: Options) -> Iterator[Row]:
    """Compare single images, tracks without memory, and tracks with it."""
    motions = Motions.read(options.data / MOCAP, held=True)
    people = options.people or _PEOPLE
    projector = MotionProjector(body_model(), motions, options.seed, False, MOCAP_S)
    _, images = projector.draw_sequence(people, _IMAGES)
    truth = np.stack([image.joints.numpy() for image in images])
    for name, joints in _METHODS.items():
        found, fits = joints(fitter(options), images)
        yield Row(f"in motion, {name}",
                  f"{people} held-back mocap motions of {_IMAGES} images at 10 Hz, simulated noise "
                  f"of which a share lasts; pelvis-relative, from image {_SETTLED + 1} on",
                  _scores(found, truth, fits))


def _scores(found: np.ndarray, truth: np.ndarray, fits: list[BodyFit]) -> dict[str, float]:
    """Scores of joints (T, P, 24, 3) m, and of the fits that they come from."""
    late = slice(_SETTLED, None)
    ours, theirs = (np.stack([at_root(one, _PELVIS) for one in joints])
                    for joints in (found, truth))
    flat_ours, flat_theirs = (joints[late].reshape(-1, 24, 3) for joints in (ours, theirs))
    accelerations = [acceleration_error(ours[late, i], theirs[late, i], MOCAP_S)
                     for i in range(ours.shape[1])]
    scores = {"MPJPE, mm": 1000 * np.nanmean(mpjpe(flat_ours, flat_theirs)),
              "PA-MPJPE, mm": 1000 * np.nanmean(pa_mpjpe(flat_ours, flat_theirs)),
              "acceleration error, m/s^2": float(np.nanmean(accelerations)),
              "distance error, %": 100 * _distance_error(found[late], truth[late])}
    if fits:
        error = (found - truth)[late].reshape(-1, 3)
        cov = np.stack([fit.joint_cov.numpy() for fit in fits])[late].reshape(-1, 3, 3)
        scores |= {f"inside {share:.0%}": 100 * coverage(error, cov, share)
                   for share in (0.68, 0.95)}
        scores["change of the stature in the last second, %"] = 100 * stature_change(
            torch.stack([statures(fit.betas) for fit in fits]), round(1 / MOCAP_S))
    return scores


def stature_change(stature: Tensor, images: int) -> float:
    """Median relative change of statures (T, P), m, over the last images."""
    return float((stature[-1] / stature[-1 - images] - 1).abs().nanmedian())


def _distance_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Median relative error of the pelvis's distance from the camera."""
    distances = [np.linalg.norm(joints[..., _PELVIS, :], axis=-1) for joints in (found, truth)]
    return float(np.nanmedian(np.abs(distances[0] / distances[1] - 1)))


def _lift_joints(fitter: Fitter, lifted: Lifted) -> np.ndarray:
    """(P, 24, 3) m of the likeliest hypotheses."""
    best = lifted.select(lifted.logits.argmax(1))
    rotmats = rotmat_from_quat(best.theta)
    return pose_rig(fitter.model.rig(rotmats), rotmats, best.betas, best.root).joints.numpy()


def _lifted(with_memory: bool) -> Joints:
    def run(fitter: Fitter, images: list[Projections]) -> tuple[np.ndarray, list[BodyFit]]:
        state, found = None, []
        seconds = torch.full((len(images[0].root),), MOCAP_S)
        for image in images:
            lifted, state = fitter.lift.remember(image.points, image.cov, None, state, seconds)
            found.append(_lift_joints(fitter, lifted))
            state = state if with_memory else None
        return np.stack(found), []
    return run


def _fitted(follows: bool, with_memory: bool) -> Joints:
    def run(fitter: Fitter, images: list[Projections]) -> tuple[np.ndarray, list[BodyFit]]:
        fits = fitted(fitter, images, MOCAP_S, follows, with_memory)
        return np.stack([fit.joints.numpy() for fit in fits]), fits
    return run


def fitted(fitter: Fitter, images: list[Projections], interval_s: float, follows: bool = True,
           with_memory: bool = True) -> list[BodyFit]:
    """Fit bodies to each image.

    Args:
        follows: each fit starts from the one before.
        with_memory: the lift does, too.
    """
    previous, fits = None, []
    for number, image in enumerate(tqdm(images, "fitting", leave=False)):
        fits.append(fitter.fit(Sighting(image.points, image.cov), previous))
        if follows:
            previous = _previous(fits[-1], number + 1, interval_s, with_memory)
    return fits


def _previous(found: BodyFit, frames: int, interval_s: float, with_memory: bool) -> Previous:
    people = len(found.ok)
    seconds = torch.full((people,), interval_s)
    state = BodyState(*(value.double() for value in found.state))
    return Previous(state, seconds, torch.full((people,), frames), found.disagreement_s,
                    found.lift_state if with_memory else None, seconds)


_METHODS = {"lift of one image": _lifted(False), "lift with memory": _lifted(True),
            "fit of one image": _fitted(False, False), "fit, tracked": _fitted(True, False),
            "fit, tracked, lift with memory": _fitted(True, True)}

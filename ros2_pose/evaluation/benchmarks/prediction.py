"""Velocities of tracked people, and where they will be in half a second.

People of motion capture that is held back walk where their feet carry them, before cameras that
stand still. Bodies are fitted to keypoints with simulated noise, and filtered as the tracker does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.data.synthetic.motion import MotionProjector, Motions
from ros2_pose.evaluation.benchmarks.fitting import MOCAP, body_model, fitter
from ros2_pose.evaluation.benchmarks.motion import fitted
from ros2_pose.evaluation.harness import Options, Row
from ros2_pose.metrics.pose import coverage
from ros2_pose.skeleton import SMPL24
from ros2_pose.tracking.kalman import VelocityFilter
from ros2_pose.tracking.motion import filtered_joints, filtered_root, velocity_of

_PEOPLE, _DURATION_S = 80, 4.0
_LEAST_POSES = 45  # of a motion: none is played back
_RATES_HZ = (10, 30)
_AHEAD_S, _SETTLED_S = 0.5, 1.0
_VELOCITY_S = 0.1  # half the interval over which true velocities are averaged
_CONSTANT_VELOCITY = 1.0, 0.1  # speed, m/s, and process noise, m^2/s^3, of the baseline
_MOVING_M = 0.3  # in half a second: people who walk
_LIMBS = {"wrists": ("left_wrist", "right_wrist"), "ankles": ("left_ankle", "right_ankle")}


@torch.inference_mode()
def prediction(options: Options) -> Iterator[Row]:
    """Compare predictions of the root with those by a constant velocity; velocities of joints."""
    motions = Motions.read(options.data / MOCAP, held=True, poses=_LEAST_POSES)
    people = options.people or _PEOPLE
    for rate_hz in _RATES_HZ:
        projector = MotionProjector(body_model(), motions, options.seed, False, 1 / rate_hz, False)
        _, images = projector.draw_sequence(people, round(_DURATION_S * rate_hz))
        fits = fitted(fitter(options), images, 1 / rate_hz)
        joints = np.stack([image.joints.numpy() for image in images])
        protocol = (f"{people} held-back mocap motions of {_DURATION_S:g} s at {rate_hz} Hz, "
                    f"simulated noise of which a share lasts, after {_SETTLED_S:g} s")
        measured = [(fit.root.numpy(), fit.root_cov[:, :3, :3].numpy()) for fit in fits]
        yield Row(f"{_AHEAD_S:g} s ahead at {rate_hz} Hz",
                  f"{protocol}; median error of the pelvis's predicted displacement",
                  _predictions(measured, joints[:, :, 0], rate_hz), "15 % less than constant")
        measured = [(fit.joints.numpy(), fit.joint_cov.numpy()) for fit in fits]
        yield Row(f"velocities of joints at {rate_hz} Hz",
                  f"{protocol}; root mean square errors beside the true velocities, which are "
                  f"averaged over {2 * _VELOCITY_S:g} s",
                  _velocities(measured, joints, rate_hz))


Measured = list[tuple[np.ndarray, np.ndarray]]  # positions and covariances of each image


def _stamp(number: int, rate_hz: int) -> int:
    return round(1e9 * number / rate_hz)


def _predictions(measured: Measured, truth: np.ndarray, rate_hz: int) -> dict[str, float]:
    """Errors of predicted displacements of roots; truth (T, P, 3) m."""
    ahead = round(_AHEAD_S * rate_hz)
    true_step = (truth[ahead:] - truth[:-ahead])[round(_SETTLED_S * rate_hz):]
    is_moving = np.linalg.norm(true_step, axis=2) > _MOVING_M
    filters = {"reported": filtered_root, "constant velocity": _constant_velocity}
    scores = {"true displacement, mm": 1000 * np.median(np.linalg.norm(true_step, axis=2))}
    for name, update in filters.items():
        for rule, still_m_s in (("", PoseConfig().still_mps), (", all in motion", 0.0)):
            steps = _steps(measured, rate_hz, update, still_m_s)[:-ahead][-len(true_step):]
            error = np.linalg.norm(steps - true_step, axis=2)
            scores[f"{name}{rule}, mm"] = 1000 * np.median(error)
            if is_moving.any():
                scores[f"{name}{rule}, of those who walk, mm"] = 1000 * np.median(error[is_moving])
    return scores


Update = Callable[..., tuple[VelocityFilter, bool]]


def _constant_velocity(root: VelocityFilter | None, position: np.ndarray, cov: np.ndarray,
                       stamp: int, patience_s: float) -> tuple[VelocityFilter, bool]:
    """Like `filtered_root`, by the baseline, which has no gate."""
    if root is None:
        return VelocityFilter(position, cov, stamp, *_CONSTANT_VELOCITY), True
    root.update(position, cov, stamp)
    return root, False


def _steps(measured: Measured, rate_hz: int, update: Update, still_m_s: float) -> np.ndarray:
    """Displacements (T, P, 3), m, predicted at each image; see `velocity_of` for still_m_s."""
    filters: list[VelocityFilter | None] = [None] * len(measured[0][0])
    steps = np.zeros((len(measured), len(filters), 3))
    for number, (positions, covs) in enumerate(measured):
        stamp = _stamp(number, rate_hz)
        for row in range(len(filters)):
            motion, _ = update(filters[row], positions[row], covs[row], stamp, _SETTLED_S)
            filters[row] = motion
            if velocity_of(motion, still_m_s).any():
                ahead = stamp + round(1e9 * _AHEAD_S)
                steps[number, row] = motion.predicted(ahead)[0] - motion.predicted(stamp)[0]
    return steps


def _velocities(measured: Measured, truth: np.ndarray, rate_hz: int) -> dict[str, float]:
    """Errors of the velocities of joints; truth (T, P, 24, 3) m."""
    half = max(1, round(_VELOCITY_S * rate_hz))
    true = (truth[2 * half:] - truth[:-2 * half]) * rate_hz / (2 * half)
    filters: list[VelocityFilter | None] = [None] * truth.shape[1]
    found, cov = np.zeros_like(truth), np.zeros((*truth.shape, 3))
    for number, (positions, covs) in enumerate(measured):
        for row in range(truth.shape[1]):
            motion, _ = filtered_joints(filters[row], positions[row], covs[row],
                                        _stamp(number, rate_hz))
            filters[row] = motion
            found[number, row], cov[number, row] = motion.velocity, motion.velocity_cov
    late = slice(round(_SETTLED_S * rate_hz), -half)
    true = true[late.start - half:]
    error, cov = found[late] - true, cov[late]
    scores = {}
    for name, names in _LIMBS.items():
        rows = [SMPL24.index(one) for one in names]
        scores |= {f"{name}, m/s": _rms(error[:, :, rows]),
                   f"{name}, true, m/s": _rms(true[:, :, rows])}
    return scores | {f"inside {share:.0%}": 100 * coverage(error, cov, share)
                     for share in (0.68, 0.95)}


def _rms(vectors: np.ndarray) -> float:
    """Root mean square length of vectors (..., 3)."""
    return float(np.sqrt(np.square(vectors).sum(-1).mean()))

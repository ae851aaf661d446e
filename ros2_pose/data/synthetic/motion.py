"""Draws people who move before moving cameras, to train the lift's memory on.

Poses of motion capture are interpolated between its 10 Hz, so that images may come at any rate. All
random choices of a person (trials, perturbation, shape, heading, camera) are drawn anew for each
image from the same state of the generator, so that time alone changes them. A detector's errors
last, too: a share of each error, hidden keypoints and swapped sides stay for a while.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import quat_from_rotvec, rotmat_from_rotvec, rotvec_from_quat
from ros2_pose.data.mocap import held_back, mirrored, plausible, with_collars
from ros2_pose.data.synthetic.bodies import above_floor
from ros2_pose.data.synthetic.keypoints import Projections, Projector
from ros2_pose.errors import PoseError
from ros2_pose.skeleton import SMPL24

MOCAP_S = 0.1  # between poses of the motion capture
_LEAST_POSES = 5  # of a run that is drawn from
_INTERVAL_S = (1 / 45, 0.6)  # between images, log-uniform
_GAP_CHANCE, _LONGEST_GAP_S = 0.03, 2.0  # of images that are missing
_SOLES = [SMPL24.index(f"{side}_{joint}") for side in ("left", "right")
          for joint in ("ankle", "foot")]
_SPEEDS = (0.7, 1.3)  # of a motion, relative to the recorded one
_WALKS, _FASTEST_M_S = 0.5, 1.6  # share of the people who change position, along their heading
_DRIFTS, _DRIFT_M_S = 0.4, 0.5  # share of the cameras that move, and the std of their velocity
_CAMERA_TURNS, _TURN_RAD, _TURN_RAD_S = 0.3, 0.3, 2.0  # share, amplitude and highest frequency
_NEAREST_M = 0.8  # before the camera, along the floor
_EPISODE_S = 0.7  # mean time for which hidden keypoints, swaps and lasting errors stay


class Motions:
    """Runs of consecutive poses at 10 Hz.

    Attributes:
        quats (N, 24, 4): x, y, z, w; neighbours of a run lie on the same hemisphere.
        start, count (R,): first row of each run, and its poses.
    """

    def __init__(self, runs: list[np.ndarray]) -> None:
        """Join runs (T, 24, 3) of rotation vectors, rad.

        Raises:
            PoseError: runs is empty.
        """
        if not runs:
            raise PoseError(f"the motion capture has no run of {_LEAST_POSES} plausible poses: "
                            "give the poses of a trial after each other, at 10 Hz")
        quats = [_continuous(quat_from_rotvec(torch.from_numpy(run).float())) for run in runs]
        self.quats = torch.cat(quats)
        self.count = torch.tensor([len(run) for run in runs])
        self.start = self.count.cumsum(0) - self.count

    @staticmethod
    def read(mocap: str | Path, held: bool = False, poses: int = _LEAST_POSES) -> Motions:
        """Read the plausible runs of motion capture, and the same mirrored.

        Args:
            mocap, held: see `bodies.read_poses`.
            poses: least length of a run.
        """
        with np.load(mocap, allow_pickle=False) as file:
            source, theta = file["src"], file["theta"].astype(np.float64)
        usable = (held_back(source) == held) & plausible(theta)
        ends = np.flatnonzero((source[1:] != source[:-1]) | ~usable[1:] | ~usable[:-1]) + 1
        runs = [run for run in np.split(np.arange(len(theta)), ends)
                if usable[run].all() and len(run) >= poses]
        theta_of_runs = [with_collars(theta[run]) for run in runs]
        return Motions([*theta_of_runs, *map(mirrored, theta_of_runs)])

    def at(self, run: Tensor, seconds: Tensor) -> Tensor:
        """Interpolate poses.

        Args:
            run (P,): index of a run.
            seconds (P,): since its first pose; beyond its ends it is played back and forth.
        Returns:
            (P, 24, 3) rotation vectors, rad.
        """
        quats = self.interpolate(self.quats, run, seconds)
        return rotvec_from_quat(torch.nn.functional.normalize(quats, dim=2))

    def interpolate(self, values: Tensor, run: Tensor, seconds: Tensor) -> Tensor:
        """Interpolate values (N, ...) of the poses linearly in time; for run and seconds see `at`.
        """
        last = (self.count[run] - 1).to(seconds)
        phase = (seconds / MOCAP_S).remainder(2 * last)
        position = torch.minimum(phase, 2 * last - phase)
        before = torch.minimum(position.floor(), last - 1)
        row = self.start[run] + before.long()
        share = (position - before).view(-1, *[1] * (values.dim() - 1))
        return torch.lerp(values[row], values[row + 1], share)

    def walked(self, joints: Tensor) -> Tensor:
        """Integrate the pelvis's path: the lowest sole stands still on the floor.

        Args:
            joints (N, 24, 3): m from the pelvis, y up, of all poses.
        Returns:
            (N, 3) m, level, relative to where the run of each pose begins.
        """
        soles = joints[:, _SOLES]
        lowest = (soles[1:, :, 1] + soles[:-1, :, 1]).argmin(1)
        step = (soles[:-1] - soles[1:])[torch.arange(len(lowest)), lowest]
        path = torch.cat([torch.zeros_like(step[:1]), step]).cumsum(0)
        path = path - path[self.start].repeat_interleave(self.count, 0)
        return path * torch.tensor([1.0, 0.0, 1.0])


def _continuous(quats: Tensor) -> Tensor:
    """Choose the signs of quats (T, 24, 4) such that each lies near the one before."""
    agrees = (quats[1:] * quats[:-1]).sum(2, keepdim=True) >= 0
    signs = torch.where(agrees, 1.0, -1.0).cumprod(0)
    return torch.cat([quats[:1], signs * quats[1:]])


class MotionProjector(Projector):
    """Draws people in motion and projects them at several times.

    Args:
        motions: runs of poses.
        vary: False draws them unchanged: people walk where their feet carry them.
        interval_s: between all images; None: it varies, and there are gaps.
        cameras_move: False: all of them stand still.
    """

    def __init__(self, model: BodyModel, motions: Motions, seed: int = 0, vary: bool = True,
                 interval_s: float | None = None, cameras_move: bool = True) -> None:
        super().__init__(model, motions.quats[..., :3], seed, vary)
        self.motions, self.interval_s, self.cameras_move = motions, interval_s, cameras_move
        self._walked_m = None if vary else motions.walked(
            self._joints(rotvec_from_quat(motions.quats)))
        self._elapsed = self._duration = torch.zeros(0)  # (P,) s, of the images that are drawn
        self._place = torch.zeros(0, 3)  # (P, 3) m, along the recorded paths

    def draw_sequence(self, people: int,
                      steps: int) -> tuple[Tensor, list[Projections]]:
        """Draw a number of people at consecutive times.

        Returns:
            seconds (T, P) between each image and the one before, 0 for the first; and T
            projections of the P people.
        """
        seconds = self._intervals(people, steps)
        self._duration = seconds.sum(0)
        person = self.random.get_state()  # draws the same people for each image
        self._elapsed = torch.zeros(people)
        first = self.rotvecs(people)
        first_height, first_place = above_floor(self._joints(first)), self._place
        episode: tuple[Tensor, ...] | None = None
        images: list[Projections] = []
        for elapsed, interval in zip(seconds.cumsum(0), seconds):
            noise = self.random.get_state()
            self.random.set_state(person)
            truth = self._at(elapsed, first[:, 0], first_height, first_place)
            if images:
                self.random.set_state(noise)
            episode = self._episode(truth, interval, episode)
            points, cov = self._with_episode(truth.points, *episode)
            images.append(truth._replace(points=points, cov=cov))
        return seconds, images

    def drawn(self, people: int) -> Tensor:
        """(P, 24, 3) rotation vectors, rad, of random motions at the time that is drawn."""
        run, seconds = self._drawn_time(people)
        if self._walked_m is not None:
            self._place = self.motions.interpolate(self._walked_m, run, seconds)
        return self.motions.at(run, seconds)

    def _drawn_time(self, people: int) -> tuple[Tensor, Tensor]:
        """Draw runs (P,), and times (P,), s, in them: all images lie in a run if they can."""
        run = torch.randint(len(self.motions.count), (people,), generator=self.random)
        speed = self.uniform(*_SPEEDS, people) if self.vary else 1.0
        spare = MOCAP_S * (self.motions.count[run] - 1) - speed * self._duration
        start = self.uniform(0.0, 1.0, people) * spare.clamp(min=0)
        return run, start + speed * self._elapsed

    def _intervals(self, people: int, steps: int) -> Tensor:
        """(T, P) s between images: at a rate of its own for each person, with some gaps."""
        if self.interval_s is not None:
            seconds = torch.full((steps, people), self.interval_s)
        else:
            shortest, longest = _INTERVAL_S
            interval = self.uniform(math.log(shortest), math.log(longest), people).exp()
            seconds = interval * self.uniform(0.9, 1.1, steps, people)
            is_gap = torch.rand(steps, people, generator=self.random) < _GAP_CHANCE
            seconds += is_gap * self.uniform(0.0, _LONGEST_GAP_S, steps, people)
        seconds[0] = 0.0
        return seconds

    def _at(self, elapsed: Tensor, first_pelvis: Tensor, first_height: Tensor,
            first_place: Tensor) -> Projections:
        """People after `elapsed` (P,) s; points are without errors.

        Args:
            first_pelvis (P, 3): rotation vectors, rad, of their first image.
            first_height (P,): m, of the pelvis above the floor in it.
            first_place (P, 3): m, along the recorded path, in it.
        """
        people = len(elapsed)
        self._elapsed = elapsed
        rotvecs, betas = self.rotvecs(people), self.betas(people)
        joints = self._joints(rotvecs)
        position, to_camera = self.views(first_height)
        position[:, 1] += above_floor(joints) - first_height
        path = (self._place - first_place if self._walked_m is not None
                else self._path(first_pelvis, elapsed))
        position = position + self._before_camera_only(position, path + self._drift(elapsed))
        to_camera = to_camera @ self._camera_turn(elapsed)
        rotmats = rotmat_from_rotvec(rotvecs)
        pelvis, root = self._placed(rotmats[:, 0], joints, position, to_camera)
        rotmats = torch.cat([pelvis[:, None], rotmats[:, 1:]], 1)
        posed = pose_rig(self.model.rig(betas), rotmats, betas, root)
        truth = self._as_labelled(posed.keypoints, posed.joints)
        points = truth[..., :2] / truth[..., 2:]
        return Projections(points, points, rotmats, betas, root, posed.joints, posed.keypoints)

    def _joints(self, rotvecs: Tensor) -> Tensor:
        """(P, 24, 3) m, world frame, of bodies of mean shape with the pelvis at the origin."""
        rotmats = rotmat_from_rotvec(rotvecs)
        zero = rotvecs.new_zeros(len(rotvecs), 10)
        return pose_rig(self.model.rig(zero), rotmats, zero, zero[:, :3]).joints

    def _path(self, pelvis: Tensor, elapsed: Tensor) -> Tensor:
        """Displacements (P, 3) m, y up, since the first image, at a constant velocity.

        Args:
            pelvis (P, 3): rotation vector, rad, of which the first image's heading is walked along.
        """
        people = len(elapsed)
        direction = rotmat_from_rotvec(pelvis)[:, :, 2]  # ahead
        speed = self.uniform(0.0, _FASTEST_M_S, people) * self.chance(_WALKS, people)
        return speed[:, None] * direction * elapsed[:, None]

    def _drift(self, elapsed: Tensor) -> Tensor:
        """Displacements (P, 3) m of the person relative to a camera that moves."""
        people = len(elapsed)
        drifts = self.chance(_DRIFTS, people)[:, None] & torch.tensor(self.cameras_move)
        return _DRIFT_M_S * self.normal(people, 3) * drifts * elapsed[:, None]

    @staticmethod
    def _before_camera_only(position: Tensor, step: Tensor) -> Tensor:
        """Steps (P, 3) m from positions (P, 3), level and not into the camera."""
        ahead = position[:, 2] + step[:, 2]  # negative in front of the camera
        nearest = (-_NEAREST_M - position[:, 2]).clamp(min=0)
        return torch.stack([step[:, 0], torch.zeros_like(ahead),
                            torch.where(ahead > -_NEAREST_M, nearest, step[:, 2])], 1)

    def _camera_turn(self, elapsed: Tensor) -> Tensor:
        """(P, 3, 3) rotation of the world about the vertical axis since the first image."""
        people = len(elapsed)
        turns = self.chance(_CAMERA_TURNS, people) & torch.tensor(self.cameras_move)
        amplitude = self.uniform(-_TURN_RAD, _TURN_RAD, people) * turns
        phase = self.uniform(0.0, 2 * math.pi, people)
        angle = amplitude * ((self.uniform(0.0, _TURN_RAD_S, people) * elapsed + phase).sin()
                             - phase.sin())
        axis = torch.tensor([0.0, 1.0, 0.0])
        return rotmat_from_rotvec(angle[:, None] * axis)

    # ------------------------------------------------------------------------- detection

    def _episode(self, truth: Projections, interval: Tensor,
                 before: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        """Keep the disturbance of the image before, or draw another one after a while.

        Args:
            interval (P,): s, since the image before.
            before: its std, error, seen, order (see `_disturbance`), and lasting (P, 1, 1), the
                share of the error's variance that stays within an episode.
        """
        people = len(interval)
        fresh = (*self._disturbance(truth.points), self.uniform(0.2, 0.95, people, 1, 1))
        ends = torch.rand(people, generator=self.random) < 1 - (-interval / _EPISODE_S).exp()
        if before is None:
            return fresh
        return tuple(torch.where(ends.view(-1, *[1] * (new.dim() - 1)), new, old)
                     for new, old in zip(fresh, before))

    def _with_episode(self, points: Tensor, std: Tensor, error: Tensor, seen: Tensor,
                      order: Tensor, lasting: Tensor) -> tuple[Tensor, Tensor]:
        """Detected keypoints (P, 17, 2) and covariances: a lasting and an independent error."""
        own = std * self.normal(*std.shape)
        error = lasting.sqrt() * error + (1 - lasting).sqrt() * own
        return self._measured(points, std, error, seen, order)

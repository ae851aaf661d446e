"""Whatever the lens, the mounting, the rate and the number of people: the same people.

Crossed through the pipeline: people x lens x depth x mounting x rate, each with people who come,
leave, stay away and come back. What must hold is in `_check`. The suite runs a part in which every
two values meet; `make matrix` runs all combinations.

The made-up network finds people only in frames that are upright, as real networks do. Where people
are in a picture is computed by OpenCV in the frame as it was taken, and moved to the frame that the
network is given by the definition of np.rot90.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.data.synthetic.depth_camera import depth_image
from ros2_pose.messages.people import STATUS_OK, has_body, status_of
from ros2_pose.people import LOST, TRACKED, Frame, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import SMPL24

WIDTH, HEIGHT, FOCAL, CENTRE = 1280, 960, 500.0, (652.0, 471.0)
STD_PX = 1.5
K = np.array([[FOCAL, 0, CENTRE[0] - 0.5], [0, FOCAL, CENTRE[1] - 0.5], [0, 0, 1]])
_PRISM = (-0.12, 0.02, 1e-3, -5e-4, 0.0, 0.01, 0.0, 0.0, 2e-3, -1e-3, 1e-3, 5e-4)
LENSES = {
    "none": ((), False),
    "plumb_bob": ((-0.12, 0.02, 1e-3, -5e-4, 0.0), False),
    "rational": ((0.4, 0.05, 1e-3, -5e-4, 0.01, 0.6, 0.1, 0.02), False),
    "thin prism": (_PRISM, False),
    "tilted": ((*_PRISM, 0.02, -0.01), False),
    "equidistant 0": ((0.0,) * 4, True),
    "equidistant": ((0.05, 0.01, 0.002, -0.001), True),
    "equidistant, large": ((-0.15, 0.08, -0.03, 0.005), True),
}
# roll of the camera, degrees clockwise as seen from behind, and the quarter turns of np.rot90
# after which its pictures are upright
MOUNTINGS = {"level": (0.0, 0), "upside down": (180.0, 2), "on its right side": (90.0, 3),
             "on its left side": (-90.0, 1), "tilted by 20 degrees": (20.0, 0)}
PEOPLE, RATES, DEPTHS = (0, 1, 2, 30), (0.5, 3.0, 10.0, 60.0), (False, True)
LOST_S = 0.6


@dataclass(frozen=True)
class Case:
    """One combination."""

    people: int
    lens: str
    depth: bool
    mounting: str
    rate: float

    def __str__(self) -> str:
        depth = "depth, " * self.depth
        return f"{self.people}, {self.lens}, {depth}{self.mounting}, {self.rate:g} Hz"


ALL = [Case(*values) for values in
       itertools.product(PEOPLE, LENSES, DEPTHS, MOUNTINGS, RATES)]


def every_pair(cases: list, rng: np.random.Generator, values=lambda case: vars(case).values()):
    """Few of the cases, among which every two values of two dimensions meet (greedy choice)."""
    def pairs(case):
        return set(itertools.combinations(enumerate(values(case)), 2))

    open_pairs = set().union(*(pairs(case) for case in cases))
    chosen = []
    while open_pairs:
        candidates = [cases[i] for i in rng.choice(len(cases), 200)]
        best = max(candidates, key=lambda case: len(pairs(case) & open_pairs))
        if pairs(best) & open_pairs:
            chosen.append(best)
            open_pairs -= pairs(best)
    return chosen


CASES = ALL if os.environ.get("ROS2_POSE_MATRIX") else every_pair(ALL, np.random.default_rng(0))


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(PoseConfig(device="cpu"))


@cache
def _scene(count: int) -> BodyState:
    """People who stand side by side in an upright camera's frame, some of them on a gallery."""
    theta = torch.zeros(count, 24, 4)
    theta[..., 3] = 1
    for joint, sign in (("left_shoulder", -1.0), ("right_shoulder", 1.0)):
        theta[:, SMPL24.index(joint)] = torch.tensor([0.0, 0.0, sign * 0.6, 0.8])
    for row in range(count):
        facing = Rotation.from_euler("x", np.pi) * Rotation.from_euler("y", 0.4 * (row % 3 - 1))
        theta[row, 0] = torch.from_numpy(facing.as_quat())
    root = torch.zeros(count, 3)
    for row in range(count):
        column, gallery = divmod(row, 2)
        root[row] = torch.tensor([0.8 * (column - (count - 1) // 4), 0.5 - 3.0 * gallery,
                                  7.0 + gallery + 0.1 * (column % 2)])
    if count <= 2:
        root *= 0.5
    return BodyState(theta, torch.zeros(count, 10), root)


def _taken_from_upright(case: Case) -> Rotation:
    """The rotation from the level camera's frame to that of the camera as mounted: a camera rolled
    clockwise as seen from behind sees the world rolled counter-clockwise."""
    return Rotation.from_euler("z", -MOUNTINGS[case.mounting][0], degrees=True)


def _pixels(points: np.ndarray, lens: str) -> np.ndarray:
    """OpenCV's pixels (..., 2) of points (..., 3) m in the camera's frame, first centre at 0.5."""
    coefficients, fisheye = LENSES[lens]
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    flat = np.ascontiguousarray(points.reshape(-1, 1, 3))
    found = project(flat, np.zeros(3), np.zeros(3), K, np.array(coefficients or (0.0,) * 4))[0]
    return found.reshape(*points.shape[:-1], 2) + 0.5


class MadeUpNetwork:
    """Finds the people of a case, where the frame that it is given is upright."""

    search_parts, rotation_std = 0, None

    def __init__(self, case: Case, body):
        state = _scene(case.people)
        keypoints = body(*state, with_vertices=False).keypoints.numpy().astype(float)
        taken = _taken_from_upright(case).apply(keypoints.reshape(-1, 3)).reshape(keypoints.shape)
        self.taken_px = _pixels(taken, case.lens) if case.people else np.zeros((0, 17, 2))
        self.turns = MOUNTINGS[case.mounting][1]
        self.present = True

    def configure(self, score_threshold, max_people):
        """Find everyone, whatever is asked for."""

    def detect(self, frames):
        return [self._detect(frame) for frame in frames]

    def _detect(self, frame: Frame) -> People:
        height, width = frame.image.shape[:2]
        upright = frame.image[0].astype(int).mean() < frame.image[-1].astype(int).mean() - 100
        if not upright or not self.present:
            return People.nobody()
        x, y = np.moveaxis(self.taken_px, -1, 0)
        x, y = {0: (x, y), 1: (y, height - x), 2: (width - x, height - y),
                3: (width - y, x)}[self.turns]
        points = np.stack([x, y], -1)
        assert ((points > 0) & (points < (width, height))).all(), "the scene is within the picture"
        boxes = np.concatenate([points.min(1), points.max(1)], 1)
        cov = np.tile(STD_PX**2 * np.eye(2), (len(points), 17, 1, 1))
        return People(boxes, np.full(len(points), 0.9), points, cov, np.full(points.shape[:2], 0.9))


def _picture(case: Case) -> np.ndarray:
    """As taken: dark above and light below in the upright one."""
    turns = MOUNTINGS[case.mounting][1]
    size = (WIDTH, HEIGHT) if turns % 2 else (HEIGHT, WIDTH)
    column = np.linspace(0, 255, size[0]).astype(np.uint8)
    upright = np.tile(column[:, None, None], (1, size[1], 3))
    return np.ascontiguousarray(np.rot90(upright, -turns))


@cache
def _depth(people: int, lens: str, mounting: str, body) -> np.ndarray:
    state = _scene(people)
    rotation = _taken_from_upright(Case(people, lens, True, mounting, 1.0))
    theta = state.theta.clone()
    for row in range(people):
        root = rotation * Rotation.from_quat(theta[row, 0].numpy())
        theta[row, 0] = torch.from_numpy(root.as_quat())
    root = torch.from_numpy(rotation.apply(state.root.numpy()).reshape(-1, 3)).float()
    if not people:
        return np.full((HEIGHT, WIDTH), 15.0, np.float32)
    camera = Camera.from_opencv(WIDTH, HEIGHT, K, *LENSES[lens])
    return depth_image(body, BodyState(theta, state.betas, root), camera, wall=15.0)


def _film(case: Case, pipeline) -> list[tuple[str, float, People]]:
    """What the pipeline says: (phase, s since it began, people) of each image."""
    pipeline.reset()
    pipeline.configure(PoseConfig(
        device="cpu", camera_roll_deg=MOUNTINGS[case.mounting][0], lost_s=LOST_S, max_people=40))
    pipeline.reset()
    pipeline.network = network = MadeUpNetwork(case, pipeline.body)
    camera = Camera.from_opencv(WIDTH, HEIGHT, K, *LENSES[case.lens])
    depth = _depth(case.people, case.lens, case.mounting, pipeline.body) if case.depth else None
    picture, film, stamp = _picture(case), [], 10**9
    away = int(np.ceil(max(LOST_S, 2.5 / case.rate) * case.rate)) + 2
    for phase, images in (("present", 6), ("gone", away), ("back", 5)):
        network.present = phase != "gone"
        began = stamp
        for _ in range(images):
            people = pipeline.step(Frame(picture, camera, stamp, depth))
            film.append((phase, (stamp - began) * 1e-9, people))
            stamp += round(1e9 / case.rate)
    return film


_PROMISED = ("boxes", "scores", "theta", "betas", "root", "root_cov", "joints", "joint_cov", "age")


def _check(case: Case, film: list[tuple[str, float, People]]) -> None:
    interval = 1 / case.rate
    for phase, seconds, people in film:
        assert status_of(people) == STATUS_OK, people.note
        assert all(np.isfinite(getattr(people, name)).all() for name in _PROMISED)
        assert all(has_body(people, row) for row in range(len(people)))
        seen = people.tracking_state != LOST
        assert np.isfinite(people.keypoints[seen]).all() and len(set(people.ids)) == len(people)
        if phase != "gone":
            assert seen.sum() == case.people
        else:
            assert not seen.any()
            if seconds > max(LOST_S, 2.5 * interval) + interval:
                assert len(people) == 0  # an end comes also to those whom nobody sees go
    present, back = ([people for name, _, people in film if name == phase]
                     for phase in ("present", "back"))
    for part in (present, back):
        assert len({frozenset(people.ids) for people in part}) == 1
        assert (part[-1].tracking_state == TRACKED).all()
        assert np.isfinite(part[-1].velocity).all()
        assert np.linalg.norm(part[-1].velocity, axis=1).max(initial=0) < 0.1
    assert set(back[-1].ids) == set(present[-1].ids)  # within seconds, at the same position


_REFERENCES: dict[tuple, np.ndarray] = {}


def _roots(case: Case, film) -> np.ndarray:
    """(P, 3) of the last image, in the level camera's frame, in the order of the scene."""
    people = film[-1][2]
    roots = _taken_from_upright(case).inv().apply(people.root.reshape(-1, 3)).reshape(-1, 3)
    truth = _scene(case.people).root.numpy()
    order = [int(np.linalg.norm(roots[:, :2] / roots[:, 2:] - t[:2] / t[2], axis=1).argmin())
             for t in truth]
    assert len(set(order)) == case.people
    return roots[order]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_same_people_come_out(case, pipeline):
    film = _film(case, pipeline)
    _check(case, film)
    if not case.people:
        return
    key = case.people, case.depth, case.rate
    if key not in _REFERENCES:
        plain = Case(case.people, "none", case.depth, "level", case.rate)
        _REFERENCES[key] = _roots(plain, _film(plain, pipeline))
    roots, reference = _roots(case, film), _REFERENCES[key]
    off = np.linalg.norm(roots - reference, axis=1) / np.linalg.norm(reference, axis=1)
    assert np.median(off) < 0.01 and off.max() < 0.04, off
    if case.depth:
        truth = _scene(case.people).root.numpy()
        assert np.abs(roots[:, 2] - truth[:, 2]).max() < 0.15

"""What several cameras are worth: people put together and fused, against one camera alone.

    python -m ros2_pose.evaluation.benchmarks.multiview [--data DIR] [--rows video,crowd]

video: the Pose2Sim clips, which four calibrated cameras took together; the whole pipeline but the
network, which sees each image once. crowd: bodies of motion capture held back from all training, in
a room with cameras in its corners, as a detector might see them: noise of the kind that `Lift`
learns from, people missed, hidden behind others, and made up. Each moment by itself, nothing
tracked. Rows whose data is not there say so in the table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ros2_pose.body.fitter import BodyFit, Fitter, Sighting
from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.lift import Lift
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.benchmarks import video
from ros2_pose.evaluation.benchmarks.body import Row, table
from ros2_pose.evaluation.metrics.pose import at_root, coverage, distances, mpjpe, pa_mpjpe
from ros2_pose.geometry import rotmat_from_rotvec
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.multiview.fusion import Fuser, View
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import INFERRED, LOST, Frame, People
from ros2_pose.skeleton import SMPL24

_MOCAP = "mocap/cmu_theta_10hz.npz"
_CLIPS = tuple(f"devset/videos/p2s_single_cam0{number}" for number in range(1, 5))
_NEAR_M = 0.5  # a body that is further from the true one in the mean is another person's
_HIPS = (0, 1)
_SHARES = (0.68, 0.95)
_COMPARED = [SMPL24.index(name) for name in video.JOINTS]


@dataclass(frozen=True)
class MultiviewBenchmark:
    """What is measured, and on how much."""

    data: Path
    frames: int = 100  # of each clip
    moments: int = 100  # made up
    people: int = 5  # at once
    seed: int = 0


# ---------------------------------------------------------------------------------- video


class _Recorded:
    """A network that has looked already: says of each image what it said then."""

    rotation_std = None

    def __init__(self, people: dict[int, People]):
        self.people = people

    def configure(self, score_threshold: float, max_people: int) -> None:
        """Keep the people as they were found."""

    def detect(self, frames: list[Frame]) -> list[People]:
        """By the number that an image's first pixels hold."""
        return [self.people[_number_in(frame.image)] for frame in frames]


def _blank(camera: Camera, number: int) -> np.ndarray:
    """An image that holds a number, as four bytes."""
    image = grey_ramp(camera.width, camera.height)
    image[0, :4, 0] = np.frombuffer(np.int32(number).tobytes(), np.uint8)
    return image


def _number_in(image: np.ndarray) -> int:
    return int(np.frombuffer(image[0, :4, 0].tobytes(), np.int32)[0])


def clips(bench: MultiviewBenchmark) -> Iterator[Row]:
    """Pixels to bodies on calibrated video, by one camera and by several."""
    scenes = [video.read_clip(bench.data / f"{name}.json") for name in _CLIPS]
    pipelines = {count: MultiPipeline(count) for count in range(1, len(scenes) + 1)}
    network = pipelines[1].cameras[0].network
    seen: dict[int, People] = {}
    for camera, clip in enumerate(scenes):
        shots = islice(VideoSource(clip.video, clip.camera), bench.frames)
        for number, shot in enumerate(tqdm(shots, clip.video.stem, bench.frames)):
            seen[camera * bench.frames + number] = network.detect([shot.frame])[0]
    for count, pipeline in pipelines.items():
        for camera in pipeline.cameras:
            camera.network = _Recorded(seen)
        scores = [_follow(pipeline, [scenes[n] for n in chosen], chosen, bench)
                  for chosen in combinations(range(len(scenes)), count)]
        yield _clip_row(count, np.mean(scores, 0), len(scores), bench)


def _follow(pipeline: MultiPipeline, scenes: list[video.Clip], chosen: tuple[int, ...],
            bench: MultiviewBenchmark) -> list[float]:
    """Figures of one choice of cameras: errors in m, shares, and what the covariances hold."""
    pipeline.reset()
    truth = scenes[0].camera_to_scene.apply(scenes[0].poses)
    found, errors, covs = [], [], []
    for number, pose in enumerate(truth[:bench.frames]):
        frames = [Frame(_blank(clip.camera, camera * bench.frames + number), clip.camera,
                        round(number * clip.seconds * 1e9),
                        camera_to_fixed=clip.camera_to_scene)
                  for camera, clip in zip(chosen, scenes)]
        people = pipeline.step(frames).people
        row = _nearest(people, pipeline.cameras[0].body, pose)
        found.append(np.full_like(pose, np.nan) if row is None else row[1])
        if row is not None:
            errors.append(people.joints[row[0], _COMPARED] - pose)
            covs.append(people.joint_cov[row[0], _COMPARED])
    found, truth = np.array(found), truth[:bench.frames]
    meaning = pipeline.fuser.fitter.settings.keypoint_error_m**2 * np.eye(3)
    covered = [coverage(np.array(errors), np.array(covs) + meaning, share) for share in _SHARES]
    return [np.nanmean(mpjpe(found, truth)), np.nanmean(mpjpe(found, truth, *_HIPS)),
            np.nanmean(pa_mpjpe(found, truth)), np.isfinite(found).all((1, 2)).mean(), *covered]


def _nearest(people: People, body: BodyModel, truth: np.ndarray) -> tuple[int, np.ndarray] | None:
    """The row and the keypoints (12, 3) of who is nearest to a true pose (12, 3), if anybody is."""
    rows = np.flatnonzero(people.tracking_state != LOST) if people.root is not None else []
    if not len(rows):
        return None
    state = (torch.from_numpy(getattr(people, name)[rows]) for name in ("theta", "betas", "root"))
    poses = body(*state, with_vertices=False).keypoints.numpy()[:, video.OURS]
    apart = np.nanmean(np.linalg.norm(poses - truth, axis=2), 1)
    # One camera may be wrong by much in distance.
    best = int(np.nanargmin(apart))
    return (int(rows[best]), poses[best]) if apart[best] < 2 * _NEAR_M else None


def _clip_row(count: int, score: np.ndarray, choices: int, bench: MultiviewBenchmark) -> Row:
    metres, shares = 1000 * score[:3], 100 * score[3:]
    return Row(f"video, {count} camera{'s' * (count > 1)}",
               f"Pose2Sim, first {bench.frames} frames, mean of {choices} choice(s) of cameras, "
               "pixels to joints, causal; MPJPE absolute / about the middle of the hips / PA, 12 "
               "joints, mm; frames found; joints inside the 68 / 95 % ellipsoids (and 3 cm that a "
               "keypoint's meaning is uncertain by)",
               "{:.0f} / {:.0f} / {:.0f}; {:.0f} %; {:.0f} / {:.0f}".format(*metres, *shares))


# ---------------------------------------------------------------------------------- crowd

_ROOM_M, _CORNER_M = 2.0, 4.0  # people stand within, cameras in the corners of (half a side)
_CAMERA = Camera.from_fov(1280, 720, 80.0)
_HEIGHTS_M = (1.2, 2.5)  # of cameras
_LEAST_APART_M = 0.6
_MISSED, _MADE_UP = 0.08, 0.3  # shares of people in a view, and of moments with someone made up
_HIDDEN_RAD = 0.06  # someone behind another within it is not found
_Y_UP_TO_Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


class Crowd(NamedTuple):
    """P people in a room, z up, and what V cameras find of them."""

    joints: np.ndarray  # (P, 24, 3) m
    poses: np.ndarray  # (V, 4, 4)
    who: list[np.ndarray]  # of each view (N,) the person that each found is; -1: made up
    points: list[torch.Tensor]  # (N, 17, 2) rays
    cov: list[torch.Tensor]  # (N, 17, 2, 2)


def crowd(projector: Projector, people: int, cameras: int, rng: np.random.Generator) -> Crowd:
    """A moment in a room."""
    rotvecs, betas = projector.rotvecs(people + 1), projector.betas(people + 1)
    yaw = torch.from_numpy(rng.uniform(-np.pi, np.pi, people + 1)).float()
    rotmat = rotmat_from_rotvec(torch.stack([0 * yaw, 0 * yaw, yaw], 1)) @ _Y_UP_TO_Z_UP
    rotmats = rotmat_from_rotvec(rotvecs)
    rotmats[:, 0] = rotmat @ rotmats[:, 0]
    rig = projector.model.rig(betas)
    posed = pose_rig(rig, rotmats, betas, betas.new_zeros(people + 1, 3))
    shift = torch.from_numpy(_places(people + 1, rng)).float()
    shift[:, 2] = -posed.joints[..., 2].amin(1)
    keypoints, joints = (value + shift[:, None] for value in (posed.keypoints, posed.joints))
    poses = np.stack([_corner(number, rng) for number in range(cameras)])
    ghost = rng.integers(cameras) if rng.random() < _MADE_UP else -1
    views = [_found(projector, keypoints, joints, pose, rng, number == ghost)
             for number, pose in enumerate(poses)]
    return Crowd(joints[:people].numpy(), poses, *map(list, zip(*views)))


def _places(people: int, rng: np.random.Generator) -> np.ndarray:
    """(P, 3) m on the floor, nobody in another."""
    positions = np.zeros((0, 3))
    while len(positions) < people:
        position = np.append(rng.uniform(-_ROOM_M, _ROOM_M, 2), 0.0)
        if (np.linalg.norm(positions - position, axis=1) > _LEAST_APART_M).all():
            positions = np.concatenate([positions, position[None]])
    return positions


def _corner(number: int, rng: np.random.Generator) -> np.ndarray:
    """(4, 4) a camera in a corner of the room, that looks to the middle."""
    angle = np.pi / 2 * number + np.pi / 4 + rng.normal(0, 0.15)
    position = np.append(_CORNER_M * np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)]),
                      rng.uniform(*_HEIGHTS_M))
    forward = np.array([0.0, 0.0, 1.0]) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = position
    return pose


def _found(projector: Projector, keypoints: torch.Tensor, joints: torch.Tensor, pose: np.ndarray,
           rng: np.random.Generator,
           with_ghost: bool) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """What a camera finds; the last person is not there, and at most made up."""
    rotmat, centre = (torch.from_numpy(value).float() for value in (pose[:3, :3], pose[:3, 3]))
    local, local_joints = ((value - centre) @ rotmat for value in (keypoints, joints))
    points, cov = projector.detected(local, local_joints)
    pixels = _CAMERA.project(local.numpy())
    inside = ((pixels > 0) & (pixels < (_CAMERA.width, _CAMERA.height))).all(2)
    points = torch.where(torch.from_numpy(inside)[..., None], points, torch.nan)
    middle = local.mean(1).numpy()
    bearing, far = middle[:, 0] / middle[:, 2], middle[:, 2]
    before = (np.abs(bearing[:, None] - bearing) < _HIDDEN_RAD) & (far[:, None] > far)
    chance = rng.random(len(far))
    shown = ~before[:, :-1].any(1) & (chance > _MISSED) & (inside.sum(1) >= 8)
    shown[-1] = with_ghost and inside[-1].sum() >= 8
    rows = np.flatnonzero(shown)
    return np.where(rows == len(far) - 1, -1, rows), points[rows], cov[rows]


def crowds(bench: MultiviewBenchmark) -> Iterator[Row]:
    """Made-up people in a room: who is who, and where their joints are."""
    model = BodyModel.load()
    fitter = Fitter(model, PosePrior.load(), Lift.load())
    projector = Projector(model, read_poses(bench.data / _MOCAP, held=True), bench.seed, vary=False)
    for cameras in (2, 3, 4):
        rng = np.random.default_rng(bench.seed + cameras)
        scores = [_score(fitter, crowd(projector, bench.people, cameras, rng))
                  for _ in tqdm(range(bench.moments), f"{cameras} cameras")]
        yield _crowd_row(cameras, scores, bench)


class _Outcome(NamedTuple):
    """Of one moment."""

    pairs: np.ndarray  # put together, of these rightly, to be put together
    duplicates: int  # people found more than once, the more
    present: int  # people seen by any camera
    errors: np.ndarray  # (M, 24, 3) m of people fused from two views and more
    covs: np.ndarray  # (M, 24, 3, 3)
    single: np.ndarray  # (S, 24, 3) m of all single views


def _score(fitter: Fitter, moment: Crowd) -> _Outcome:
    views = [_view(fitter, points, cov, pose)
             for points, cov, pose in zip(moment.points, moment.cov, moment.poses)]
    fuser = Fuser(fitter)
    rows = fuser.associate(views)
    people, _ = fuser.fuse(views, rows)
    who = np.stack([np.where(column >= 0, np.append(of, -2)[column], -2)
                    for of, column in zip(moment.who, rows.T)], 1)  # -2: nobody there
    pairs = np.array([*_pairs(who), sum(count * (count - 1) // 2
                                        for count in _counts(who).values())])
    counts = np.array([(who == person).any(1).sum() for person in _counts(who)])
    of = who.max(1)
    fused = ((who >= 0).sum(1) > 1) & (of >= 0)
    single = [view.in_common.joints - moment.joints[np.maximum(known, 0)]
              for view, known in zip(views, moment.who)]
    single = np.concatenate([error[known >= 0] for error, known in zip(single, moment.who)])
    return _Outcome(pairs, int((counts - 1).sum()), len(counts),
                    people.joints[fused] - moment.joints[of[fused]], people.joint_cov[fused],
                    single)


def _counts(who: np.ndarray) -> dict[int, int]:
    """Of each person in how many views he was found."""
    return {person: int((who == person).sum()) for person in np.unique(who[who >= 0]).tolist()}


def _pairs(who: np.ndarray) -> tuple[int, int]:
    """Pairs of views (P, V) that were put together, and those of one true person."""
    together = right = 0
    for row in who:
        for a, b in combinations(row[row > -2].tolist(), 2):
            together, right = together + 1, right + (a == b >= 0)
    return together, right


def _view(fitter: Fitter, points: torch.Tensor, cov: torch.Tensor, pose: np.ndarray) -> View:
    """A camera's people with single-view bodies; in pixels of a camera without distortion."""
    up = torch.from_numpy(pose[2, :3].copy())
    found = fitter.fit(Sighting(points.double(), cov.double(), up=up))
    pixels, pixel_cov = _CAMERA.distort_with_cov(points.numpy(), cov.numpy())
    return View(_people(found, pixels, pixel_cov), _CAMERA, pose)


def _people(found: BodyFit, pixels: np.ndarray, cov: np.ndarray) -> People:
    count = len(pixels)
    known = np.isfinite(pixels).all(2)
    boxes = np.concatenate([np.nanmin(pixels, 1), np.nanmax(pixels, 1)], 1) if count \
        else np.zeros((0, 4))
    fields = {name: getattr(found, name).numpy()
              for name in ("theta", "betas", "root", "root_cov", "joints", "joint_cov")}
    return People(boxes, np.ones(count), pixels, cov, known.astype(float),
                  joint_source=np.full((count, len(SMPL24)), INFERRED), **fields)


def _crowd_row(cameras: int, scores: list[_Outcome], bench: MultiviewBenchmark) -> Row:
    together, right, true = np.sum([score.pairs for score in scores], 0)
    errors, covs, single = (np.concatenate([getattr(score, name) for score in scores])
                            for name in ("errors", "covs", "single"))
    fused, alone = (1000 * np.linalg.norm(value, axis=2).mean(1) for value in (errors, single))
    relative = 1000 * distances(at_root(errors, 0), np.zeros_like(errors)).mean(1)
    held = [100 * coverage(errors, covs, share) for share in _SHARES]
    doubles = sum(score.duplicates for score in scores)
    present = sum(score.present for score in scores)
    return Row(f"crowd, {cameras} cameras",
               f"{bench.moments} moments of {bench.people} people of held-back mocap in a room of "
               f"{2 * _ROOM_M:.0f} m; pairs of views put together: precision / recall, people "
               "found twice; absolute MPJPE of those fused, median and mean (pelvis-relative), of "
               "single views, 24 joints, mm; inside the 68 / 95 % ellipsoids",
               f"{100 * right / max(together, 1):.1f} / {100 * right / max(true, 1):.1f} %, "
               f"{100 * doubles / max(present, 1):.1f} %; "
               f"{np.nanmedian(fused):.0f}, {np.nanmean(fused):.0f} ({np.nanmean(relative):.0f}), "
               f"{np.nanmean(alone):.0f}; {held[0]:.0f} / {held[1]:.0f}")


# ---------------------------------------------------------------------------------- table

PARTS = {"video": (clips, [f"{name}.{kind}" for name in _CLIPS for kind in ("json", "mp4")]),
         "crowd": (crowds, [_MOCAP])}


@torch.inference_mode()
def rows(bench: MultiviewBenchmark, names: list[str]) -> list[Row]:
    """The rows of some parts; those whose data is missing say what is missing."""
    out = []
    for name in names:
        part, needs = PARTS[name]
        missing = [file for file in needs if not (bench.data / file).exists()]
        if missing:
            out.append(Row(name, f"skipped: no {', '.join(missing)} in {bench.data}", "-"))
            continue
        out += part(bench)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ROS2_POSE_DATA", "../shared"),
                        help="folder of the data; default: ROS2_POSE_DATA, else ../shared")
    parser.add_argument("--rows", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--frames", type=int, default=MultiviewBenchmark.frames, help="of each clip, at most"
    )
    parser.add_argument("--moments", type=int, default=MultiviewBenchmark.moments, help="made up")
    parser.add_argument(
        "--people", type=int, default=MultiviewBenchmark.people, help="at once, made up"
    )
    args = parser.parse_args()
    names = [name for name in PARTS if name in args.rows.split(",")]
    bench = MultiviewBenchmark(Path(args.data), args.frames, args.moments, args.people)
    print(table(rows(bench, names)))


if __name__ == "__main__":
    main()

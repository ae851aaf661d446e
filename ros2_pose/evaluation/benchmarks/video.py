"""The whole pipeline on calibrated video of one person, against ground truth for each frame.

The clips are Pose2Sim's (BSD-3): each a video and, with the same name, a JSON file with the camera
as OpenCV writes it, the up direction, and keypoints triangulated from four views, good to 3 to
4 cm. The pipeline sees one view. Twelve keypoints are compared, hips to ankles and shoulders to
wrists, relative to the middle of the hips: COCO's keypoints on the body model, since the ground
truth comes from a 2D network with COCO's keypoints as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.benchmarks.fitting import fitter
from ros2_pose.evaluation.harness import Curve, Options, Row
from ros2_pose.evaluation.plots import ERROR_BY_JOINT_MM
from ros2_pose.geometry import Transform
from ros2_pose.metrics.pose import (
    acceleration_error,
    at_root,
    distances,
    lag,
    median_depth_error,
    mpjpe,
    pa_mpjpe,
)
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import LOST, Ground, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17

CLIPS = tuple(f"devset/videos/p2s_single_cam0{number}" for number in range(1, 5))
FILES = tuple(f"{clip}.{kind}" for clip in CLIPS for kind in ("json", "mp4"))
JOINTS = tuple(f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
               for side in ("left", "right"))
HIPS = (0, 1)  # of JOINTS
OURS = [COCO17.index(name) for name in JOINTS]
_LONGEST_LAG_S = 0.5


class Clip(NamedTuple):
    """A video of one person with ground truth for T frames."""

    video: Path
    camera: Camera
    up: np.ndarray  # (3,) unit vector against gravity, camera frame
    seconds: float  # between frames
    poses: np.ndarray  # (T, 12, 3) m, camera frame; NaN where not known
    camera_to_scene: Transform  # to the frame that all clips of a scene share


def read_clip(path: Path) -> Clip:
    """Read a clip by the path of its JSON file."""
    values = json.loads(path.read_text())
    video = VideoSource(path.with_suffix(".mp4"))
    first = next(iter(video)).frame
    assert first is not None
    height, width = first.image.shape[:2]
    camera = Camera.from_opencv(width, height, values["camera"]["K"],
                                values["camera"]["dist_opencv"])
    poses = np.stack([_pose(frame["people"]) for frame in values["frames"]])
    rotmat = np.array(values["camera"]["R_world2cam"])
    translation_m = np.array(values["camera"]["t_world2cam_mm"]) / 1000
    camera_to_scene = Transform(Rotation.from_matrix(rotmat), translation_m).inverse()
    return Clip(video.path, camera, rotmat[:, 2], 1 / values["fps"], poses, camera_to_scene)


def _pose(people: list[dict]) -> np.ndarray:
    """(12, 3) m of the one person of a frame."""
    if not people:
        return np.full((len(JOINTS), 3), np.nan)
    joints = people[0]["joints3d"]
    rows = [joints["names"].index(name) for name in JOINTS]
    positions = np.array(joints["xyz_mm"], float)[rows] / 1000
    return np.where(np.array(joints["valid"])[rows, None], positions, np.nan)


def clips(options: Options) -> Iterator[Row | Curve]:
    """Run the whole pipeline on each clip, one view at a time."""
    pipeline = Pipeline(PoseConfig(network=options.network, refiner=options.refiner))
    pipeline.fitter = fitter(options, pipeline.fitter.settings)
    scores, errors = [], []
    for name in CLIPS:
        clip = read_clip(options.data / f"{name}.json")
        found = follow(pipeline, clip, options.frames)
        scores.append(score(found, clip))
        errors.append(1000 * distances(at_root(found, *HIPS),
                                       at_root(clip.poses[:len(found)], *HIPS)))
        yield _row(clip.video.stem, scores[-1], options)
    mean = {metric: float(np.mean([one[metric] for one in scores])) for metric in scores[0]}
    yield _row("mean of the four cameras", mean, options, "MPJPE / PA-MPJPE 80 / 55 mm")
    yield Curve(ERROR_BY_JOINT_MM, "video, one view, relative to the hips", list(JOINTS),
                np.nanmean(np.concatenate(errors), 0).tolist())


def floors(options: Options) -> Iterator[Row]:
    """Run the whole pipeline on each clip with the floor that the calibration gives, z = 0."""
    pipeline = Pipeline(PoseConfig(network=options.network, refiner=options.refiner))
    pipeline.fitter = fitter(options, pipeline.fitter.settings)
    scores = []
    for name in CLIPS:
        clip = read_clip(options.data / f"{name}.json")
        height_m = float(clip.camera_to_scene.translation_m[2])
        found = follow(pipeline, clip, options.frames, Ground(clip.up, height_m))
        scores.append(score(found, clip))
    mean = {metric: float(np.mean([one[metric] for one in scores])) for metric in scores[0]}
    yield _row("mean of the four cameras, floor given", mean, options)


def _row(name: str, values: dict[str, float], options: Options, target: str = "") -> Row:
    return Row(f"video, {name}", f"Pose2Sim, first {options.frames} frames, pixels to joints, "
               "causal, one view; 12 joints relative to the middle of the hips; acceleration: mean "
               "error, and size of the ground truth's with its jitter; depth: median relative "
               "error of the hips", dict(values), target)


def follow(pipeline: Pipeline, clip: Clip, frames: int, ground: Ground | None = None) -> np.ndarray:
    """Return the person as the pipeline finds it.

    Args:
        ground: of the camera; None: gravity alone.
    Returns:
        (T, 12, 3) m, camera frame; NaN: not found.
    """
    pipeline.reset()
    ground = ground or Ground(clip.up)
    shots = islice(VideoSource(clip.video, clip.camera), frames)
    found = []
    for shot, truth in zip(tqdm(shots, clip.video.stem, frames), clip.poses):
        people = pipeline.step(replace(shot.frame, ground=ground))
        found.append(_nearest(people, pipeline.body, clip.camera, truth))
    return np.stack(found)


def _nearest(people: People, body: BodyModel, camera: Camera, truth: np.ndarray) -> np.ndarray:
    """(12, 3) m, camera frame: joints of the person nearest to the true ones (12, 3) in the image.

    NaN if no person is within half the true body's height in the mean.
    """
    not_found = np.full((len(JOINTS), 3), np.nan)
    if people.joints is None or not len(people):
        return not_found
    seen = people[people.tracking_state != LOST]
    state = (torch.from_numpy(value) for value in (seen.theta, seen.betas, seen.root))
    poses = body(*state, with_vertices=False).keypoints.numpy()[:, OURS]
    pixels = camera.project(truth)
    apart = np.linalg.norm(camera.project(poses) - pixels, axis=2).mean(1)
    near = apart < np.ptp(pixels[:, 1]) / 2
    return poses[np.where(near, apart, np.inf).argmin()] if near.any() else not_found


def score(found: np.ndarray, clip: Clip) -> dict[str, float]:
    """Score poses (T, 12, 3) m, camera frame, of the first T frames; NaN: too little was found."""
    truth = clip.poses[:len(found)]
    ours, theirs = at_root(found, *HIPS), at_root(truth, *HIPS)
    longest = min(round(_LONGEST_LAG_S / clip.seconds), len(found) // 3)
    depths = (poses[:, HIPS, 2].mean(1) for poses in (found, truth))
    return {
        "MPJPE, mm": 1000 * np.nanmean(mpjpe(ours, theirs)),
        "PA-MPJPE, mm": 1000 * np.nanmean(pa_mpjpe(found, truth)),
        "acceleration error, m/s^2": np.nanmean(acceleration_error(ours, theirs, clip.seconds)),
        "true acceleration, m/s^2": np.nanmean(acceleration_error(0 * theirs, theirs,
                                                                  clip.seconds)),
        "lag, ms": 1000 * clip.seconds * lag(ours, theirs, longest),
        "depth error, %": 100 * median_depth_error(*depths),
        "frames found, %": 100 * np.isfinite(found).all((1, 2)).mean()}

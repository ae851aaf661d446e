"""One person on calibrated video: what the pipeline says, frame by frame, against the truth.

The clips are Pose2Sim's (BSD-3): each a video and, of the same name, a JSON file with the camera as
OpenCV writes it, which way is up, and keypoints triangulated from four views, good to 3 or 4 cm.
The pipeline sees one view. Twelve keypoints are compared, hips to ankles and shoulders to wrists,
about the middle of the hips: those of COCO on our body, as the truth's are a 2D network's, too.
"""

from __future__ import annotations

import json
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
from ros2_pose.evaluation.metrics.pose import (
    acceleration_error,
    at_root,
    lag,
    median_depth_error,
    mpjpe,
    pa_mpjpe,
)
from ros2_pose.geometry import Transform
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import LOST, Ground, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17

JOINTS = tuple(f"{side}_{joint}" for joint in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
               for side in ("left", "right"))
_HIPS = (0, 1)
OURS = [COCO17.index(name) for name in JOINTS]
_LONGEST_LAG_S = 0.5


class Clip(NamedTuple):
    """A video and who is on it."""

    video: Path
    camera: Camera
    up: np.ndarray  # (3,) the world's, in the camera frame
    seconds: float  # between frames
    poses: np.ndarray  # (T, 12, 3) m, camera frame; NaN where not known
    camera_to_scene: Transform  # to the frame that all clips of a scene share


class VideoScore(NamedTuple):
    """Joints about the middle of the hips; NaN where too little was found."""

    mpjpe: float  # mm
    pa_mpjpe: float  # mm
    acceleration: float  # m/s^2, mean distance of accelerations
    true_acceleration: float  # m/s^2, mean size of the truth's, its own jitter included
    lag: float  # ms by which the answer is late
    depth: float  # median relative error of the hips' distance
    found: float  # share of the frames


def read_clip(path: Path) -> Clip:
    """A clip by its JSON file."""
    values = json.loads(path.read_text())
    video = VideoSource(path.with_suffix(".mp4"))
    width, height = next(iter(video)).frame.image.shape[1::-1]
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


def follow(pipeline: Pipeline, clip: Clip, frames: int) -> np.ndarray:
    """(T, 12, 3) m: the person of a clip as the pipeline finds him; NaN where it does not."""
    pipeline.reset()
    ground = Ground(clip.up)
    shots = islice(VideoSource(clip.video, clip.camera), frames)
    found = []
    for shot, truth in zip(tqdm(shots, clip.video.stem, frames), clip.poses):
        people = pipeline.step(replace(shot.frame, ground=ground))
        found.append(_nearest(people, pipeline.body, clip.camera, truth))
    return np.stack(found)


def _nearest(people: People, body: BodyModel, camera: Camera, truth: np.ndarray) -> np.ndarray:
    """(12, 3) m of the person whose joints are nearest to the true ones in the image, in the mean
    within half the true body's height. A double of the person is another person."""
    nobody = np.full((len(JOINTS), 3), np.nan)
    if people.joints is None or not len(people):
        return nobody
    seen = people[people.tracking_state != LOST]
    state = (torch.from_numpy(value) for value in (seen.theta, seen.betas, seen.root))
    poses = body(*state, with_vertices=False).keypoints.numpy()[:, OURS]
    pixels = camera.project(truth)
    apart = np.linalg.norm(camera.project(poses) - pixels, axis=2).mean(1)
    near = apart < np.ptp(pixels[:, 1]) / 2
    return poses[np.where(near, apart, np.inf).argmin()] if near.any() else nobody


def score(found: np.ndarray, clip: Clip) -> VideoScore:
    """Score poses (T, 12, 3) m of the first T frames of a clip."""
    truth = clip.poses[:len(found)]
    ours, theirs = at_root(found, *_HIPS), at_root(truth, *_HIPS)
    longest = min(round(_LONGEST_LAG_S / clip.seconds), len(found) // 3)
    depths = (poses[:, _HIPS, 2].mean(1) for poses in (found, truth))
    return VideoScore(
        1000 * np.nanmean(mpjpe(ours, theirs)), 1000 * np.nanmean(pa_mpjpe(found, truth)),
        np.nanmean(acceleration_error(ours, theirs, clip.seconds)),
        np.nanmean(acceleration_error(0 * theirs, theirs, clip.seconds)),
        1000 * clip.seconds * lag(ours, theirs, longest), median_depth_error(*depths),
        np.isfinite(found).all((1, 2)).mean())

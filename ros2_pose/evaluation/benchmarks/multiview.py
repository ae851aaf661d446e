"""Several cameras: how well people are associated and fused, compared with one camera alone.

    python -m ros2_pose.evaluation.benchmarks.multiview [--data DIR] [--rows video,crowd]

video: the Pose2Sim clips, recorded by four calibrated cameras at the same time; the whole pipeline,
except that the network detects people in each image only once. crowd: see `crowd`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, islice

import numpy as np
import torch
from tqdm import tqdm

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks import crowd
from ros2_pose.evaluation.benchmarks.fitting import MOCAP
from ros2_pose.evaluation.benchmarks.video import CLIPS, FILES, HIPS, JOINTS, OURS, Clip, read_clip
from ros2_pose.evaluation.harness import Benchmark, Curve, Options, Row
from ros2_pose.evaluation.plots import reliability
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.metrics.pose import coverage, mpjpe, pa_mpjpe
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.networks.base import PoseNetwork
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import LOST, Frame, People
from ros2_pose.skeleton import SMPL24

_FARTHEST_M = 1.0  # mean distance to the ground truth beyond which it is another person
_COMPARED = [SMPL24.index(name) for name in JOINTS]


class _Recorded(PoseNetwork):
    """A network that returns stored detections, so that each image is processed only once."""

    def __init__(self, people: dict[int, People]):
        super().__init__(PoseConfig())
        self.people = people

    def find_people(self, frames: list[Frame]) -> list[People]:
        """The detections stored under the number in each image's first pixels (`_numbered`)."""
        return [self.people[_number_in(frame.image)] for frame in frames]


def _numbered(camera: Camera, number: int) -> np.ndarray:
    """(H, W, 3) uint8: an image that holds a number as four bytes in its first pixels."""
    image = grey_ramp(camera.width, camera.height)
    image[0, :4, 0] = np.frombuffer(np.int32(number).tobytes(), np.uint8)
    return image


def _number_in(image: np.ndarray) -> int:
    return int(np.frombuffer(image[0, :4, 0].tobytes(), np.int32)[0])


def clips(options: Options) -> Iterator[Row | Curve]:
    """Run the pipeline on calibrated video with every choice of one to four cameras."""
    scenes = [read_clip(options.data / f"{name}.json") for name in CLIPS]
    pipelines = {count: MultiPipeline(count) for count in range(1, len(scenes) + 1)}
    network = _Recorded(_detections(pipelines[1].cameras[0].network, scenes, options.frames))
    for count, pipeline in pipelines.items():
        for camera in pipeline.cameras:
            camera.network = network
        definition_cov = pipeline.fuser.fitter.settings.keypoint_error_m**2 * np.eye(3)
        scores, errors, covs = [], [], []
        for chosen in combinations(range(len(scenes)), count):
            found, *gaussians = _follow(pipeline, scenes, chosen, options.frames)
            errors.append(gaussians[0])
            covs.append(gaussians[1] + definition_cov)
            scores.append(_score(found, _truth(scenes[chosen[0]], options.frames))
                          | _coverages(errors[-1], covs[-1]))
        yield _row(count, scores, options)
        yield reliability(f"video, {count} camera{'s' * (count > 1)}", np.concatenate(errors),
                          np.concatenate(covs))


def _detections(network, scenes: list[Clip], frames: int) -> dict[int, People]:
    """People in the first frames of each clip, by camera * frames + number of the frame."""
    seen = {}
    for camera, clip in enumerate(scenes):
        shots = islice(VideoSource(clip.video, clip.camera), frames)
        for number, shot in enumerate(tqdm(shots, clip.video.stem, frames)):
            seen[camera * frames + number] = network.detect([shot.frame])[0]
    return seen


def _truth(clip: Clip, frames: int) -> np.ndarray:
    """(T, 12, 3) m: the first poses of a clip in the frame shared by all clips."""
    return clip.camera_to_scene.apply(clip.poses)[:frames]


def _follow(pipeline: MultiPipeline, scenes: list[Clip], chosen: tuple[int, ...],
            count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a pipeline on the chosen cameras.

    Returns: poses found (T, 12, 3) m in the shared frame, NaN: not found; errors (M, 12, 3) m and
        covariances (M, 12, 3, 3) m^2 of the joints in the M frames where the person was found.
    """
    pipeline.reset()
    found, errors, covs = [], [], []
    for number, pose in enumerate(_truth(scenes[chosen[0]], count)):
        frames: list[Frame | None] = [
            Frame(_numbered(scenes[camera].camera, camera * count + number),
                  scenes[camera].camera, round(number * scenes[camera].seconds * 1e9),
                  camera_to_fixed=scenes[camera].camera_to_scene) for camera in chosen]
        people = pipeline.step(frames).people
        nearest = _nearest(people, pipeline.cameras[0].body, pose)
        found.append(np.full_like(pose, np.nan) if nearest is None else nearest[1])
        if nearest is not None:
            assert people.joints is not None and people.joint_cov is not None
            errors.append(people.joints[nearest[0], _COMPARED] - pose)
            covs.append(people.joint_cov[nearest[0], _COMPARED])
    return (np.array(found), np.reshape(errors, (-1, len(JOINTS), 3)),
            np.reshape(covs, (-1, len(JOINTS), 3, 3)))


def _nearest(people: People, body: BodyModel, truth: np.ndarray) -> tuple[int, np.ndarray] | None:
    """Row and keypoints (12, 3) m of the person nearest to a true pose (12, 3), or None."""
    rows = np.flatnonzero(people.tracking_state != LOST)
    if people.root is None or not len(rows):
        return None
    state = (torch.from_numpy(getattr(people, name)[rows]) for name in ("theta", "betas", "root"))
    poses = body(*state, with_vertices=False).keypoints.numpy()[:, OURS]
    apart = np.nanmean(np.linalg.norm(poses - truth, axis=2), 1)
    best = int(np.nanargmin(apart))
    return (int(rows[best]), poses[best]) if apart[best] < _FARTHEST_M else None


def _score(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {"MPJPE in the world, mm": 1000 * np.nanmean(mpjpe(found, truth)),
            "relative to the hips, mm": 1000 * np.nanmean(mpjpe(found, truth, *HIPS)),
            "PA-MPJPE, mm": 1000 * np.nanmean(pa_mpjpe(found, truth)),
            "frames found, %": 100 * np.isfinite(found).all((1, 2)).mean()}


def _coverages(errors: np.ndarray, covs: np.ndarray) -> dict[str, float]:
    return {f"inside {100 * share:.0f} %, %": 100 * coverage(errors, covs, share)
            for share in (0.68, 0.95)}


def _row(cameras: int, scores: list[dict[str, float]], options: Options) -> Row:
    """The mean over all choices of cameras."""
    mean = {metric: float(np.mean([score[metric] for score in scores])) for metric in scores[0]}
    return Row(f"{cameras} camera{'s' * (cameras > 1)} ({len(scores)} choices)",
               f"Pose2Sim, first {options.frames} frames, mean of all choices of cameras, pixels "
               "to joints, causal; 12 joints; coverage: joints inside the 68 and 95 % ellipsoids, "
               "3 cm for the keypoint's definition included", mean)


BENCHMARKS = {"video": Benchmark(clips, FILES, ("frames",)),
              "crowd": Benchmark(crowd.crowds, (MOCAP,), ("moments", "people", "seed"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)

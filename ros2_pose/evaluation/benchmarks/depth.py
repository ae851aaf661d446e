"""How well the distance of people is known: from one camera, with their height, and with depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ros2_pose.body.depth import DepthGauge
from ros2_pose.body.fitter import BodyFit, FitSettings, Sighting
from ros2_pose.body.kinematics import project
from ros2_pose.body.root_depth import RootDepth, root_with_cov
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.depth_camera import depth_image, sensed
from ros2_pose.evaluation.benchmarks.fitting import (
    PIXEL_STD,
    adults,
    body_model,
    fit_all,
    fitter,
    isotropic,
    normal,
)
from ros2_pose.evaluation.harness import Options, Row
from ros2_pose.metrics.pose import median_depth_error

_CAMERA = Camera.from_fov(640, 480, 70)
_RANGE_M = (1.0, 8.0)
_IMAGES = 100
_WALL_M = (0.4, 3.0)  # of the wall behind the person's pelvis
_LEAST_STD_M = 0.05


def depth(options: Options) -> Iterator[Row]:
    """Distances by one camera alone, with the true height given, and with a depth image."""
    state, bodies, statures = adults(options)
    points = project(bodies.keypoints)
    points = points + PIXEL_STD * normal(options.seed, *points.shape)
    sighting = Sighting(points, isotropic(torch.full(points.shape[:2], PIXEL_STD), 2))
    fit = fitter(options, FitSettings(keypoint_error_m=0.005))
    alone = fit_all(fit, sighting)
    yield _row("camera alone", alone.root, alone.root_cov, state, "6 %")
    root, root_cov = root_with_cov(RootDepth.load(), sighting.points, sighting.cov)
    yield _row("camera alone, without a body (k times gamma)", torch.from_numpy(root),
               torch.from_numpy(root_cov), state, "")
    tall = fit_all(fit, sighting._replace(height=statures))
    yield _row("height given", tall.root, tall.root_cov, state, "2 %")
    chosen = _in_range(bodies.keypoints, state.root[:, 2])[:_IMAGES]
    truth = state.rows(chosen)
    measured, std = _measured(options.seed, truth,
                              BodyFit(*(value[chosen] for value in alone)))
    found = fit_all(fit, Sighting(points[chosen], sighting.cov[chosen], depth=measured,
                                  depth_std=std))
    row = _row("depth image", found.root, found.root_cov, truth, "1 %")
    yield row._replace(protocol=f"{row.protocol}; of those in sight of a 640x480 depth camera, "
                       f"1-8 m, simulated noise, {measured.isfinite().float().mean():.0%} measured")


def _row(name: str, root: Tensor, root_cov: Tensor, truth: BodyState, target: str) -> Row:
    """Row of estimated positions (P, 3) m with covariances (P, 6, 6)."""
    z, true_z = root[:, 2].numpy(), truth.root[:, 2].numpy()
    sigmas = np.abs(z - true_z) / root_cov[:, 2, 2].sqrt().numpy()
    sigmas = sigmas[np.isfinite(sigmas)]
    return Row(f"root depth, {name}",
               f"{len(z)} held-back mocap poses, adults, 1-15 m, true 2D and noise of "
               f"{PIXEL_STD:g} of the focal length, cold; median relative error of the root's "
               "depth, and share of the errors within one and two standard deviations",
               {"error, %": 100 * median_depth_error(z, true_z),
                "within 1 sigma, %": 100 * (sigmas < 1).mean(),
                "within 2 sigma, %": 100 * (sigmas < 2).mean()}, target)


def _in_range(keypoints: Tensor, depths: Tensor) -> Tensor:
    """Indices of the people in the image and the range of the depth camera.

    Args:
        keypoints (P, 17, 3): m, camera frame.
        depths (P,): m, of the pelvis.
    """
    near, far = _RANGE_M
    pixels = _CAMERA.project(keypoints.numpy())
    inside = (pixels > 0) & (pixels < (_CAMERA.width, _CAMERA.height))
    z = depths.numpy()
    return torch.from_numpy(np.flatnonzero(inside.all((1, 2)) & (z > near) & (z < far)))


def _measured(seed: int, truth: BodyState, found: BodyFit) -> tuple[Tensor, Tensor]:
    """(P,), (P,) m: depth of the pelvis and its standard deviation.

    Measured in depth images of the true bodies before a wall, with the bodies found without depth.
    """
    rng, gauge = np.random.default_rng(seed), DepthGauge(body_model())
    std = found.root_cov[:, 2, 2].sqrt().clamp(min=_LEAST_STD_M).numpy()
    depths, stds = [], []
    for row in tqdm(range(len(std)), "depth images", leave=False):
        one = truth.rows([row])
        image = depth_image(body_model(), one, _CAMERA,
                            wall=float(one.root[0, 2]) + rng.uniform(*_WALL_M))
        root_z, root_std, _ = gauge.measure(sensed(image, rng), _CAMERA, found.state.rows([row]),
                                            std[[row]], found.joint_observed[[row]].numpy())
        depths.append(root_z)
        stds.append(root_std)
    return torch.from_numpy(np.concatenate(depths)), torch.from_numpy(np.concatenate(stds))

"""The body fit on simulated adults, and what the benchmarks of the body layer share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ros2_pose.body.fitter import BodyFit, FitSettings, Fitter, Sighting
from ros2_pose.body.kinematics import Posed, pose_rig, project
from ros2_pose.body.lift import Lift
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.so3 import quat_from_rotmat
from ros2_pose.body.state import BodyState
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.harness import Curve, Options, Row
from ros2_pose.evaluation.plots import ERROR_BY_JOINT_MM
from ros2_pose.metrics.pose import at_root, distances
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

MOCAP = "mocap/cmu_theta_10hz.npz"
PIXEL_STD = 0.003  # of the focal length: 2 px in an image 640 px wide with a 50 degree lens
_PEOPLE = 400
_OF_THE_IMAGE = ("up", "floor")  # fields of a sighting that are the same for all people
_BATCH = 128  # people fitted together: more are no faster

_PELVIS = SMPL24.index("pelvis")
_NO_TOES = [i for i, name in enumerate(SMPL24.names) if not name.endswith("foot")]
# Name, std of the noise (m, each axis), std of the two gross errors (m, each axis), target (mm).
_NOISES = (("exact, 1 mm stated", 0.001, 0.0, 8), ("20 mm a axis", 0.02, 0.0, 27),
           ("20 mm and two of 17 wrong by 0.3 m a axis, 20 mm stated", 0.02, 0.3, 45))

# Simulated keypoints are those of the body itself, so that their definition adds no error; and 3D
# keypoints need little help from lift and upright prior.
_SETTINGS = {"one camera": FitSettings(keypoint_error_m=0.005),
             "3D": FitSettings(keypoint_error_m=0.001, prior_weight=1.0, lift_weight=0.3,
                               upright_rad=3.0, robust_sigmas=4.0, cold_iterations=(6, 20))}


@cache
def body_model() -> BodyModel:
    """The shipped body model, loaded once."""
    return BodyModel.load()


@cache
def _networks(lift: Path) -> tuple[PosePrior, Lift]:
    return PosePrior.load(), Lift.load(lift)


def fitter(options: Options, settings: FitSettings = FitSettings(),
           joint_set: JointSet = COCO17) -> Fitter:
    """The fit under test, with the lift that the options name."""
    return Fitter(body_model(), *_networks(options.lift), settings, joint_set)


def fit_all(fitter: Fitter, sighting: Sighting) -> BodyFit:
    """Fit P people without a previous state, in batches."""
    parts = []
    for low in tqdm(range(0, len(sighting.points), _BATCH), "fitting", unit="batch", leave=False):
        some = slice(low, low + _BATCH)
        own = {name: value[some] for name, value in sighting._asdict().items()
               if value is not None and name not in _OF_THE_IMAGE}
        parts.append(fitter.fit(sighting._replace(**own)))
    return BodyFit(*map(torch.cat, zip(*parts)))


def isotropic(std: Tensor, size: int) -> Tensor:
    """(P, K, D, D) covariances for standard deviations (P, K)."""
    return std.square()[..., None, None] * torch.eye(size).to(std)


def adults(options: Options) -> tuple[BodyState, Posed, Tensor]:
    """Adults in mocap poses held back from all training, 1 to 15 m away, seen from any side.

    Returns: for P people, each in the frame of a camera of their own: states, bodies in these
        states, and statures (P,) m.
    """
    model = body_model()
    poses = read_poses(options.data / MOCAP, held=True)
    people = options.people or _PEOPLE
    drawn = Projector(model, poses, seed=options.seed, vary=False).draw(people)
    generator = torch.Generator().manual_seed(options.seed)
    betas = torch.randn(drawn.betas.shape, generator=generator) * model.beta_std
    posed = pose_rig(model.rig(betas), drawn.rotmats, betas, drawn.root)
    state = BodyState(quat_from_rotmat(drawn.rotmats), betas, drawn.root)
    return state, posed, statures(betas)


def statures(betas: Tensor) -> Tensor:
    """Heights (P,), m, of upright people with betas (P, 10)."""
    base, by_beta = (value.to(betas) for value in body_model().stature)
    return base + betas @ by_beta


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal noise of a shape, the same for the same seed of the options."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))


def fit(options: Options) -> Iterator[Row | Curve]:
    """Fit bodies to keypoints in 3D and in the image of one camera."""
    state, bodies, _ = adults(options)
    count = len(bodies.joints)
    for name, std, gross, target in _NOISES:
        positions = bodies.keypoints + noise(count, options.seed, std, gross)
        stds = torch.full(positions.shape[:2], std)
        depth = state.root[:, 2:]
        # In 2D: what that noise shifts keypoints in the image at the person's depth.
        shift = (positions - bodies.keypoints)[..., :2] / depth[..., None]
        image = project(bodies.keypoints) + shift
        sightings = {"3D": Sighting(positions, isotropic(stds, 3)),
                     "one camera": Sighting(image, isotropic(stds / depth, 2))}
        for view, sighting in sightings.items():
            found = fit_all(fitter(options, _SETTINGS[view]), sighting)
            error = 1000 * distances(at_root(found.joints.numpy(), _PELVIS),
                                     at_root(bodies.joints.numpy(), _PELVIS))
            yield Row(f"fit to {view}, {name}",
                      f"{count} held-back mocap poses, adults, 17 COCO keypoints, cold; "
                      "pelvis-relative MPJPE of 24 joints, and without the toes, which no keypoint "
                      "shows",
                      {"MPJPE, mm": np.nanmean(error),
                       "without toes, mm": np.nanmean(error[:, _NO_TOES])},
                      f"{target} mm" if view == "3D" else "")
            yield Curve(ERROR_BY_JOINT_MM, f"fit to {view}, {name}", list(SMPL24.names),
                        np.nanmean(error, 0).tolist())


def noise(people: int, seed: int, std: float, gross: float) -> Tensor:
    """(P, 17, 3) m normal noise; two keypoints of each person have another error of std `gross`."""
    errors = std * normal(seed, people, 17, 3)
    generator = torch.Generator().manual_seed(seed + 2)
    chosen = torch.rand(people, 17, generator=generator).argsort(1)[:, :2]
    wrong = gross * torch.randn(people, 2, 3, generator=generator)
    return errors.scatter_add(1, chosen[..., None].expand(-1, -1, 3), wrong)

"""What the body layer is worth: a table of figures, each with its protocol.

    python -m ros2_pose.evaluation.benchmarks.body [--data DIR] [--rows fit,cost]

Some rows need nothing but the package, others a folder of data that is not free to be shipped:
`mocap/cmu_theta_10hz.npz`, `devset/mupots_ts01_10_gt.npz`, `devset/videos/p2s_single_cam0*`. Rows
whose data is not there say so in the table. Everything made up is made up by one seed.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ros2_pose.body.depth import DepthGauge
from ros2_pose.body.fitter import BodyFit, FitSettings, Fitter, Previous, Sighting
from ros2_pose.body.kinematics import pose_rig, project
from ros2_pose.body.lift import FILE as LIFT
from ros2_pose.body.lift import Lift
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.depth_camera import depth_image, sensed
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.benchmarks import mupots, video
from ros2_pose.evaluation.benchmarks.correction import correction_rows
from ros2_pose.evaluation.metrics.pose import at_root, coverage, distances, median_depth_error
from ros2_pose.geometry import quat_from_rotmat
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17, MUPOTS17, SMPL24, JointSet

log = logging.getLogger(__name__)

_MOCAP = "mocap/cmu_theta_10hz.npz"
_MUPOTS = "devset/mupots_ts01_10_gt.npz"
_CLIPS = tuple(f"devset/videos/p2s_single_cam0{number}.json" for number in range(1, 5))
_AT_ONCE = 128  # people fitted together: more are no faster
_PIXEL_STD = 0.003  # small noise: 2 px of 640 for a 50 degree lens


class BodyRow(NamedTuple):
    """A line of the table."""

    name: str
    protocol: str
    figure: str
    target: str = ""


@dataclass(frozen=True)
class BodyBenchmark:
    """What is measured, and on how much."""

    model: BodyModel
    prior: PosePrior
    lift: Lift
    data: Path
    people: int = 400  # made up
    stride: int = 10  # between frames of MuPoTS
    frames: int = 100  # of each clip
    repeats: int = 200  # timed
    seed: int = 0

    def fitter(self, settings: FitSettings = FitSettings(), joint_set: JointSet = COCO17) -> Fitter:
        """The fit under test."""
        return Fitter(self.model, self.prior, self.lift, settings, joint_set)


def fit_all(fitter: Fitter, sighting: Sighting) -> BodyFit:
    """Fit many people from nothing, a few at a time."""
    parts = []
    for low in tqdm(range(0, len(sighting.points), _AT_ONCE), "fitting", unit="batch", leave=False):
        some = slice(low, low + _AT_ONCE)
        parts.append(fitter.fit(Sighting(*(None if v is None else v[some] for v in sighting))))
    return BodyFit(*map(torch.cat, zip(*parts)))


# -------------------------------------------------------------------------- made-up people


class Adults(NamedTuple):
    """P people before a camera each, as they are."""

    state: BodyState
    joints: Tensor  # (P, 24, 3) m
    keypoints: Tensor  # (P, 17, 3) m
    statures: Tensor  # (P,) m


def adults(bench: BodyBenchmark) -> Adults:
    """Poses held back from all training, adults' shapes, 1 to 15 m away, seen from anywhere."""
    poses = read_poses(bench.data / _MOCAP, held=True)
    drawn = Projector(bench.model, poses, seed=bench.seed, vary=False).draw(bench.people)
    generator = torch.Generator().manual_seed(bench.seed)
    betas = torch.randn(drawn.betas.shape, generator=generator) * bench.model.beta_std
    posed = pose_rig(bench.model.rig(betas), drawn.rotmats, betas, drawn.root)
    base, by_beta = bench.model.stature
    state = BodyState(quat_from_rotmat(drawn.rotmats), betas, drawn.root)
    return Adults(state, posed.joints, posed.keypoints, base + betas @ by_beta)


def _isotropic(std: Tensor, size: int) -> Tensor:
    """(P, K, D, D) covariances of standard deviations (P, K)."""
    return std.square()[..., None, None] * torch.eye(size).to(std)


def _normal(bench: BodyBenchmark, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(bench.seed + 1))


def _seen_well(bench: BodyBenchmark, people: Adults) -> Sighting:
    """True 2D keypoints and a little noise."""
    points = project(people.keypoints)
    points = points + _PIXEL_STD * _normal(bench, *points.shape)
    return Sighting(points, _isotropic(torch.full(points.shape[:2], _PIXEL_STD), 2))


# ----------------------------------------------------------------------------------- rows


def correction(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """What the 2D-3D correction gains."""
    rows = {row.name: row for row in correction_rows(bench.people, bench.seed)}
    targets = {"points as measured": "about 3.55", "repaired, with fusion": "1.7; visible no worse",
               "repaired, fusion by shared errors": "1.7; visible no worse"}
    for name, row in rows.items():
        yield BodyRow(
            f"correction: {name}",
            f"{bench.people} made-up people (evaluation.correction), "
            "mean error in % of height, all joints / hidden / visible",
            f"{row.all:.2f} / {row.hidden:.2f} / {row.visible:.2f}",
            targets.get(name, ""),
        )


_PELVIS = SMPL24.index("pelvis")
_NO_TOES = [i for i, name in enumerate(SMPL24.names) if not name.endswith("foot")]
_NOISES = (("exact, 1 mm stated", 0.001, 0.0, 8), ("20 mm a axis", 0.02, 0.0, 27),
           ("20 mm and two of 17 wrong by 0.3 m a axis, 20 mm stated", 0.02, 0.3, 45))


# The body's own keypoints mean what they mean; and where they are in 3D, neither one view of them
# nor which way is up says much more.
_EXACT = {"one camera": FitSettings(keypoint_error_m=0.005),
          "3D": FitSettings(keypoint_error_m=0.001, prior_weight=1.0, lift_weight=0.3,
                            upright_rad=3.0, robust_sigmas=4.0, cold_iterations=(6, 20))}


def fit(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """Bodies fitted to keypoints in 3D and in 2D."""
    people = adults(bench)
    for name, std, gross, target in _NOISES:
        positions = people.keypoints + noise(bench, std, gross)
        stds = torch.full(positions.shape[:2], std)
        far = people.state.root[:, 2:]
        # In 2D, what that noise shifts keypoints in the image of a person at his distance.
        image = project(people.keypoints) + (positions - people.keypoints)[..., :2] / far[..., None]
        seen = {"3D": Sighting(positions, _isotropic(stds, 3)),
                "one camera": Sighting(image, _isotropic(stds / far, 2))}
        for view, sighting in seen.items():
            found = fit_all(bench.fitter(_EXACT[view]), sighting)
            error = 1000 * distances(*(at_root(joints.numpy(), _PELVIS)
                                       for joints in (found.joints, people.joints)))
            yield BodyRow(f"fit to {view}, {name}",
                      f"{bench.people} held-back mocap poses, adults, 17 COCO keypoints, cold; "
                      "pelvis-relative MPJPE of 24 joints, mm (without the toes, which no keypoint "
                      "shows)", f"{np.nanmean(error):.1f} ({np.nanmean(error[:, _NO_TOES]):.1f})",
                      f"{target} mm" if view == "3D" else "")


def noise(bench: BodyBenchmark, std: float, gross: float) -> Tensor:
    """(P, 17, 3) m; two keypoints of each person are wrong by a standard deviation `gross`."""
    noise = std * _normal(bench, bench.people, 17, 3)
    generator = torch.Generator().manual_seed(bench.seed + 2)
    chosen = torch.rand(bench.people, 17, generator=generator).argsort(1)[:, :2]
    wrong = gross * torch.randn(bench.people, 2, 3, generator=generator)
    return noise.scatter_add(1, chosen[..., None].expand(-1, -1, 3), wrong)


_JOINT_STD_M = 0.02  # of annotated joints
_DAS = "DAS, from pixels: 82.7 / 39.2; ours starts from 2D truth"
_LIMBS = tuple(name for name, side in zip(MUPOTS17.names, MUPOTS17.sides) if side != "middle")


def mupots_truth(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """MuPoTS' people from their true 2D joints."""
    truth = mupots.read(bench.data / _MUPOTS, bench.stride)
    statures = _statures(bench, truth)
    for used, names in (("17 joints", MUPOTS17.names), ("12 limb joints", _LIMBS)):
        for height, target in ((None, "83 / 30"), (statures, "83 / 45")):
            std = torch.from_numpy(0.01 * _spread(truth.rays))[:, None].expand(-1, len(MUPOTS17))
            points = torch.from_numpy(truth.rays).clone()
            points[:, [name not in names for name in MUPOTS17.names]] = torch.nan
            sighting = Sighting(points, _isotropic(std, 2), height)
            found = fit_all(bench.fitter(joint_set=MUPOTS17), sighting)
            known = "height unknown" if height is None else "height given"
            yield _mupots_row(f"MuPoTS, true 2D, {used}, {known}", truth, found, bench, target)


def _statures(bench: BodyBenchmark, truth: mupots.Annotated) -> Tensor:
    """(N,) m: how tall the body is that fits a person's true joints in 3D, in the middle (median)
    of his frames. This one number of the truth is what "height given" gives away."""
    positions = torch.from_numpy(truth.poses).double()
    cov = _isotropic(torch.full(positions.shape[:2], _JOINT_STD_M), 3).to(positions)
    found = fit_all(bench.fitter(joint_set=MUPOTS17), Sighting(positions, cov))
    base, by_beta = (value.to(positions) for value in bench.model.stature)
    return torch.from_numpy(mupots.by_person((base + found.betas @ by_beta).numpy(), truth))


def _mupots_row(name: str, truth: mupots.Annotated, found: BodyFit, bench: BodyBenchmark,
                target: str) -> BodyRow:
    poses = found.keypoints.numpy()
    official, plain = mupots.score(poses, truth), mupots.score(poses, truth, rescale=False)
    depth = median_depth_error(*(joints[:, MUPOTS17.index("pelvis"), 2]
                                 for joints in (poses, truth.poses)))
    return BodyRow(name, f"sequences 1-10, every {bench.stride}th frame, {len(poses)} people; "
               "PCK_rel / PCK_abs at 150 mm, 14 joints, official bone rescaling (without); median "
               f"root depth error; {_DAS}",
               f"{official.relative:.1f} / {official.absolute:.1f} ({plain.relative:.1f} / "
               f"{plain.absolute:.1f}); {100 * depth:.1f} %", target)


def _spread(rays: np.ndarray) -> np.ndarray:
    """(N,) root mean square distance of people's points (N, K, 2) from their middle."""
    return np.sqrt(np.square(rays - rays.mean(1, keepdims=True)).sum(2).mean(1))


def mupots_noisy(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """MuPoTS' people from 2D joints as a detector finds them; and how honest the answer is."""
    truth = mupots.read(bench.data / _MUPOTS, bench.stride)
    rng = np.random.default_rng(bench.seed)
    error, cov = _as_detected(truth.rays, rng)
    fitter = bench.fitter(joint_set=MUPOTS17)
    sighting = Sighting(torch.from_numpy(truth.rays + error), torch.from_numpy(cov))
    found = fit_all(fitter, sighting)
    row = _mupots_row("MuPoTS, noisy 2D, 17 joints, height unknown", truth, found, bench, "")
    yield row._replace(protocol=f"{_DETECTOR}; {row.protocol}")
    corrected = fitter.correct(sighting, found)
    own = fitter.settings.keypoint_error_m**2 * np.eye(3)
    shares = {
        "3D joints, camera frame": (found.keypoints.numpy() - truth.poses,
                                    found.keypoint_cov.numpy() + own),
        "2D joints, corrected": (corrected.points.numpy() - truth.rays, corrected.cov.numpy()),
        "2D joints, as detected": (error, cov)}
    for name, (off, cov) in shares.items():
        held = " / ".join(f"{100 * coverage(off, cov, share):.0f}" for share in (0.68, 0.95))
        yield BodyRow(
            f"coverage, {name}",
            "the same people; % of the errors in the ellipsoids of 68 / "
            "95 %, what a joint means included",
            held,
            "68 / 95",
        )


_DETECTOR = "noise of the default network as calibrated (networks.keypoint_noise.KEYPOINT_NOISE)"
_SIZE_OF_SPREAD = 1.65  # a person's size as COCO has it, from the spread of his joints
_KIND = {"pelvis": "left_hip", "spine": "left_hip", "neck": "left_shoulder", "head": "left_ear",
         "head_top": "left_ear"}  # joints that COCO does not have err as these


def _as_detected(rays: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N, 17, 2) of points (N, 17, 2), and their covariances as the network states them."""
    kinds = np.array([COCO17.index(_KIND.get(name, name)) for name in MUPOTS17.names])
    error, cov = KEYPOINT_NOISE.at(kinds).draw(rng, len(rays))
    size = _SIZE_OF_SPREAD * _spread(rays)[:, None, None]
    return size * error, size[..., None] ** 2 * cov


_DEPTH_CAMERA = Camera.from_fov(640, 480, 70)
_DEPTH_RANGE_M = (1.0, 8.0)
_DEPTH_IMAGES = 100


def depth(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """How far people are, by one camera, with their height, and with a depth image."""
    people = adults(bench)
    sighting = _seen_well(bench, people)
    settings = FitSettings(keypoint_error_m=0.005)
    alone = fit_all(bench.fitter(settings), sighting)
    yield _depth_row("camera alone", alone, people.state, "6 %")
    tall = fit_all(bench.fitter(settings), sighting._replace(height=people.statures))
    yield _depth_row("height given", tall, people.state, "2 %")
    chosen = _in_depth_range(people)[:_DEPTH_IMAGES]
    measured, std = _measured(bench, people.state.rows(chosen), _chosen(alone, chosen))
    some = Sighting(sighting.points[chosen], sighting.cov[chosen], depth=measured, depth_std=std)
    found = fit_all(bench.fitter(settings), some)
    row = _depth_row("depth image", found, people.state.rows(chosen), "1 %")
    yield row._replace(protocol=f"{row.protocol}; of those in sight of a 640x480 depth camera, "
                       f"1-8 m, simulated noise, {measured.isfinite().float().mean():.0%} measured")


def _depth_row(name: str, found: BodyFit, truth: BodyState, target: str) -> BodyRow:
    z, true_z = found.root[:, 2].numpy(), truth.root[:, 2].numpy()
    sigmas = np.abs(z - true_z) / found.root_cov[:, 2, 2].sqrt().numpy()
    sigmas = sigmas[np.isfinite(sigmas)]
    held = " / ".join(f"{100 * (sigmas < count).mean():.0f}" for count in (1, 2))
    return BodyRow(
        f"root depth, {name}",
        f"{len(z)} held-back mocap poses, adults, 1-15 m, true 2D "
        f"and noise of {_PIXEL_STD:g} of the focal length, cold; median relative error (% "
        "within 1 / 2 sigma)",
        f"{100 * median_depth_error(z, true_z):.1f} % ({held})",
        target,
    )


def _in_depth_range(people: Adults) -> Tensor:
    """Indices of the people who are in the depth camera's sight."""
    near, far = _DEPTH_RANGE_M
    pixels = _DEPTH_CAMERA.project(people.keypoints.numpy())
    inside = (pixels > 0) & (pixels < (_DEPTH_CAMERA.width, _DEPTH_CAMERA.height))
    z = people.state.root[:, 2].numpy()
    return torch.from_numpy(np.flatnonzero(inside.all((1, 2)) & (z > near) & (z < far)))


def _measured(bench: BodyBenchmark, truth: BodyState, found: BodyFit) -> tuple[Tensor, Tensor]:
    """(P,), (P,) m: depth of the pelvis, and its deviation, by depth images of the true bodies and
    the bodies found without; a wall somewhere behind."""
    rng, gauge = np.random.default_rng(bench.seed), DepthGauge(bench.model)
    std = found.root_cov[:, 2, 2].sqrt().clamp(min=0.05).numpy()
    values = []
    for row in tqdm(range(len(std)), "depth images", leave=False):
        one = truth.rows([row])
        image = depth_image(bench.model, one, _DEPTH_CAMERA,
                            wall=float(one.root[0, 2]) + rng.uniform(0.4, 3))
        values.append(gauge.measure(sensed(image, rng), _DEPTH_CAMERA, found.state.rows([row]),
                                    std[[row]], found.joint_observed[[row]].numpy()))
    return tuple(torch.from_numpy(np.concatenate([getattr(v, name) for v in values]))
                 for name in ("root_z", "std"))


def _chosen(found: BodyFit, chosen: Tensor) -> BodyFit:
    return BodyFit(*(value[chosen] for value in found))


def clips(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """Pixels to bodies: the whole pipeline on video."""
    pipeline = Pipeline()
    pipeline.fitter = bench.fitter(pipeline.fitter.settings)
    scores = []
    for path in _CLIPS:
        clip = video.read_clip(bench.data / path)
        scores.append(video.score(video.follow(pipeline, clip, bench.frames), clip))
        yield _video_row(clip.video.stem, scores[-1], bench)
    yield _video_row("mean of the four cameras", video.VideoScore(*np.mean(scores, 0)), bench,
                     "80 / 55")


def _video_row(
    name: str, score: video.VideoScore, bench: BodyBenchmark, target: str = ""
) -> BodyRow:
    return BodyRow(f"video, {name}", f"Pose2Sim, first {bench.frames} frames, pixels to joints, "
               "causal, one view; MPJPE about the middle of the hips / PA-MPJPE, 12 joints, mm; "
               "acceleration error (size of the truth's), m/s^2; lag, ms; median depth error; "
               "frames found",
               f"{score.mpjpe:.0f} / {score.pa_mpjpe:.0f}; {score.acceleration:.1f} "
               f"({score.true_acceleration:.1f}); {score.lag:.0f} ms; {100 * score.depth:.1f} %; "
               f"{score.found:.0%}", target)


_COST_TARGETS = {8: "1 ms", 1: "4 ms"}
_TRACKED_S = 0.1  # between images


def cost(bench: BodyBenchmark) -> Iterator[BodyRow]:
    """Milliseconds a person."""
    for count, target in _COST_TARGETS.items():
        first, second = _moment_apart(bench, count)
        fitter = bench.fitter()
        before = fitter.fit(first)
        previous = Previous(before.state, torch.full((count,), _TRACKED_S), torch.ones(count),
                            before.disagreement_s)
        for name, known, aim in (("tracked", previous, target), ("cold", None, "")):
            spent = [_seconds(fitter, second, known) for _ in range(bench.repeats)]
            yield BodyRow(f"cost, {count} at once, {name}",
                      f"lift, fit and correction, ms a person, median of {bench.repeats} (fastest "
                      f"tenth), {torch.get_num_threads()} thread(s); what else the machine does is "
                      "the reader's business", " (".join(
                          f"{1000 * np.quantile(spent, part) / count:.2f}" for part in (0.5, 0.1))
                      + ")", aim)


def _moment_apart(bench: BodyBenchmark, count: int) -> tuple[Sighting, Sighting]:
    """People near the pose prior's mean as a detector finds them, and a little moved."""
    mean = torch.cat([torch.zeros(1, 3), bench.prior.mean.float()])
    seen = Projector(bench.model, mean[None], seed=bench.seed).draw(count)
    points = seen.points.double()
    moved = points + 0.3 * _PIXEL_STD * _normal(bench, *points.shape)
    return Sighting(points, seen.cov.double()), Sighting(moved, seen.cov.double())


def _seconds(fitter: Fitter, sighting: Sighting, previous: Previous | None) -> float:
    start = time.perf_counter()
    fitter.correct(sighting, fitter.fit(sighting, previous))
    return time.perf_counter() - start


# ---------------------------------------------------------------------------------- table


class Part(NamedTuple):
    """Rows that go together, and the files they need."""

    rows: Callable[[BodyBenchmark], Iterator[BodyRow]]
    needs: tuple[str, ...] = ()


PARTS = {"correction": Part(correction), "fit": Part(fit, (_MOCAP,)),
         "mupots": Part(mupots_truth, (_MUPOTS,)), "mupots-noise": Part(mupots_noisy, (_MUPOTS,)),
         "depth": Part(depth, (_MOCAP,)),
         "video": Part(clips, tuple(name for clip in _CLIPS
                                    for name in (clip, clip.replace(".json", ".mp4")))),
         "cost": Part(cost)}


@torch.inference_mode()
def rows(bench: BodyBenchmark, names: list[str]) -> list[BodyRow]:
    """The rows of some parts; those whose data is missing say what is missing."""
    out = []
    for name in names:
        part = PARTS[name]
        missing = [file for file in part.needs if not (bench.data / file).exists()]
        if missing:
            out.append(BodyRow(name, f"skipped: no {', '.join(missing)} in {bench.data}", "-"))
            continue
        log.info("%s", name)
        out += part.rows(bench)
    return out


def table(lines: list[BodyRow]) -> str:
    """Rows as a Markdown table."""
    head = ["| row | protocol | figure | target |", "|---|---|---|---|"]
    return "\n".join(head + [f"| {' | '.join(line)} |" for line in lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ROS2_POSE_DATA", "../shared"),
                        help="folder of the data; default: ROS2_POSE_DATA, else ../shared")
    parser.add_argument("--lift", type=Path, default=LIFT, help="weights of the lift")
    parser.add_argument("--rows", type=_part_names, default=list(PARTS),
                        help=f"some of {','.join(PARTS)}")
    parser.add_argument("--people", type=int, default=BodyBenchmark.people, help="made up")
    parser.add_argument("--stride", type=int, default=BodyBenchmark.stride, help="frames of MuPoTS")
    parser.add_argument(
        "--frames", type=int, default=BodyBenchmark.frames, help="of each clip, at most"
    )
    parser.add_argument("--repeats", type=int, default=BodyBenchmark.repeats, help="timed")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bench = BodyBenchmark(BodyModel.load(), PosePrior.load(), Lift.load(args.lift), Path(args.data),
                  args.people, args.stride, args.frames, args.repeats)
    print(table(rows(bench, args.rows)))


def _part_names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(PARTS)}")
    return names


if __name__ == "__main__":
    main()

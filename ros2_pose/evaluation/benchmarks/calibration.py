"""How well the default network's covariances tell its errors, and the constants that make them.

    python -m ros2_pose.evaluation.benchmarks.calibration ANNOTATIONS.json PICTURES [--fit]

ANNOTATIONS.json is a COCO keypoints file, PICTURES the folder of its pictures. Detections are
matched to labelled people by OKS; of those, keypoints count that are labelled as visible and that
the pipeline would use. The errors are those of network and label together.

With --fit, constants are fitted to every second picture and judged on the others, the other way
round too, and those of all pictures are printed. Without, the constants in the code are judged.

A keypoint is an inlier with a probability, by which it counts in the inliers' coverage. That could
flatter a model that takes too much for outliers; the coverage of all errors beside what the model
expects it to be cannot.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import expit

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.evaluation.benchmarks.keypoints import EvaluationError, read_image
from ros2_pose.evaluation.metrics.pose import mahalanobis_squared
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE, KeypointNoise
from ros2_pose.networks.movenet import MoveNet
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17

_SAME_PERSON = 0.3  # OKS above which a detection is of a labelled person
_VISIBLE = 2
_ELLIPSES = np.array([0.68, 0.95])
_SQUARED = -2 * np.log1p(-_ELLIPSES)  # squared radii of those ellipses, in standard deviations

# Labels are few: each kind's constants are drawn to those of all by a normal prior on their
# logarithms (logits of the outliers' share), as wide as kinds may differ; that is itself around a
# guess, which matters where there is next to no data.
_KINDS = tuple(dict.fromkeys(COCO17.kinds))
_KIND = np.array([_KINDS.index(kind) for kind in COCO17.kinds])  # (17,)
_SPREAD = np.array([0.3, 1.5, 0.2])[:, None]  # of votes, floor^2, outliers
_GUESS, _GUESS_STD = np.array([-1.5, -8.5, -2.5]), 1.0


@dataclass(frozen=True)
class Errors:
    """N keypoints of people both detected and labelled."""

    error: np.ndarray  # (N, 2) px, detected less labelled
    votes_cov: np.ndarray  # (N, 2, 2) px^2, of the heat-map's votes
    area: np.ndarray  # (N,) px^2, of the person by the detection's box
    joint: np.ndarray  # (N,) COCO order
    person: np.ndarray  # (N,) numbers of the people
    picture: np.ndarray  # (N,) numbers of the pictures

    def __len__(self) -> int:
        return len(self.error)

    def __getitem__(self, rows: np.ndarray) -> Errors:
        return Errors(*(getattr(self, f.name)[rows] for f in fields(self)))

    def cov(self, noise: KeypointNoise) -> np.ndarray:
        """(N, 2, 2) px^2, what a noise model says."""
        return noise.at(self.joint).cov(self.votes_cov, self.area)


class _Variables(NamedTuple):
    """What is fitted, by kind of keypoint and for all."""

    kinds: np.ndarray  # (3, 9) log votes, log floor^2, logit of the outliers' share
    mean: np.ndarray  # (3,) of all kinds
    log_wide: float


# ------------------------------------------------------------------------------- pictures


def collect(annotations: Path, images: Path, config: PoseConfig = PoseConfig()) -> Errors:
    """The default network's errors in the pictures of a COCO file."""
    network = MoveNet(replace(config, score_threshold=0.1))
    parts = []
    for picture, (name, truth, areas) in enumerate(_labelled(annotations)):
        people = network.detect([Frame(read_image(images / name))])[0]
        parts += _errors(people, truth, areas, picture, config.keypoint_threshold)
    if not parts:
        raise EvaluationError(f"{annotations}: nobody labelled was detected")
    joined = Errors(*(np.concatenate([getattr(part, f.name) for part in parts])
                      for f in fields(Errors)))
    return replace(joined, person=np.repeat(np.arange(len(parts)), [len(p) for p in parts]))


def _labelled(annotations: Path):
    """Name, labels (G, 17, 3) with pixel centres at +0.5, and areas (G,) of each picture."""
    try:
        listing = json.loads(annotations.read_text())
        people = {info["id"]: [] for info in listing["images"]}
        for entry in listing["annotations"]:
            if not entry.get("iscrowd") and any(entry["keypoints"][2::3]):
                people[entry["image_id"]].append(entry)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EvaluationError(f"{annotations} is not a COCO keypoints file: {error}") from error
    for info in listing["images"]:
        found = people[info["id"]]
        if found:
            points = np.array([entry["keypoints"] for entry in found], float).reshape(-1, 17, 3)
            yield (info["file_name"], points + (0.5, 0.5, 0),
                   np.array([entry["area"] for entry in found]))


def _errors(people: People, truth: np.ndarray, areas: np.ndarray, picture: int,
            threshold: float) -> list[Errors]:
    """Those of each person (G, 17, 3) who is found."""
    labelled = np.where(truth[..., 2:] > 0, truth[..., :2], np.nan)
    similarities = oks.similarity(people.keypoints[:, None], labelled[None], areas)
    sizes = oks.area(people.boxes)
    votes = KEYPOINT_NOISE.votes_cov(people.keypoint_cov, sizes[:, None])
    found = []
    for row, person in zip(*linear_sum_assignment(-similarities)):
        joints = np.flatnonzero((truth[person, :, 2] == _VISIBLE)
                                & (people.keypoint_scores[row] >= threshold))
        if similarities[row, person] > _SAME_PERSON and len(joints):
            found.append(Errors((people.keypoints[row] - labelled[person])[joints],
                                votes[row, joints], np.full(len(joints), sizes[row]), joints,
                                np.full(len(joints), person), np.full(len(joints), picture)))
    return found


# ------------------------------------------------------------------------------------ fit


def fit(errors: Errors) -> KeypointNoise:
    """The most probable constants.

    An inlier is normal, an outlier as well, only wider: a mixture that leaves the ellipses to the
    inliers, where one normal would have to be as wide as the worst, and whose tails are about those
    of the body fit's Cauchy loss.
    """
    start = np.r_[np.repeat(_GUESS, len(_KINDS)), _GUESS, np.log(3.0)]
    scaled = _scaled(errors)
    best = minimize(_cost, start, (scaled,), method="L-BFGS-B").x
    return _with_deviations(_noise(_unpack(best)), scaled)


def _scaled(errors: Errors) -> Errors:
    """The same in sizes of the person."""
    return replace(errors, error=errors.error / np.sqrt(errors.area)[:, None],
                   votes_cov=errors.votes_cov / errors.area[:, None, None],
                   area=np.ones_like(errors.area))


def _unpack(values: np.ndarray) -> _Variables:
    return _Variables(values[:-4].reshape(3, -1), values[-4:-1], values[-1])


def _noise(found: _Variables) -> KeypointNoise:
    votes, floor2, odds = found.kinds[:, _KIND]
    return replace(KEYPOINT_NOISE, votes=np.exp(votes), floor=np.exp(floor2 / 2),
                   outliers=expit(odds), wide=np.exp(found.log_wide))


def _cost(values: np.ndarray, errors: Errors) -> float:
    """Negative log posterior."""
    found = _unpack(values)
    inlier, outlier, _ = log_densities(_noise(found), errors)
    prior = (((found.kinds - found.mean[:, None]) / _SPREAD) ** 2).sum() \
        + (((found.mean - _GUESS) / _GUESS_STD) ** 2).sum()
    return prior / 2 - np.logaddexp(inlier, outlier).sum()


def log_densities(noise: KeypointNoise, errors: Errors):
    """Logarithms (N,) of the densities of being an inlier with such an error and an outlier with
    such an error, and the squared error (N,) in standard deviations."""
    cov = errors.cov(noise)
    squared = mahalanobis_squared(errors.error, cov)
    normal = -np.log(2 * np.pi) - np.log(np.linalg.det(cov)) / 2
    share = noise.outliers[errors.joint]
    return (np.log1p(-share) + normal - squared / 2,
            np.log(share) + normal - squared / (2 * noise.wide**2) - 2 * np.log(noise.wide),
            squared)


def _with_deviations(noise: KeypointNoise, errors: Errors) -> KeypointNoise:
    """With how V varies from joint to joint and person to person; errors in sizes."""
    axes = np.linalg.eigvalsh(errors.cov(noise))  # (N, 2) rising
    log_std = np.log(axes).mean(1) / 2
    median_std = _by_kind(log_std, errors.joint)
    rest = log_std - median_std[errors.joint]
    _, person, count = np.unique(errors.person, return_inverse=True, return_counts=True)
    mean = np.bincount(person, rest) / count
    own2 = ((rest - mean[person]) ** 2).sum() / max(len(errors) - len(count), 1)
    person2 = max((mean**2).mean() - own2 * (1 / count).mean(), 0.0)
    stretch = np.log(axes[:, 1] / axes[:, 0]) / 2
    return replace(noise, median_std=np.exp(median_std), person_std=np.sqrt(person2),
                   joint_std=np.sqrt(own2), stretch_std=np.sqrt((stretch**2).mean()))


def _by_kind(values: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """(17,) the mean over a joint's kind; where there is none, over all."""
    kind = _KIND[joint]
    mean = [values[kind == k].mean() if (kind == k).any() else values.mean()
            for k in range(len(_KINDS))]
    return np.array(mean)[_KIND]


# ---------------------------------------------------------------------------------- judge


class Judged(NamedTuple):
    """N keypoints judged by constants that have not seen them."""

    kind: np.ndarray  # (N,)
    inlier: np.ndarray  # (N,) probability
    votes: np.ndarray  # (N,) squared error by the votes' covariance as it is
    calibrated: np.ndarray  # (N,) and by the noise model's
    expected: np.ndarray  # (N, 2) chances of being within the two ellipses, outlier or not


def judge(noise: KeypointNoise, errors: Errors) -> Judged:
    """What a noise model says of errors."""
    inlier, outlier, squared = log_densities(noise, errors)
    share = noise.outliers[errors.joint, None]
    within = (1 - share) * _ELLIPSES - share * np.expm1(-_SQUARED / (2 * noise.wide**2))
    # A vote of one cell has no spread at all.
    votes = errors.votes_cov + 1e-6 * errors.area[:, None, None] * np.eye(2)
    return Judged(_KIND[errors.joint], expit(inlier - outlier),
                  mahalanobis_squared(errors.error, votes), squared, within)


def two_fold(errors: Errors) -> Judged:
    """Every second picture judged by constants of the others."""
    odd = np.unique(errors.picture, return_inverse=True)[1] % 2 == 1
    halves = [judge(fit(errors[~half]), errors[half]) for half in (odd, ~odd)]
    return Judged(*map(np.concatenate, zip(*halves)))


def coverage(squared: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(2,) share within the 68 % and the 95 % ellipse."""
    return weights @ (squared[:, None] <= _SQUARED) / weights.sum()


def table(noise: KeypointNoise, judged: Judged) -> str:
    """Markdown: a noise model's constants by kind of keypoint, and how it was judged."""
    lines = ["Covariance: a times that of the votes, plus b times the person's size squared. "
             "Coverage: % within the 68 % / 95 % ellipse.", "",
             "| joint | n | a | root of b, % of size | outliers, % | inliers, a = 1, b = 0 "
             "| inliers, calibrated | all, calibrated | all, expected |", "|" + "---|" * 9]
    for kind, name in enumerate(_KINDS):
        at, rows = kind == _KIND, judged.kind == kind
        if rows.any():
            constants = (f"{noise.votes[at].mean():.2f} | {100 * noise.floor[at].mean():.1f} | "
                         f"{100 * noise.outliers[at].mean():.0f}")
            lines.append(_row(name, constants, Judged(*(value[rows] for value in judged))))
    return "\n".join([*lines, _row("all", "| | ", judged)])


def _row(name: str, constants: str, judged: Judged) -> str:
    every = np.ones(len(judged.kind))
    cells = (coverage(judged.votes, judged.inlier), coverage(judged.calibrated, judged.inlier),
             coverage(judged.calibrated, every), judged.expected.mean(0))
    text = " | ".join(f"{100 * a:.0f} / {100 * b:.0f}" for a, b in cells)
    return f"| {name} | {len(every)} | {constants} | {text} |"


def constants(noise: KeypointNoise) -> str:
    """A noise model as networks/keypoint_noise.py states it."""
    first = [int(np.flatnonzero(kind == _KIND)[0]) for kind in range(len(_KINDS))]
    lines = [f'"{name}": ({noise.votes[j]:.2f}, {noise.floor[j]:.4f}, {noise.outliers[j]:.2f}, '
             f"{noise.median_std[j]:.3f})," for name, j in zip(_KINDS, first)]
    names = ("wide", "person_std", "joint_std", "stretch_std")
    return "\n".join(lines + [f"{name} = {getattr(noise, name):.2f}" for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotations", type=Path, help="person_keypoints_*.json")
    parser.add_argument("images", type=Path, help="folder of its pictures")
    parser.add_argument("--fit", action="store_true", help="fit new constants and judge those")
    args = parser.parse_args()
    try:
        errors = collect(args.annotations, args.images)
    except PoseError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if args.fit:
        noise = fit(errors)
        print(table(noise, two_fold(errors)), "", constants(noise), sep="\n")
    else:
        print(table(KEYPOINT_NOISE, judge(KEYPOINT_NOISE, errors)))


if __name__ == "__main__":
    main()

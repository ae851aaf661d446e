"""Calibration of a network's covariances, and the fit of their constants.

    python -m ros2_pose.evaluation.benchmarks.calibration ANNOTATIONS.json PICTURES [--fit]
                                                          [--network movenet] [--refiner san]

ANNOTATIONS.json is a COCO keypoints file, PICTURES the folder of its pictures. Detections are
matched to labelled people by OKS; of those, keypoints count that are labelled as visible and that
the pipeline would use. The errors are those of network and label together.

With --fit, constants are fitted to every second picture and judged on the others, and the other way
round; the constants fitted to all pictures are printed. Without it, the constants in the code are
judged.

Each keypoint has a probability of being an inlier, its weight in the coverage of inliers. That
figure alone would favour a model that declares too many outliers; the coverage of all errors,
compared with the coverage that the model expects, does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment, minimize
from scipy.special import expit

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks.keypoints import read_image
from ros2_pose.evaluation.harness import Benchmark, Curve, EvaluationError, Options, Row
from ros2_pose.evaluation.plots import ERROR_BY_JOINT_PERCENT, RELIABILITY, SHARES
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE, KeypointNoise
from ros2_pose.networks.registry import create_network
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17
from ros2_pose.tracking.kalman import squared_mahalanobis

_SAME_PERSON = 0.3  # OKS above which a detection is of a labelled person
_VISIBLE = 2
_ELLIPSES = np.array([0.68, 0.95])
_SQUARED = -2 * np.log1p(-_ELLIPSES)  # squared radii of those ellipses, in standard deviations

# Labels are few: the constants of each kind have a normal prior around their mean over all kinds
# (in logarithms, logits for the outliers' share); the mean has a prior around a guess.
_KINDS = tuple(dict.fromkeys(COCO17.kinds))
_KIND = np.array([_KINDS.index(kind) for kind in COCO17.kinds])  # (17,)
_SPREAD = np.array([0.3, 1.5, 0.2])[:, None]  # of votes, floor^2, outliers
_BY_SCORE_STD = 3.0
_GUESS, _GUESS_STD = np.array([-1.5, -8.5, -2.5]), 1.0


@dataclass(frozen=True)
class Errors:
    """Errors of N keypoints of people both detected and labelled."""

    error: np.ndarray  # (N, 2) px, detected less labelled
    votes_cov: np.ndarray  # (N, 2, 2) px^2, of the heat-map's votes
    area: np.ndarray  # (N,) px^2, of the person by the detection's box
    score: np.ndarray  # (N,) of the keypoint, 0..1
    joint: np.ndarray  # (N,) COCO order
    person: np.ndarray  # (N,) numbers of the people
    picture: np.ndarray  # (N,) numbers of the pictures

    def __len__(self) -> int:
        return len(self.error)

    def __getitem__(self, rows: np.ndarray) -> Errors:
        return Errors(*(getattr(self, f.name)[rows] for f in fields(self)))

    def cov(self, noise: KeypointNoise) -> np.ndarray:
        """(N, 2, 2) px^2: the covariances by a noise model."""
        return noise.at(self.joint).cov(self.votes_cov, self.area, self.score)


# ------------------------------------------------------------------------------- pictures


def collect(annotations: Path, images: Path, config: PoseConfig = PoseConfig()) -> Errors:
    """Collect the configured network's errors in the pictures of a COCO keypoints file.

    Raises EvaluationError if the file or a picture cannot be read, or no one in it is detected.
    """
    network = create_network(config)
    network.configure(0.1, network.max_people)
    noise = network.keypoint_noise
    if noise is None:
        raise EvaluationError(f"network {config.network} states its covariances by no error model")
    parts = []
    for picture, (name, truth, areas) in enumerate(_labelled(annotations)):
        people = network.detect([Frame(read_image(images / name))])[0]
        parts += _errors(people, truth, areas, picture, config.keypoint_threshold, noise)
    if not parts:
        raise EvaluationError(f"{annotations}: no labelled person was detected")
    joined = Errors(*(np.concatenate([getattr(part, f.name) for part in parts])
                      for f in fields(Errors)))
    return replace(joined, person=np.repeat(np.arange(len(parts)), [len(p) for p in parts]))


def _labelled(annotations: Path):
    """Name, labels (G, 17, 3) with pixel centres at +0.5, and areas (G,) of each picture."""
    try:
        listing = json.loads(annotations.read_text())
        people: dict[int, list[dict]] = {info["id"]: [] for info in listing["images"]}
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
            threshold: float, noise: KeypointNoise) -> list[Errors]:
    """The errors of each labelled person (G, 17, 3: x, y px, visibility) that was detected."""
    labelled = np.where(truth[..., 2:] > 0, truth[..., :2], np.nan)
    similarities = oks.similarity(people.keypoints[:, None], labelled[None], areas)
    sizes = oks.area(people.boxes)
    votes = noise.votes_cov(people.keypoint_cov, sizes[:, None], people.keypoint_scores)
    found = []
    for row, person in zip(*linear_sum_assignment(-similarities)):
        joints = np.flatnonzero((truth[person, :, 2] == _VISIBLE)
                                & (people.keypoint_scores[row] >= threshold))
        if similarities[row, person] > _SAME_PERSON and len(joints):
            found.append(Errors((people.keypoints[row] - labelled[person])[joints],
                                votes[row, joints], np.full(len(joints), sizes[row]),
                                people.keypoint_scores[row, joints], joints,
                                np.full(len(joints), person), np.full(len(joints), picture)))
    return found


# ------------------------------------------------------------------------------------ fit


def fit(errors: Errors) -> KeypointNoise:
    """Fit the most probable constants to errors.

    Errors are a mixture of two normal distributions: inliers, and outliers `wide` times as wide.
    A single normal would have to be as wide as the worst errors. The tails are similar to those of
    the body fit's Cauchy loss.
    """
    start = np.r_[np.repeat(_GUESS, len(_KINDS)), _GUESS, np.log(3.0), 0.0]
    scaled = _scaled(errors)
    best = minimize(_cost, start, (scaled,), method="L-BFGS-B").x
    kinds, _, log_wide, by_score = _unpack(best)
    return _with_deviations(_noise(kinds, log_wide, by_score), scaled)


def _scaled(errors: Errors) -> Errors:
    """The same errors in units of the person's size."""
    return replace(errors, error=errors.error / np.sqrt(errors.area)[:, None],
                   votes_cov=errors.votes_cov / errors.area[:, None, None],
                   area=np.ones_like(errors.area))


def _unpack(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """The unknowns of the fit.

    Returns: (3, 9) log votes, log floor^2 and logit of the outliers' share of each kind of
        keypoint; their means over all kinds (3,); log of `wide`; `by_score`.
    """
    return values[:-5].reshape(3, -1), values[-5:-2], values[-2], values[-1]


def _noise(kinds: np.ndarray, log_wide: float, by_score: float) -> KeypointNoise:
    """The noise model of the unknowns (see `_unpack`)."""
    votes, floor2, odds = kinds[:, _KIND]
    return replace(KEYPOINT_NOISE, votes=np.exp(votes), floor=np.exp(floor2 / 2),
                   outliers=expit(odds), wide=np.exp(log_wide), by_score=by_score)


def _cost(values: np.ndarray, errors: Errors) -> float:
    """Negative log posterior."""
    kinds, mean, log_wide, by_score = _unpack(values)
    inlier, outlier, _ = log_densities(_noise(kinds, log_wide, by_score), errors)
    prior = (((kinds - mean[:, None]) / _SPREAD) ** 2).sum() \
        + (((mean - _GUESS) / _GUESS_STD) ** 2).sum() + (by_score / _BY_SCORE_STD) ** 2
    return prior / 2 - np.logaddexp(inlier, outlier).sum()


def log_densities(noise: KeypointNoise, errors: Errors):
    """Log densities of the errors as inliers (N,) and as outliers (N,), each with its probability,
    and the squared Mahalanobis distances (N,)."""
    cov = errors.cov(noise)
    squared = squared_mahalanobis(errors.error, cov)
    normal = -np.log(2 * np.pi) - np.log(np.linalg.det(cov)) / 2
    share = noise.outliers[errors.joint]
    return (np.log1p(-share) + normal - squared / 2,
            np.log(share) + normal - squared / (2 * noise.wide**2) - 2 * np.log(noise.wide),
            squared)


def _with_deviations(noise: KeypointNoise, errors: Errors) -> KeypointNoise:
    """The noise model with the variation of covariances between joints and people."""
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
    """(17,) mean of values (N,) over the kind of each joint; of all, if a kind has none."""
    kind = _KIND[joint]
    mean = [values[kind == k].mean() if (kind == k).any() else values.mean()
            for k in range(len(_KINDS))]
    return np.array(mean)[_KIND]


# ---------------------------------------------------------------------------------- judge


# N keypoints judged by a noise model that was not fitted to them, see `judge`.
Judged = dict[str, np.ndarray]


def judge(noise: KeypointNoise, errors: Errors) -> Judged:
    """Judge errors by a noise model.

    Returns: for N keypoints "kind" (N,); "inlier" (N,), probability; "votes" and "calibrated" (N,),
        squared Mahalanobis distances by the votes' covariance and by the noise model's; "expected"
        (N, 2), probability to be inside the two ellipses, inlier or outlier.
    """
    inlier, outlier, squared = log_densities(noise, errors)
    share = noise.outliers[errors.joint, None]
    within = (1 - share) * _ELLIPSES - share * np.expm1(-_SQUARED / (2 * noise.wide**2))
    # If all votes are for one cell their covariance is zero.
    votes = errors.votes_cov + 1e-6 * errors.area[:, None, None] * np.eye(2)
    return {"kind": _KIND[errors.joint], "inlier": expit(inlier - outlier),
            "votes": squared_mahalanobis(errors.error, votes), "calibrated": squared,
            "expected": within}


def two_fold(errors: Errors) -> Judged:
    """Judge every second picture by constants fitted to the others, in the order of `errors`."""
    odd = np.unique(errors.picture, return_inverse=True)[1] % 2 == 1
    halves = [judge(fit(errors[~half]), errors[half]) for half in (odd, ~odd)]
    order = np.argsort(np.concatenate([np.flatnonzero(odd), np.flatnonzero(~odd)]))
    return {name: np.concatenate([half[name] for half in halves])[order] for name in halves[0]}


def coverage(squared: np.ndarray, weights: np.ndarray,
             stated: np.ndarray = _ELLIPSES) -> np.ndarray:
    """(S,) observed shares of errors inside the ellipses that hold the stated shares (S,).

    Args:
        squared (N,): squared Mahalanobis distances of 2D errors.
        weights (N,): by which each error counts.
    """
    return weights @ (squared[:, None] <= -2 * np.log1p(-stated)) / weights.sum()


def rows(noise: KeypointNoise, judged: Judged) -> Iterator[Row]:
    """A noise model's constants and coverage, for each kind of keypoint and for all."""
    for kind, name in enumerate(_KINDS):
        at, chosen = kind == _KIND, judged["kind"] == kind
        if chosen.any():
            yield _row(name, {key: value[chosen] for key, value in judged.items()},
                       noise.votes[at].mean(), 100 * noise.floor[at].mean(),
                       100 * noise.outliers[at].mean())
    yield _row("all", judged)


def _row(name: str, judged: Judged, votes: float = np.nan, floor: float = np.nan,
         outliers: float = np.nan) -> Row:
    every = np.ones(len(judged["kind"]))
    coverages = {"inliers, a = 1, b = 0": coverage(judged["votes"], judged["inlier"]),
                 "inliers, calibrated": coverage(judged["calibrated"], judged["inlier"]),
                 "all, calibrated": coverage(judged["calibrated"], every),
                 "all, expected": judged["expected"].mean(0)}
    values: dict[str, float] = {"n": len(every), "a": votes, "root of b, % of size": floor,
                                "outliers, %": outliers}
    for what, shares in coverages.items():
        values |= {f"{what}: inside {100 * stated:.0f} %, %": 100 * share
                   for stated, share in zip(_ELLIPSES, shares)}
    return Row(name, "covariance: a times that of the votes, plus b times the person's size "
               "squared; coverage by ellipses of 68 and 95 %", values)


def curves(errors: Errors, judged: Judged) -> Iterator[Curve]:
    """Reliability of the covariances, and the median error of each kind of keypoint."""
    every = np.ones(len(judged["kind"]))
    shares = np.array(SHARES)
    for label, squared in (("2D keypoints, votes alone", judged["votes"]),
                           ("2D keypoints, calibrated", judged["calibrated"])):
        yield Curve(RELIABILITY, label, shares.tolist(), coverage(squared, every, shares).tolist())
    percent = 100 * np.linalg.norm(errors.error, axis=1) / np.sqrt(errors.area)
    present = [kind for kind in range(len(_KINDS)) if (_KIND[errors.joint] == kind).any()]
    yield Curve(ERROR_BY_JOINT_PERCENT, "network", [_KINDS[kind] for kind in present],
                [float(np.median(percent[_KIND[errors.joint] == kind])) for kind in present])


def constants(noise: KeypointNoise) -> str:
    """A noise model as Python source for networks/movenet.py."""
    first = [int(np.flatnonzero(kind == _KIND)[0]) for kind in range(len(_KINDS))]
    lines = [f'"{name}": ({noise.votes[j]:.2f}, {noise.floor[j]:.4f}, {noise.outliers[j]:.2f}, '
             f"{noise.median_std[j]:.3f})," for name, j in zip(_KINDS, first)]
    names = ("wide", "person_std", "joint_std", "stretch_std", "by_score")
    return "\n".join(lines + [f"{name} = {getattr(noise, name):.2f}" for name in names])


def calibration(options: Options) -> Iterator[Row | Curve]:
    """Judge the constants in the code; with Options.fit new ones, which are printed, too."""
    assert options.annotations is not None and options.images is not None
    config = PoseConfig(network=options.network, refiner=options.refiner)
    errors = collect(options.annotations, options.images, config)
    stated = create_network(config).keypoint_noise
    assert stated is not None
    noise = fit(errors) if options.fit else stated
    judged = two_fold(errors) if options.fit else judge(noise, errors)
    yield from rows(noise, judged)
    yield from curves(errors, judged)
    if options.fit:
        print(constants(noise))


BENCHMARKS = {"calibration": Benchmark(calibration, ("--annotations", "--images"),
                                       ("annotations", "images", "fit", "network",
                                                       "refiner"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__, positional=("annotations", "images"))

"""Train `ros2_pose.body.lift`.

    python -m ros2_pose.training.train_lift --mocap cmu_theta_10hz.npz --out lift.pt

About half an hour on two CPU cores. Beside the weights lies their log (.csv). When it was
interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import trange

from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.lift import FILE, HYPOTHESES, MEMORY, Lift, Lifted
from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import quat_from_rotmat, rotmat_from_quat
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.keypoints import Projections, Projector
from ros2_pose.data.synthetic.motion import MotionProjector, Motions
from ros2_pose.errors import PoseError
from ros2_pose.training.losses import gaussian_nll, pose_loss, shape_loss

log = logging.getLogger(__name__)

# Weights of Tian et al. 2023 (its "case 4"), without that of the detection.
_SHAPE, _POSE, _SMPL, _NLL = 0.20, 0.25, 0.15, 0.30
_CHOICE = 0.3  # weight of the hypotheses' cross-entropy
_JOINT_UNIT_M = 0.03  # of L_SMPL: makes its gradients about as large as the others'
_ROOT_UNIT = 0.1  # of the distance
_CHOICE_M = 0.08  # hypotheses share a person if their joints' errors differ by less
_LEAST_SHARE = 0.03  # of a person, that every hypothesis is trained on
_EMA = 0.999
_WARMUP = 500  # steps
_MM, _PERCENT = 1e3, 100
_LOG_EVERY = 250
_STEPS = 16  # images of a person that the memory is trained on at once


def losses(lifted: Lifted, truth: Projections, model: BodyModel) -> dict[str, Tensor]:
    """Compute the loss of H hypotheses for P people.

    A hypothesis is trained on a person by its posterior probability: the better its joints, the
    more.

    Args:
        lifted: outputs of the lift.
        truth: people, projected to keypoints.
        model: body model.
    Returns:
        Terms, means over people; "total", their weighted sum; "mpjpe_mm" of the likeliest and
        "best_mpjpe_mm" of the best hypothesis and "depth_percent" for the log.
    """
    betas, root = truth.betas[:, None], truth.root[:, None]
    rotmats = rotmat_from_quat(lifted.theta)
    posed = pose_rig(model.rig(rotmats), rotmats.flatten(0, 1), lifted.betas.flatten(0, 1),
                     lifted.root.flatten(0, 1))
    joints = posed.joints.unflatten(0, (-1, HYPOTHESES)) - lifted.root[:, :, None]
    true_joints = (truth.joints - truth.root[:, None])[:, None]
    error_m = (joints - true_joints).norm(dim=3)  # (P, H, 24)
    relative = rotmats.transpose(3, 4) @ truth.rotmats[:, None]
    squared_angle = _squared_angle(relative)
    shift = relative_shift(lifted.root, root)
    terms = {
        "shape": shape_loss(lifted.betas, betas.expand_as(lifted.betas)),
        "pose": pose_loss(lifted.theta, quat_from_rotmat(truth.rotmats)[:, None]),
        "smpl": (error_m / _JOINT_UNIT_M).mean(2),
        "root": shift.abs().sum(2) / _ROOT_UNIT,
        "nll": gaussian_nll(squared_angle, lifted.rotation_std, 3).sum(2) / 24
        + gaussian_nll(shift.square(), lifted.root_std).sum(2)}
    mean_error_m = error_m.mean(2)  # (P, H)
    log_prior = lifted.logits.log_softmax(1)
    posterior = torch.softmax(log_prior - (mean_error_m / _CHOICE_M) ** 2 / 2, 1).detach()
    share = posterior * (1 - HYPOTHESES * _LEAST_SHARE) + _LEAST_SHARE
    terms = {name: (share * term).sum(1).mean() for name, term in terms.items()}
    terms["choice"] = -(posterior * log_prior).sum(1).mean()
    terms["total"] = (_SHAPE * terms["shape"] + _POSE * terms["pose"]
                      + _SMPL * (terms["smpl"] + terms["root"])
                      + _NLL * terms["nll"] + _CHOICE * terms["choice"])
    likeliest = lifted.logits.argmax(1, keepdim=True)
    terms["mpjpe_mm"] = _MM * mean_error_m.gather(1, likeliest).mean()
    terms["best_mpjpe_mm"] = _MM * mean_error_m.amin(1).mean()
    terms["depth_percent"] = _PERCENT * shift[..., 2].gather(1, likeliest).abs().median()
    return terms


def _squared_angle(rotmats: Tensor) -> Tensor:
    """Return 4 sin^2(angle / 2) (...) of rotations (..., 3, 3), a smooth squared angle, rad^2."""
    return (3 - rotmats.diagonal(dim1=-2, dim2=-1).sum(-1)).clamp(min=0)


def relative_shift(root: Tensor, truth: Tensor) -> Tensor:
    """Return the errors (P, H, 3) of roots relative to the distance: right, down, log distance."""
    distance, true_distance = root.norm(dim=2, keepdim=True), truth.norm(dim=2, keepdim=True)
    aside = root[..., :2] / distance - truth[..., :2] / true_distance
    return torch.cat([aside, (distance / true_distance).log()], 2)


Losses = Callable[[Any, Projections, BodyModel], dict[str, Tensor]]


class LiftTrainer:
    """A network of simulated keypoints, its averaged weights, and the state that resuming needs.
    """

    def __init__(self, projector: Projector, steps: int, batch: int, rate: float,
                 network: type[nn.Module] = Lift, losses: Losses = losses) -> None:
        """Prepare a training.

        Args:
            projector: draws people and their keypoints.
            steps: of the training.
            batch: people per step.
            rate: AdamW's highest learning rate.
            network: class of the network that is trained.
            losses: from its outputs, the people's truth and the body model to the terms.
        """
        self.losses = losses
        self.projector, self.steps, self.batch = projector, steps, batch
        torch.manual_seed(0)
        self.network, self.average = network(), network()
        self.average.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.AdamW(self.network.parameters(), rate, weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.step = 0
        self.lines: list[dict] = []

    def _rate(self, step: int) -> float:
        """Return the learning rate relative to the highest: a warm-up, then half a cosine."""
        warm = min(1.0, (step + 1) / _WARMUP)
        cosine = 1 + math.cos(math.pi * min(1.0, step / self.steps))
        return warm * (0.02 + 0.98 * cosine / 2)

    def terms(self, network: nn.Module, projector: Projector, people: int) -> dict[str, Tensor]:
        """Return a network's terms of the loss for people drawn."""
        truth = projector.draw(people)
        return self.losses(network(truth.points, truth.cov), truth, projector.model)

    def train_step(self) -> dict[str, float]:
        """Train one step.

        Returns:
            The terms of the loss, see `losses`.
        Raises:
            PoseError: the loss is not finite.
        """
        terms = self.terms(self.network, self.projector, self.batch)
        if not terms["total"].isfinite():
            listed = ", ".join(f"{name} {float(v.detach()):g}" for name, v in terms.items())
            raise PoseError(f"step {self.step}: the loss is not finite: {listed}")
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        with torch.no_grad():
            keep = min(_EMA, self.step / (self.step + 10))
            for mean, now in zip(self.average.parameters(), self.network.parameters()):
                mean.lerp_(now, 1 - keep)
        return {name: float(value.detach()) for name, value in terms.items()}

    def state(self) -> dict:
        """Return the state that `resume` needs."""
        return {"network": self.network.state_dict(), "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                "random": self.projector.random.get_state(), "step": self.step,
                "lines": self.lines}

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Start from a trained lift's weights, as `_write` saves them, with or without a memory."""
        for network in (self.network, self.average):
            own = {name: value for name, value in network.state_dict().items()
                   if name.startswith(MEMORY)}
            network.load_state_dict(own | weights)

    def resume(self, state: dict) -> None:
        """Continue exactly where `state` was taken."""
        for name in ("network", "average", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.projector.random.set_state(state["random"])
        self.step, self.lines = state["step"], state["lines"]


class MotionTrainer(LiftTrainer):
    """Trains the lift's memory on people in motion; `batch` counts images."""

    def terms(self, network: nn.Module, projector: Projector, people: int) -> dict[str, Tensor]:
        """Return a lift's terms of the loss for people drawn, at all times."""
        assert isinstance(network, Lift) and isinstance(projector, MotionProjector)
        seconds, truths = projector.draw_sequence(people // _STEPS, _STEPS)
        state, found = None, []
        for truth, interval in zip(truths, seconds):
            lifted, state = network.remember(truth.points, truth.cov, None, state, interval)
            found.append(lifted)
        terms = self.losses(_joined(found), _joined(truths), projector.model)
        with torch.no_grad():
            for name, step in (("first", 0), ("last", -1)):
                one = self.losses(found[step], truths[step], projector.model)
                terms[f"{name}_mpjpe_mm"] = one["mpjpe_mm"]
        return terms


def _joined(parts: list[Any]) -> Any:
    """Join the people of several named tuples of tensors."""
    return type(parts[0])(*map(torch.cat, zip(*parts)))


@torch.no_grad()
def validate(training: LiftTrainer, projector: Projector, people: int = 2048) -> dict[str, float]:
    """Return the averaged network's terms for held-back people, the same at every call."""
    projector.random.manual_seed(1)
    terms = training.terms(training.average, projector, people)
    return {f"held_back_{name}": float(value) for name, value in terms.items()}


def train(training: LiftTrainer, held_back: Projector, out: Path) -> None:
    """Train to the end.

    Args:
        training: is resumed where an earlier one with the same `out` was interrupted.
        held_back: draws people for validation.
        out: the weights to write; beside it lie the log (.csv) and, until the end, the state for
            resuming (.resume.pt).
    """
    unfinished = out.with_suffix(".resume.pt")
    if unfinished.exists():
        training.resume(torch.load(unfinished, weights_only=True))
        log.info("resumed at step %d", training.step)
    for _ in trange(training.step, training.steps, unit="step", mininterval=10):
        terms = training.train_step()
        if training.step % _LOG_EVERY == 0 or training.step == training.steps:
            line = {"step": training.step} | terms | validate(training, held_back)
            training.lines.append({name: round(value, 5) for name, value in line.items()})
            torch.save(training.state(), unfinished)
            _write(training, out)
    unfinished.unlink(missing_ok=True)


def _write(training: LiftTrainer, out: Path) -> None:
    torch.save({name: value.half() for name, value in training.average.state_dict().items()}, out)
    with open(out.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.DictWriter(file, training.lines[0])
        writer.writeheader()
        writer.writerows(training.lines)


def blended(start: dict[str, Tensor], trained: dict[str, Tensor],
            share: float) -> dict[str, Tensor]:
    """Average trained weights with those that training started from, where both have them.

    The mean forgets less of what training did not show, here of single images.
    Source: Wortsman et al. 2022, Robust Fine-Tuning of Zero-Shot Models.

    Args:
        share: of the trained weights, 0..1.
    """
    return {name: value if name not in start
            else torch.lerp(start[name].float(), value.float(), share).to(value.dtype)
            for name, value in trained.items()}


def argument_parser(description: str, out: Path, steps: int,
                    rate: float) -> argparse.ArgumentParser:
    """Return the options of a training on simulated keypoints, with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mocap", type=Path, required=True,
                        help="npz with theta (N, 24, 3) rad and src (N,) trial names")
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=512, help="people a step")
    parser.add_argument("--rate", type=float, default=rate)
    return parser


def projectors(mocap: Path, in_motion: bool = False) -> tuple[Projector, Projector]:
    """Return what draws people to train on, and those held back, from motion capture."""
    model = BodyModel.load()
    if in_motion:
        return (MotionProjector(model, Motions.read(mocap)),
                MotionProjector(model, Motions.read(mocap, held=True), vary=False))
    return (Projector(model, read_poses(mocap)),
            Projector(model, read_poses(mocap, held=True), vary=False))


def main() -> None:
    parser = argument_parser(__doc__.splitlines()[0], FILE, steps=11_000, rate=1e-3)
    parser.add_argument("--start", type=Path, help="weights of a trained lift to start from, "
                        "e.g. after a change of the simulated noise")
    parser.add_argument("--blend", type=float, default=1.0, help="share of the trained weights in "
                        "the mean with those of --start (1)")
    parser.add_argument("--motion", action="store_true",
                        help="train the memory, too, on people in motion")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    people, others = projectors(args.mocap, args.motion)
    trainer = MotionTrainer if args.motion else LiftTrainer
    training = trainer(people, args.steps, args.batch, args.rate)
    start = None if args.start is None else torch.load(args.start, weights_only=True)
    if start is not None:
        training.start_from(start)
    train(training, others, args.out)
    if start is not None:
        torch.save(blended(start, torch.load(args.out, weights_only=True), args.blend), args.out)


if __name__ == "__main__":
    main()

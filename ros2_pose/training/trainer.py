"""The training of a network of the registry: steps, averaged weights, checkpoints, resuming."""

from __future__ import annotations

import csv
import logging
import math
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ros2_pose.body.model import BodyModel
from ros2_pose.config import ConfigError
from ros2_pose.data.sample import Samples
from ros2_pose.errors import PoseError
from ros2_pose.networks.checkpoint import load_checkpoint, save_checkpoint
from ros2_pose.networks.registry import objective_class
from ros2_pose.networks.trainable import TrainableNet
from ros2_pose.training.augment import Batch, collate, example, person_crop
from ros2_pose.training.config import TrainingConfig
from ros2_pose.training.examples import Endless

log = logging.getLogger(__name__)

_SAVED_EVERY_S = 60.0  # of a training by time
_LEAST_RATE = 0.02  # learning rate at the end, of the highest


class TrainingError(PoseError):
    """Training that cannot go on; the message names the step and the reason."""


class Trainer:
    """The network, its averaged weights, and the state that resuming needs."""

    def __init__(self, net: TrainableNet, config: TrainingConfig, samples: Samples,
                 device: torch.device, rank: int = 0, world: int = 1) -> None:
        """Prepare a training.

        Args:
            net: the network to train.
            config: settings of the training.
            samples: images with truth.
            device: of this process.
            rank: of this process.
            world: number of processes.
        """
        self.config, self.device, self.rank, self.world = config, device, rank, world
        self.step, self.elapsed_s = 0, 0.0
        self.body = BodyModel.load().to(device)
        self.net = net.to(device, memory_format=torch.channels_last)
        if config.parts != "all":
            if config.parts not in net.PARTS:
                raise ConfigError(f"parts: the network {net.NAME} has no {config.parts!r} to train "
                                  "alone: remove the key")
            for name, weight in self.net.named_parameters():
                is_trained = name.split(".")[0] in net.PARTS[config.parts]
                weight.requires_grad_(is_trained and weight.requires_grad)
        self.average = type(net)(net.config).to(device).requires_grad_(False)
        self.average.load_state_dict(net.state_dict())
        self.losses = objective_class(net.NAME)
        self.objective: nn.Module = self.losses(net, config, self.body)
        if world > 1:
            self.objective = nn.parallel.DistributedDataParallel(self.objective,
                                                                 find_unused_parameters=True)
        # One kind of example on all devices of a step: they wait less for each other.
        self.examples = Endless(samples, net.picture_size, config.seed, config.batch * world,
                                config.mosaics, config.roll_deg, config.occluders,
                                config.degraded, net.ONE_PERSON)
        self.optimizer = torch.optim.AdamW(_groups(net, config), weight_decay=config.decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._is_half)
        self.lines: list[dict] = []

    @property
    def _is_half(self) -> bool:
        return self.config.amp and self.device.type == "cuda"

    def _rate(self, step: int) -> float:
        """Return the learning rate relative to the highest: a warm-up, then half a cosine."""
        warm = min(1.0, (step + 1) / self.config.warmup)
        cosine = (1 + math.cos(math.pi * min(1.0, self._progress(step)))) / 2
        return warm * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine)

    def _progress(self, step: int) -> float:
        """Return the share of the training that is done at a step, by steps or by time."""
        by_steps = step / self.config.steps
        if not self.config.minutes:
            return by_steps
        return max(by_steps, self.elapsed_s / (60 * self.config.minutes))

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the time is over."""
        return self._progress(self.step) >= 1

    def took(self, seconds: float) -> None:
        """Add to the time of the training, the same for all processes: that of the first."""
        if self.world > 1:
            together = torch.tensor([seconds], device=self.device)
            torch.distributed.broadcast(together, 0)
            seconds = float(together)
        self.elapsed_s += seconds

    def batches(self) -> DataLoader:
        """Return this device's batches from the next step on."""
        size, whole = self.config.batch, self.config.batch * self.world
        numbers = []
        for step in range(self.step, self.config.steps):
            first = step * whole + self.rank * size
            numbers.append(range(first, first + size))
        return DataLoader(self.examples, batch_sampler=numbers, collate_fn=collate,
                          num_workers=self.config.workers, worker_init_fn=_one_thread,
                          pin_memory=self.device.type == "cuda")

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Train one step.

        Returns:
            The terms of the loss by name, with their sum "total".
        Raises:
            TrainingError: the loss is not finite.
        """
        self.net.train()
        with torch.autocast(self.device.type, enabled=self._is_half):
            terms = self.objective(batch.to(self.device), self.step * self.world + self.rank)
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not math.isfinite(values["total"]):
            listed = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise TrainingError(f"step {self.step}: the loss is not finite: {listed}; lower `rate`,"
                                " or look at the images of this step")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(terms["total"]).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.step += 1
        self._average()
        return values

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.config.average, self.step / (self.step + 10))
        for mean, now in zip(self.average.parameters(), self.net.parameters()):
            mean.lerp_(now, 1 - keep)

    def state(self) -> dict[str, Any]:
        """Return the state that `resume` needs."""
        return {"network": self.net.state_dict(), "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(), "step": self.step,
                "elapsed_s": self.elapsed_s, "lines": self.lines,
                "config": asdict(self.net.config) | asdict(self.config)}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken.

        Raises:
            TrainingError: the state is of a training with other settings.
        """
        now = asdict(self.net.config) | asdict(self.config)
        changed = [f"{name}: {value} then, {now.get(name)} now"
                   for name, value in state["config"].items() if now.get(name) != value]
        if changed:
            raise TrainingError("the training to go on with had other settings ("
                                + "; ".join(changed) + "): put them back, or give another --out")
        self.net.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.lines = state["step"], state["lines"]
        self.elapsed_s = state["elapsed_s"]


def _groups(net: TrainableNet, config: TrainingConfig) -> list[dict]:
    """Return the optimiser's groups of weights: the backbone has its own learning rate."""
    backbone = [] if net.backbone is None else [p for p in net.backbone.parameters()
                                                if p.requires_grad]
    in_backbone = {id(p) for p in backbone}
    rest = [p for p in net.parameters() if p.requires_grad and id(p) not in in_backbone]
    groups: list[dict] = [{"params": rest, "lr": config.rate}]
    if backbone:
        groups.append({"params": backbone, "lr": config.backbone_rate})
    return groups


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


@torch.no_grad()
def validate(training: Trainer, held_back: Samples, pictures: int = 64) -> dict[str, float]:
    """Return the mean terms of the loss of the averaged network for held-back images.

    Args:
        training: has the network.
        held_back: images that it is not trained on.
        pictures: greatest number of images.
    """
    size, batch = training.net.picture_size, training.config.batch
    objective = training.losses(training.average.eval(), training.config, training.body)
    rows = range(min(pictures, len(held_back)))
    values: dict[str, list[float]] = {}
    place = person_crop if training.net.ONE_PERSON else example
    for first in range(0, len(rows), batch):
        examples = [place(held_back[i], size) for i in rows[first:first + batch]]
        for name, term in objective(collate(examples).to(training.device), first).items():
            values.setdefault(name, []).append(float(term))
    return {f"held_back_{name}": float(np.mean(values[name])) for name in sorted(values)}


def train(training: Trainer, held_back: Samples, out: Path) -> None:
    """Train to the end.

    Args:
        training: is resumed where an earlier one with the same `out` was interrupted.
        held_back: images for validation.
        out: the checkpoint to write; beside it lie its log (.csv) and, until the end, the state
            for resuming (.resume.pt).
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".resume.pt")
    if unfinished.exists():
        training.resume(torch.load(unfinished, map_location=training.device, weights_only=True))
        log.info("resumed at step %d", training.step)
    values: dict[str, list[float]] = {}
    bar: Iterable[Batch] = tqdm(training.batches(), initial=training.step,
                                total=training.config.steps, unit="step", mininterval=10,
                                disable=training.rank > 0)
    started = saved = time.monotonic()
    for batch in bar:
        for name, value in training.train_step(batch).items():
            values.setdefault(name, []).append(value)
        if training.config.minutes:
            started, before = time.monotonic(), started
            training.took(started - before)
        is_due = training.config.minutes and started - saved >= _SAVED_EVERY_S
        if not (is_due or training.is_over or training.step % training.config.log_every == 0):
            continue
        if training.rank == 0:
            line: dict[str, float] = {"step": training.step}
            line |= {name: float(np.nanmean(v)) for name, v in values.items()}
            line |= validate(training, held_back)
            training.lines.append({name: round(value, 5) for name, value in line.items()})
            _replace(unfinished, training.state())
            save_checkpoint(out, training.average, commit())
            _write_log(training.lines, out.with_suffix(".csv"))
        values, saved = {}, time.monotonic()
        if training.is_over:
            break
    unfinished.unlink(missing_ok=True)


def _replace(path: Path, state: dict) -> None:
    """Write the file whole or not at all: a full disk or a crash leaves the old one."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _write_log(lines: list[dict], path: Path) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def commit() -> str:
    """Return the git commit of this source, "" outside of a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent,
                          capture_output=True, text=True)
    return done.stdout.strip()


def start(net: TrainableNet, init: Path | None, detector: str = "") -> TrainableNet:
    """Give a new network the weights that its training starts from.

    Args:
        net: new network.
        init: checkpoint to take every weight from.
        detector: without `init`, a detector to start from, see `TrainableNet.load_pretrained`.
    """
    if init is not None:
        return _initialised(net, load_checkpoint(init))
    net.load_pretrained(detector)
    return net


def _initialised(net: TrainableNet, source: TrainableNet) -> TrainableNet:
    """Take over every weight of the same name and shape; what cannot be taken over is logged.

    Layers that the network is given and does not train stay as they are.
    """
    weights = source.state_dict()
    taken = {name: weights[name] for name, value in net.state_dict().items()
             if name in weights and weights[name].shape == value.shape and not net.is_given(name)}
    missing = sorted({name.rsplit(".", 1)[0] for name in net.state_dict()
                      if name not in taken and not net.is_given(name)})
    if missing:
        log.warning("new, because --init has no such weights: %s", ", ".join(missing))
    net.load_state_dict(taken, strict=False)
    return net

"""Train the network of Tian et al. 2023.

    ros2_pose train config/networks/tian_tiny.yaml --data synthetic mocap.npz --out run/tiny.pt
    torchrun --nproc-per-node 4 -m ros2_pose.cli train ...           on several GPUs

Stopped at any time, the same command goes on where it stopped: the next step is the same.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import subprocess
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ros2_pose.body.model import BodyModel
from ros2_pose.config import ConfigError, from_dict, setting
from ros2_pose.data.datasets import Mixed, Skipping, load
from ros2_pose.data.sample import DataError, Sample, Samples
from ros2_pose.errors import PoseError
from ros2_pose.networks.tian import roi
from ros2_pose.networks.tian.coco_detr import load_coco
from ros2_pose.networks.tian.detector import (
    GAUSSIAN_CELLS,
    TianConfig,
    TianNet,
    along_ray,
    camera_facing,
    load_checkpoint,
    save_checkpoint,
)
from ros2_pose.training import losses
from ros2_pose.training.augment import Batch, Example, close_up, collate, example, mosaic
from ros2_pose.training.calibrate import calibrate
from ros2_pose.training.detection import Truth, detection_loss

log = logging.getLogger(__name__)

_JITTER_SHIFT, _JITTER_SIZE = 0.06, 0.1  # of true boxes, as detected ones are off
_PARTS = {"detection": ("detr",), "people": ("pyramid", "map_head", "log_temperature", "smpl_head")}
CALIBRATED_ON = 200  # pictures
_MOSAIC = 0.75  # of a picture's side; its people are as large as a picture's, and far more
_DRAWN = 9  # samples among whom three more with people are looked for
_PERCENT, _MM = 100.0, 1000.0


class TrainingError(PoseError):
    """Training that cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the network is trained; the weights of the losses are those of Tian et al. 2023."""

    steps: int = setting(100_000, "of the optimiser", low=1, high=10**8)
    batch: int = setting(16, "pictures a step, on each device", low=1, high=4096)
    rate: float = setting(2e-4, "AdamW's highest learning rate", low=0.0, high=1.0)
    backbone_rate: float = setting(2e-5, "the same for the backbone", low=0.0, high=1.0)
    warmup: int = setting(500, "steps until the rate is reached", low=1, high=10**6)
    decay: float = setting(1e-4, "of weights", low=0.0, high=1.0)
    clip: float = setting(1.0, "longest gradient", low=0.0, high=1e6)
    average: float = setting(0.999, "share of the averaged weights that a step keeps",
                             low=0.0, high=1.0)
    amp: bool = setting(True, "half precision where a GPU computes")
    workers: int = setting(2, "processes that make pictures ready", low=0, high=256)
    log_every: int = setting(200, "steps between lines of the log, and checkpoints",
                             low=1, high=10**6)
    mosaics: float = setting(0.0, "share of batches of mosaics: each of close-ups of four pictures",
                             low=0.0, high=1.0)
    seed: int = setting(0, "of everything random", low=0, high=2**31)
    detector: str = setting("", "Deformable DETR trained on COCO to start from: its name on "
                            "Hugging Face or a folder; empty: none")
    parts: str = setting("all", "what learns: everything, what finds people, or what describes "
                         "them, from a backbone that stays", choices=("all", *_PARTS))
    shape_weight: float = setting(0.20, "of L_shape", low=0.0, high=1e3)
    pose_weight: float = setting(0.25, "of L_pose", low=0.0, high=1e3)
    smpl_weight: float = setting(0.15, "of L_SMPL", low=0.0, high=1e3)
    keypoint_weight: float = setting(0.30, "of L_KB", low=0.0, high=1e3)
    vote_weight: float = setting(0.0, "of the votes' cross-entropy, which is not in the paper",
                                 low=0.0, high=1e3)
    detection_weight: float = setting(0.40, "of L_DET", low=0.0, high=1e3)
    as_printed: bool = setting(False, "L_pose as in print: one sign, one norm for all joints")
    regulariser: str = setting("floor", "of L_KB: omega / (2 c^2), or omega c^2 / 2",
                               choices=("floor", "ceiling"))


class Endless(Dataset):
    """Example number n of a training that never ends: the same whoever asks, and when.

    batch: as many examples after each other are of one kind, pictures or, a share of `mosaics`,
    mosaics of four close-ups, of which each side is `_MOSAIC` of a picture's.
    """

    def __init__(self, samples: Samples, size: int, seed: int, batch: int = 1,
                 mosaics: float = 0.0) -> None:
        self.samples, self.size, self.seed = samples, size, seed
        self.batch, self.mosaics = batch, mosaics
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, number: int) -> Example:
        random = np.random.default_rng((self.seed, 1, number))
        first = self._sample(number)
        if np.random.default_rng((self.seed, 2, number // self.batch)).random() >= self.mosaics:
            return example(first, self.size, random)
        side = int(_MOSAIC * self.size) // 32 * 16
        others = (self.samples[int(n)] for n in random.integers(len(self.samples), size=_DRAWN))
        four = islice((s for s in chain([first], others) if len(s.people)), 4)
        tiles = [close_up(sample, side, random) for sample in four]
        return mosaic(tiles + [close_up(first, side, random) for _ in range(4 - len(tiles))])

    def _sample(self, number: int) -> Sample:
        """The sample that comes at that place, each once before one comes again."""
        epoch, row = divmod(number, len(self.samples))
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
            self._order = epoch, order
        return self.samples[int(self._order[1][row])]


class Objective(nn.Module):
    """The network and its losses: a batch in, terms out. One module, for several GPUs."""

    def __init__(self, net: TianNet, config: TrainingConfig, body: BodyModel) -> None:
        super().__init__()
        self.net, self.config = net, config
        self._body = [body]  # not a part: nothing in it learns

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Terms of the loss, means over people, their weighted sum "total" (eq. 17), and what a
        person reads. seed: of the boxes' jitter."""
        images = batch.images.float()
        terms = {}
        found = self.net.detect(images)
        detection, matches = detection_loss(found, _truths(batch))
        if self.config.parts != "people":
            terms["detection"] = detection
        if self.config.parts != "detection" and len(batch.boxes):
            boxes = jittered(batch.boxes, seed)
            queries = _queries_of(found.queries, matches, batch)
            described = self.net.describe(found.maps, boxes, batch.image, queries)
            terms |= self._keypoint_terms(described, boxes, batch)
            terms |= self._body_terms(described, boxes, batch)
        nothing = 0 * found.maps[0].sum()  # what a picture without people has a gradient of, too
        terms["total"] = sum((getattr(self.config, f"{name}_weight") * terms[name]
                              for name in ("detection", "keypoint", "vote", "shape", "pose", "smpl")
                              if name in terms), nothing)
        return terms

    def _keypoint_terms(self, described, boxes: Tensor, batch: Batch) -> dict[str, Tensor]:
        cells = self.net.config.cells
        enlarged = roi.enlarged(boxes, self.net.config.box_factor)
        cell = roi.cell_size(enlarged, cells)[:, None]
        truth = (batch.keypoints - enlarged[:, None, :2]) / cell
        inside = ((truth > 0) & (truth < cells)).all(2, keepdim=True)
        truth = torch.where(inside, truth, torch.nan)
        terms = {}
        if self.net.config.keypoints == "kblock":
            loss = losses.kblock_loss(described.points, described.std, truth,
                                      self.config.regulariser)
            if self.config.vote_weight:
                temperature = self.net.log_temperature.exp()
                terms["vote"] = losses.vote_loss(described.maps, temperature, truth).mean()
        else:
            loss = losses.heatmap_loss(described.maps, truth, GAUSSIAN_CELLS)
        off = ((described.points - truth) * cell).norm(dim=2).detach()
        off = torch.where(batch.visible, off, torch.nan)
        diagonal = (batch.boxes[:, 2:] - batch.boxes[:, :2]).norm(dim=1, keepdim=True)
        return terms | {"keypoint": loss.mean(),
                        "keypoint_percent": _PERCENT * (off / diagonal).nanmean()}

    def _body_terms(self, described, boxes: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Only of those whose body is known."""
        known = batch.theta.isfinite().flatten(1).all(1)
        if not known.any():
            return {}
        quats, betas = described.quats[known], described.betas[known]
        rotmat = camera_facing(boxes[known], batch.camera[known])
        facing = along_ray(batch.theta[known], rotmat.mT)
        unit = nn.functional.normalize(quats, dim=2)
        pose = losses.pose_loss_as_printed(quats, facing) if self.config.as_printed else \
            losses.pose_loss(unit, facing) + losses.unit_norm_loss(quats)
        true_betas = batch.betas[known]
        shape = torch.where(true_betas.isfinite(), true_betas, betas.detach())
        joints = self._body[0](along_ray(unit, rotmat), betas, with_vertices=False).joints
        off = (joints - batch.joints[known]).norm(dim=2).detach()
        return {"shape": losses.shape_loss(betas, shape).mean(), "pose": pose.mean(),
                "smpl": losses.smpl_loss(joints, batch.joints[known]).mean(),
                "mpjpe_mm": _MM * off.nanmean()}


def jittered(boxes: Tensor, seed: int) -> Tensor:
    """(N, 4) true boxes, off as detected ones are."""
    random = torch.Generator().manual_seed(seed)
    move, grow = torch.randn(2, len(boxes), 2, generator=random).to(boxes)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + _JITTER_SHIFT * move * size
    half = size / 2 * (_JITTER_SIZE * grow).exp()
    return torch.cat([centre - half, centre + half], 1)


def _truths(batch: Batch) -> list[Truth]:
    side = batch.images.shape[-1]
    return [Truth(_by_centre(batch.boxes[batch.image == i] / side), _by_centre(ignored / side),
                  bool(batch.complete[i])) for i, ignored in enumerate(batch.ignored)]


def _by_centre(boxes: Tensor) -> Tensor:
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def _queries_of(queries: Tensor, matches: list, batch: Batch) -> Tensor:
    """(N, width) the query that stands for each person; matches are in any order."""
    out = queries.new_zeros(len(batch.boxes), queries.shape[-1])
    for i, matched in enumerate(matches):
        rows = (batch.image == i).nonzero()[:, 0]
        out[rows[matched.person]] = queries[i, matched.query]
    return out


# -------------------------------------------------------------------------------- the loop


class Trainer:
    """The network, its average, and all that going on needs."""

    def __init__(self, net: TianNet, config: TrainingConfig, samples: Samples,
                 device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.config, self.device, self.rank, self.world = config, device, rank, world
        self.body = BodyModel.load().to(device)
        self.net = net.to(device, memory_format=torch.channels_last)
        if config.parts != "all":
            for name, part in self.net.named_parameters():
                part.requires_grad_(name.split(".")[0] in _PARTS[config.parts] and
                                    part.requires_grad)
        self.average = TianNet(net.config).to(device).requires_grad_(False)
        self.average.load_state_dict(net.state_dict())
        self.objective = objective = Objective(net, config, self.body)
        if world > 1:
            self.objective = nn.parallel.DistributedDataParallel(objective,
                                                                 find_unused_parameters=True)
        self.examples = Endless(samples, net.config.input_size, config.seed, config.batch * world,
                                config.mosaics)  # devices that do alike wait less for each other
        self.optimizer = torch.optim.AdamW(_groups(net, config), weight_decay=config.decay)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._is_half)
        self.step = 0
        self.lines: list[dict] = []

    @property
    def _is_half(self) -> bool:
        return self.config.amp and self.device.type == "cuda"

    def _rate(self, step: int) -> float:
        """Warm-up, then half a cosine."""
        warm = min(1.0, (step + 1) / self.config.warmup)
        left = (1 + math.cos(math.pi * min(1.0, step / self.config.steps))) / 2
        return warm * (0.02 + 0.98 * left)

    def batches(self):
        """From the next step on, those of this device."""
        size, whole = self.config.batch, self.config.batch * self.world
        numbers = [range(step * whole + self.rank * size, step * whole + (self.rank + 1) * size)
                   for step in range(self.step, self.config.steps)]
        return DataLoader(self.examples, batch_sampler=numbers, collate_fn=collate,
                          num_workers=self.config.workers, worker_init_fn=_one_thread,
                          pin_memory=self.device.type == "cuda")

    def train_step(self, batch: Batch) -> dict[str, float]:
        """One step. Raises TrainingError with all terms if the loss is not finite."""
        self.net.train()
        with torch.autocast(self.device.type, enabled=self._is_half):
            terms = self.objective(batch.to(self.device), self.step * self.world + self.rank)
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not math.isfinite(values["total"]):
            raise TrainingError(f"step {self.step}: the loss is not finite: "
                                + ", ".join(f"{k} {v:g}" for k, v in values.items())
                                + "; lower `rate`, or look at the pictures of this step")
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

    def state(self) -> dict:
        """All that `resume` needs."""
        return {"network": self.net.state_dict(), "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict(),
                "scaler": self.scaler.state_dict(), "step": self.step, "lines": self.lines,
                "config": asdict(self.net.config) | asdict(self.config)}

    def resume(self, state: dict) -> None:
        """Go on exactly where `state` was taken. Raises TrainingError for another config's."""
        now = asdict(self.net.config) | asdict(self.config)
        changed = [f"{name}: {value} then, {now.get(name)} now"
                   for name, value in state["config"].items() if now.get(name) != value]
        if changed:
            raise TrainingError("the training to go on with had other settings ("
                                + "; ".join(changed) + "): put them back, or give another --out")
        self.net.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        for name in ("optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.lines = state["step"], state["lines"]


def _groups(net: TianNet, config: TrainingConfig) -> list[dict]:
    backbone = [p for p in net.detr.model.backbone.parameters() if p.requires_grad]
    known = {id(p) for p in backbone}
    rest = [p for p in net.parameters() if p.requires_grad and id(p) not in known]
    return [{"params": rest, "lr": config.rate}] + (
        [{"params": backbone, "lr": config.backbone_rate}] if backbone else [])


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


@torch.no_grad()
def validate(training: Trainer, held_back: Samples, pictures: int = 64) -> dict[str, float]:
    """Mean terms of the loss of the averaged network, for pictures nobody learned from."""
    size, batch = training.net.config.input_size, training.config.batch
    objective = Objective(training.average.eval(), training.config, training.body)
    rows = range(min(pictures, len(held_back)))
    found = [objective(collate([example(held_back[i], size) for i in rows[at:at + batch]])
                       .to(training.device), at) for at in range(0, len(rows), batch)]
    names = {name for terms in found for name in terms}
    return {f"held_back_{name}": float(np.mean([float(t[name]) for t in found if name in t]))
            for name in sorted(names)}


def train(training: Trainer, held_back: Samples, out: Path) -> None:
    """Train to the end; checkpoint, log and what resuming needs go to `out` and beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".resume.pt")
    if unfinished.exists():
        training.resume(torch.load(unfinished, map_location=training.device, weights_only=True))
        log.info("goes on at step %d", training.step)
    commit, values = _commit(), {}
    bar = tqdm(training.batches(), initial=training.step, total=training.config.steps, unit="step",
               mininterval=10, disable=training.rank > 0)
    for batch in bar:
        for name, value in training.train_step(batch).items():
            values.setdefault(name, []).append(value)
        if training.step % training.config.log_every and training.step < training.config.steps:
            continue
        if training.rank == 0:
            line = {"step": training.step} | {k: float(np.nanmean(v)) for k, v in values.items()} \
                | validate(training, held_back)
            training.lines.append({name: round(value, 5) for name, value in line.items()})
            _replace(unfinished, training.state())
            save_checkpoint(out, training.average, commit)
            _write_log(training.lines, out.with_suffix(".csv"))
        values = {}
    unfinished.unlink(missing_ok=True)


def _replace(path: Path, state: dict) -> None:
    """Write whole or not at all: a full disk or a crash leaves what was there before."""
    torch.save(state, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def _write_log(lines: list[dict], path: Path) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def _commit() -> str:
    """The git commit of this source, "" outside of a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent,
                          capture_output=True, text=True)
    return done.stdout.strip()


def read_config(path: Path) -> tuple[TianConfig, TrainingConfig]:
    """The two sections of a YAML file. Raises ConfigError that names the key that is wrong."""
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    sections = {"network": TianConfig, "training": TrainingConfig}
    if not isinstance(values, dict) or not set(values) <= set(sections):
        raise ConfigError(f"{path} must have the sections {' and '.join(sections)}, found "
                          f"{', '.join(values) if isinstance(values, dict) else values!r}")
    try:
        network, training = (from_dict(cls, values.get(name) or {})
                             for name, cls in sections.items())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return network, training


def start(config: TianConfig, init: Path | None, detector: str = "") -> TianNet:
    """A new network: its backbone knows ImageNet, or it detects as a detector of that name or
    folder does, or everything is as in a checkpoint."""
    if init is not None:
        net = TianNet(config)
        net.load_state_dict(load_checkpoint(init, config).state_dict())
        return net
    torch.manual_seed(0)
    net = TianNet(config)
    if detector:
        load_coco(net, detector)
    elif config.backbone == "efficientnet_lite0":
        net.detr.model.backbone.model.levels.load_imagenet()
    return net


def _device() -> tuple[torch.device, int, int]:
    """This process's device, number, and how many there are (torchrun)."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device, rank, world


def run(args: argparse.Namespace) -> None:
    """Train as the arguments say, then measure what the uncertainties are worth."""
    config, training_config = read_config(args.config)
    if args.steps is not None:
        training_config = replace(training_config, steps=args.steps)
    samples = Mixed(*(opened(words) for words in args.data))
    held_back = opened(args.held_back, "validation") if args.held_back else samples
    device, rank, world = _device()
    net = start(config, args.init, training_config.detector)
    training = Trainer(net, training_config, samples, device, rank, world)
    train(training, held_back, args.out)
    if rank == 0:
        calibrate(training.average, held_back, CALIBRATED_ON)
        save_checkpoint(args.out, training.average, _commit())


def opened(words: list[str], split: str = "train") -> Samples:
    """The dataset that NAME FOLDER [SPLIT] mean; damaged pictures of it are left out."""
    if len(words) not in (2, 3):
        raise DataError(f"{' '.join(words)!r} must be NAME FOLDER or NAME FOLDER SPLIT")
    return Skipping(load(*(words if len(words) == 3 else [*words, split])))

"""Ablation of the heads: each variant is trained for equal steps and scored like any network.

    python -m ros2_pose.tools.ablation run/tian.pt config/networks/tian_tiny.yaml --steps 400 \\
        --data synthetic mocap.npz --held-back synthetic mocap.npz --out run/heads

The detector is the checkpoint's and stays frozen; the layers that describe people are trained anew,
on the same images in the same order: the k-block on the pyramid, with all losses and with the
paper's alone; a Gaussian heat-map from the same layers; the k-block on each level of the backbone
by itself (Tian et al. 2023, Table 1); and with a second look at the picture. Scores are of the
held-back dataset's split `test`. When it was interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
import csv
import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.data.datasets import opened
from ros2_pose.data.sample import Samples
from ros2_pose.evaluation import published
from ros2_pose.evaluation.benchmarks.network import Scores, evaluate
from ros2_pose.evaluation.tables import Row, tables
from ros2_pose.metrics.detection_ap import WEAKEST
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.tian import second_look
from ros2_pose.networks.tian.detector import Tian
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.skeleton import COCO17
from ros2_pose.training.calibrate import calibrate
from ros2_pose.training.config import TrainingConfig, read_config
from ros2_pose.training.run import CALIBRATED_ON
from ros2_pose.training.trainer import Trainer, train

_VALIDATIONS = 4  # during a training
_PEOPLE, _TIMES = 10, 50  # timed: reading the maps of 10 people, 50 times
_MS = 1000


KBLOCK, HEATMAP, DIRECT_KBLOCK = "k-block", "heat-map", "k-block, direct multi-scale"
SECOND_LOOK = "k-block, second look"
_PAPER = {"features": "fpn", "keypoints": "kblock", "second_look": False, "cells": 32}
# Settings of each head in TianConfig, and those of its training that differ in TrainingConfig.
VARIANTS: dict[str, tuple[dict, dict]] = {
    KBLOCK: (_PAPER, {}),
    "k-block, L_KB alone": (_PAPER, {"vote_weight": 0.0}),
    HEATMAP: (_PAPER | {"keypoints": "heatmap"}, {}),
    DIRECT_KBLOCK: (_PAPER | {"features": "direct"}, {}),
    SECOND_LOOK: (_PAPER | {"second_look": True, "cells": second_look.CELLS}, {})}

# A trained head: by steps, error of held-back keypoints in % of the box's diagonal; time to read
# points and standard deviations from the maps of _PEOPLE, ms; scores by titles of `Tian.variants`.
Outcome = tuple[dict[int, float], float, dict[str, Scores]]


def with_new_head(net: TianNet, **changes) -> TianNet:
    """Create an untrained network with the detector of another one.

    Args:
        net: has the detector.
        changes: fields of its config to change.
    """
    torch.manual_seed(0)
    new = TianNet(replace(net.config, **changes))
    new.detr.load_state_dict(net.detr.state_dict())
    return new


def learned(name: str, net: TianNet, config: TrainingConfig, samples: Samples,
            held_back: Samples, test: Samples, out: Path) -> Outcome:
    """Train or resume a variant and score it.

    Args:
        name: of VARIANTS; KBLOCK is scored after Algorithm 1, too.
        net: has the detector.
        config: settings of the training.
        samples: images to train on.
        held_back: images for validation and calibration.
        test: images for the scores.
        out: the checkpoint to write; its log (.csv) lies beside it.
    """
    network, training = VARIANTS[name]
    if not out.exists() or out.with_suffix(".resume.pt").exists():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        trainer = Trainer(with_new_head(net, **network), replace(config, **training), samples,
                          device)
        train(trainer, held_back, out)
    with open(out.with_suffix(".csv"), newline="") as file:
        curve = {int(line["step"]): float(line["held_back_keypoint_percent"])
                 for line in csv.DictReader(file)}
    trained = load_layers(out, TianNet)
    calibrate(trained, held_back, CALIBRATED_ON)
    detectors = Tian(PoseConfig(score_threshold=WEAKEST), net=trained).variants()
    count = 2 if name == KBLOCK else 1
    scores = {title: evaluate(detector.detect, test)
              for title, detector in islice(detectors.items(), count)}
    return curve, _reading_ms(trained), scores


@torch.inference_mode()
def _reading_ms(net: TianNet) -> float:
    """Return the median time of `TianNet.read`, ms."""
    maps = torch.randn(_PEOPLE, len(COCO17), net.config.cells, net.config.cells)
    places = torch.randn(_PEOPLE, len(COCO17), 2, net.config.cells, net.config.cells)
    seconds = []
    for _ in range(_TIMES):
        start = perf_counter()
        net.read(maps, places)
        seconds.append(perf_counter() - start)
    return _MS * float(np.median(seconds))


def report(outcomes: dict[str, Outcome], protocol: str) -> str:
    """Markdown: heads after equal steps, and Table 1 of Tian et al. 2023."""
    rows = []
    first_curve, _, kblock_scores = outcomes[KBLOCK]
    for name, (curve, reading_ms, scores) in outcomes.items():
        alone = next(iter(scores.values()))
        after = {f"after {step} steps": curve[step] for step in first_curve}
        rows.append(Row(name, f"Keypoints, error in % of the true box's diagonal; {protocol}",
                        after | {
            "test, mean": alone.keypoint_error, "test, median": alone.keypoint_error_median,
            "uncertainty and error, Spearman": alone.uncertainty_rank,
            f"reading {_PEOPLE} people's maps, ms": reading_ms}))
    _, _, direct_scores = outcomes[DIRECT_KBLOCK]
    return tables(rows + published.ablation(direct_scores | kblock_scores, protocol))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="has the detector of all variants")
    parser.add_argument("config", type=Path, help="YAML with the section training")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME FOLDER [SPLIT]")
    parser.add_argument("--held-back", nargs="+", required=True, metavar="NAME FOLDER [SPLIT]")
    parser.add_argument("--steps", type=int, default=400, help="of each variant")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    net = load_layers(args.checkpoint, TianNet)
    config = replace(read_config(args.config)[1], parts="people", steps=args.steps,
                     log_every=max(args.steps // _VALIDATIONS, 1))
    samples, held_back = opened(args.data, "train"), opened(args.held_back, "validation")
    test = opened(args.held_back[:2], "test")
    outcomes = {}
    for name in VARIANTS:
        out = args.out / f"{name.replace(', ', '_').replace(' ', '_')}.pt"
        outcomes[name] = learned(name, net, config, samples, held_back, test, out)
    print(report(outcomes, f"{args.held_back[0]} test, {len(test)} pictures; each head trained "
                           f"for {args.steps} steps of {config.batch} pictures"))


if __name__ == "__main__":
    main()

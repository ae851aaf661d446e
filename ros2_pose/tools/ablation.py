"""What the paper claims of its heads: each variant learns equally, then is scored like any network.

    python -m ros2_pose.tools.ablation run/tian.pt config/networks/tian_tiny.yaml --steps 400 \\
        --data synthetic mocap.npz --held-back synthetic mocap.npz --out run/heads

What finds people is the checkpoint's, and stays; what describes them learns anew, on the same
pictures in the same order: the k-block on the pyramid, as here and by the paper's loss alone; a
Gaussian heat-map from the same layers; and the k-block on each level of the backbone by itself
(Tian et al. 2023, Table 1). Scores are of the split `test` of what is held back. Stopped at any
time, the same command goes on.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.data.sample import Samples
from ros2_pose.evaluation import published
from ros2_pose.evaluation.benchmarks.network import Scores, evaluate
from ros2_pose.evaluation.report import alone_and_corrected
from ros2_pose.evaluation.tables import Row, tables
from ros2_pose.networks.tian.detector import TianNet, load_checkpoint
from ros2_pose.skeleton import COCO17
from ros2_pose.training.calibrate import calibrate
from ros2_pose.training.trainer import (
    CALIBRATED_ON,
    Trainer,
    TrainingConfig,
    opened,
    read_config,
    train,
)

_LOOKS = 4  # at what is held back, on the way
_PEOPLE, _TIMES = 10, 50  # maps of so many are read so often to time it
_MS = 1000


class Variant(NamedTuple):
    """By what a head differs from the first one."""

    network: dict  # of TianConfig
    training: dict  # of TrainingConfig
    corrected: bool = False  # scored after Algorithm 1, too


KBLOCK, HEATMAP, DIRECT_KBLOCK = "k-block", "heat-map", "k-block, direct multi-scale"
VARIANTS = {KBLOCK: Variant({"features": "fpn", "keypoints": "kblock"}, {}, corrected=True),
            "k-block, L_KB alone": Variant({"features": "fpn", "keypoints": "kblock"},
                                           {"vote_weight": 0.0}),
            HEATMAP: Variant({"features": "fpn", "keypoints": "heatmap"}, {}),
            DIRECT_KBLOCK: Variant({"features": "direct", "keypoints": "kblock"}, {})}


@dataclass(frozen=True)
class Outcome:
    """What became of a variant."""

    curve: dict[int, float]  # steps: %, error of keypoints in true boxes of what is held back
    reading_ms: float  # from the maps of `_PEOPLE` to their points and deviations
    scores: dict[str, Scores]  # by the titles of `alone_and_corrected`


def with_new_head(net: TianNet, **changes) -> TianNet:
    """A network that finds people as `net` does and knows nothing else; changes: of its config."""
    torch.manual_seed(0)
    new = TianNet(replace(net.config, **changes))
    new.detr.load_state_dict(net.detr.state_dict())
    return new


def learned(variant: Variant, net: TianNet, config: TrainingConfig, samples: Samples,
            held_back: Samples, test: Samples, out: Path) -> Outcome:
    """Train a variant on `net`'s detector, or go on, and score it; checkpoint, log: out, beside."""
    if not out.exists() or out.with_suffix(".resume.pt").exists():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        train(Trainer(with_new_head(net, **variant.network), replace(config, **variant.training),
                       samples, device), held_back, out)
    with open(out.with_suffix(".csv"), newline="") as file:
        curve = {int(line["step"]): float(line["held_back_keypoint_percent"])
                 for line in csv.DictReader(file)}
    trained = load_checkpoint(out)
    calibrate(trained, held_back, CALIBRATED_ON)
    detectors = islice(alone_and_corrected(trained).items(), 2 if variant.corrected else 1)
    return Outcome(curve, _reading_ms(trained),
                   {title: evaluate(detect, test) for title, detect in detectors})


@torch.inference_mode()
def _reading_ms(net: TianNet) -> float:
    maps = torch.randn(_PEOPLE, len(COCO17), net.config.cells, net.config.cells)
    return _MS * float(np.median([_seconds(lambda: net.read(maps)) for _ in range(_TIMES)]))


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def report(outcomes: dict[str, Outcome], protocol: str) -> str:
    """Markdown: heads after equal steps, and Table 1 of Tian et al. 2023."""
    rows = []
    for name, outcome in outcomes.items():
        alone = next(iter(outcome.scores.values()))
        after = {f"after {step} steps": outcome.curve[step] for step in outcomes[KBLOCK].curve}
        rows.append(Row(name, f"Keypoints, error in % of the true box's diagonal; {protocol}",
                        after | {
            "test, mean": alone.keypoint_error, "test, median": alone.keypoint_error_median,
            "uncertainty and error, Spearman": alone.uncertainty_rank,
            f"reading {_PEOPLE} people's maps, ms": outcome.reading_ms}))
    scores = outcomes[DIRECT_KBLOCK].scores | outcomes[KBLOCK].scores
    return tables(rows + published.ablation(scores, protocol))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="its detector is that of all variants")
    parser.add_argument("config", type=Path, help="YAML with the section training")
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME FOLDER [SPLIT]")
    parser.add_argument("--held-back", nargs="+", required=True, metavar="NAME FOLDER [SPLIT]")
    parser.add_argument("--steps", type=int, default=400, help="of each variant")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    net = load_checkpoint(args.checkpoint)
    config = replace(read_config(args.config)[1], parts="people", steps=args.steps,
                     log_every=max(args.steps // _LOOKS, 1))
    samples, held_back, test = (opened(words, split) for words, split in (
        (args.data, "train"), (args.held_back, "validation"), (args.held_back[:2], "test")))
    outcomes = {name: learned(variant, net, config, samples, held_back, test,
                              args.out / f"{name.replace(', ', '_').replace(' ', '_')}.pt")
                for name, variant in VARIANTS.items()}
    print(report(outcomes, f"{args.held_back[0]} test, {len(test)} pictures; each head trained "
                           f"for {args.steps} steps of {config.batch} pictures"))


if __name__ == "__main__":
    main()

"""All that a dataset has truth for, of a network alone and of what the body layer makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ros2_pose.config import PoseConfig
from ros2_pose.data.datasets import Skipping, load
from ros2_pose.data.sample import Sample, Samples
from ros2_pose.evaluation import tables
from ros2_pose.evaluation.benchmarks.network import Detect, evaluate
from ros2_pose.networks.registry import create_network
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline

WEAKEST = 0.02  # average precision wants the weak detections too
_BENCHMARKS = {"3dpw": tables.THREE_DPW, "mupots": tables.MUPOTS, "panoptic": tables.PANOPTIC}


def report(config: PoseConfig, name: str, root: Path, split: str,
           pictures: int | None = None) -> str:
    """Markdown tables for a dataset (a name of DATASETS, its folder and split).

    Raises DataError if there is no such dataset, or it cannot be read.
    """
    samples: Samples = Skipping(load(name, root, split))
    if pictures is not None:
        samples = _First(samples, pictures)
    rows = {title: evaluate(detect, samples) for title, detect in _detectors(config).items()}
    protocol = f"{name} {split}, {len(samples)} pictures, 24 joints of the skeleton, no flip"
    parts = [tables.all_scores(rows, protocol)]
    ablation = {title: scores for title, scores in rows.items() if title in tables.ABLATION}
    if ablation:
        parts.append(tables.ablation(ablation, protocol))
    if name in _BENCHMARKS:
        parts.append(tables.comparison(_BENCHMARKS[name], rows, protocol))
    return "\n\n".join(parts)


class _First:
    """The first of some samples."""

    def __init__(self, samples: Samples, count: int) -> None:
        self.samples, self.count = samples, min(count, len(samples))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Sample:
        return self.samples[range(self.count)[number]]


def _detectors(config: PoseConfig) -> dict[str, Detect]:
    """Titles and detectors: the network's variants, and the network with the body layer's fit."""
    network = create_network(config)
    network.configure(WEAKEST, network.max_people)
    detectors: dict[str, Detect] = {title: variant.detect
                                    for title, variant in network.variants().items()}
    return detectors | {f"{next(iter(detectors))} + fit": _fitted(config)}


def _fitted(config: PoseConfig) -> Callable[[list[Frame]], list[People]]:
    """The whole pipeline, that sees each picture for the first time; only those it reports."""
    pipeline = Pipeline(config)

    def detect(frames: list[Frame]) -> list[People]:
        found = []
        for frame in frames:
            pipeline.reset()
            found.append(pipeline.step(frame))
        return found
    return detect

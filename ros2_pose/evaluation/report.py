"""Scores of a network on a dataset, by itself and with the body layer behind it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ros2_pose.config import PoseConfig
from ros2_pose.data.datasets import Skipping, load
from ros2_pose.data.sample import Sample, Samples
from ros2_pose.evaluation import published
from ros2_pose.evaluation.benchmarks.network import Detect, evaluate
from ros2_pose.evaluation.tables import tables
from ros2_pose.metrics.detection_ap import WEAKEST
from ros2_pose.networks.registry import create_network
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline

_PUBLISHED = {"3dpw": published.THREE_DPW, "mupots": published.MUPOTS,
              "panoptic": published.PANOPTIC}


def report(config: PoseConfig, name: str, root: Path, split: str,
           pictures: int | None = None) -> str:
    """Score the configured network on a dataset and write the results as Markdown tables.

    Args:
        name, root, split: a name of DATASETS, its folder, and one of its splits.
        pictures: use so many of the first pictures; None: all.

    Raises: DataError if there is no such dataset, or it cannot be read.
    """
    samples: Samples = Skipping(load(name, root, split))
    if pictures is not None:
        samples = _First(samples, pictures)
    scores = {title: evaluate(detect, samples) for title, detect in _detectors(config).items()}
    protocol = f"{name} {split}, {len(samples)} pictures, 24 joints of the skeleton, no flip"
    parts = published.all_scores(scores, protocol)
    ablation = {title: one for title, one in scores.items() if title in published.ABLATION}
    if ablation:
        parts += published.ablation(ablation, protocol)
    if name in _PUBLISHED:
        parts += published.comparison(_PUBLISHED[name], scores, protocol)
    *alone, _ = scores.items()  # the last one has the body layer
    without = [title for title, one in alone if one.bodies and not one.bodies_found]
    notes = [f"\n{title}: gives no 3D, so there are no figures of bodies; \"+ fit\" has them"
             for title in without]
    return tables(parts) + "\n".join(["", *notes] if notes else [])


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
    """The whole pipeline, reset before each picture; only people that it reports."""
    pipeline = Pipeline(config)

    def detect(frames: list[Frame]) -> list[People]:
        found = []
        for frame in frames:
            pipeline.reset()
            found.append(pipeline.step(frame))
        return found
    return detect

"""What the body layer costs: milliseconds per person, and per image by number of people."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from ros2_pose.body.fitter import Fitter, Previous, Sighting
from ros2_pose.body.prior import PosePrior
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.benchmarks.fitting import PIXEL_STD, body_model, fitter, normal
from ros2_pose.evaluation.harness import Curve, Options, Row
from ros2_pose.evaluation.plots import LATENCY

_TARGETS = {8: "1 ms", 1: "4 ms"}  # by number of people
_COUNTS = (1, 2, 4, 8, 12, 16)  # of the plot
_INTERVAL_S = 0.1  # between images
_MOVED = 0.3  # pixel standard deviations between images


def cost(options: Options) -> Iterator[Row]:
    """Milliseconds per person, of tracked people and of new ones."""
    for count, target in _TARGETS.items():
        for name, aim, spent in (("tracked", target, _timed(options, count, tracked=True)),
                                 ("cold", "", _timed(options, count, tracked=False))):
            median, fastest = 1000 * np.quantile(spent, (0.5, 0.1)) / count
            yield Row(f"cost, {count} at once, {name}",
                      f"{_protocol(options)}; ms per person",
                      {"median, ms": median, "fastest tenth, ms": fastest}, aim)


def latency(options: Options) -> Iterator[Row | Curve]:
    """Milliseconds per image for several numbers of people, tracked and new."""
    for name, tracked in (("tracked", True), ("cold", False)):
        medians = []
        for count in _COUNTS:
            median, slowest = 1000 * np.quantile(_timed(options, count, tracked), (0.5, 0.9))
            medians.append(median)
            yield Row(f"{count} people, {name}", f"{_protocol(options)}; ms per image",
                      {"median, ms": median, "slowest tenth, ms": slowest})
        yield Curve(LATENCY, f"body layer, {name}", list(_COUNTS), medians)


def _protocol(options: Options) -> str:
    return (f"lift, fit and correction, {options.repeats} runs, {torch.get_num_threads()} "
            "thread(s), beside whatever else the machine does")


def _timed(options: Options, count: int, tracked: bool) -> list[float]:
    """Seconds of each run on `count` people."""
    first, second = _successive(options.seed, count)
    fit = fitter(options)
    previous = None
    if tracked:
        before = fit.fit(first)
        previous = Previous(before.state, torch.full((count,), _INTERVAL_S), torch.ones(count),
                            before.disagreement_s)
    return [_seconds(fit, second, previous) for _ in range(options.repeats)]


def _successive(seed: int, count: int) -> tuple[Sighting, Sighting]:
    """Two images of people in poses near the prior mean, moved a little between them."""
    mean = torch.cat([torch.zeros(1, 3), PosePrior.load().mean.float()])
    seen = Projector(body_model(), mean[None], seed=seed).draw(count)
    points, cov = seen.points.double(), seen.cov.double()
    moved = points + _MOVED * PIXEL_STD * normal(seed, *points.shape)
    return Sighting(points, cov), Sighting(moved, cov)


def _seconds(fit: Fitter, sighting: Sighting, previous: Previous | None) -> float:
    start = time.perf_counter()
    fit.correct(sighting, fit.fit(sighting, previous))
    return time.perf_counter() - start

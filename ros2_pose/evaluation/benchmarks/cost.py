"""What the body layer costs: milliseconds per image by number of people, and its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ros2_pose.body.fit_problem import Problem, with_hypothesis
from ros2_pose.body.fit_result import body_fit
from ros2_pose.body.fitter import Fitter, Previous, Sighting
from ros2_pose.body.levenberg_marquardt import minimise
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.temporal_prior import with_previous
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.benchmarks.fitting import PIXEL_STD, body_model, fitter, normal
from ros2_pose.evaluation.harness import Curve, Options, Row
from ros2_pose.evaluation.plots import LATENCY

_TARGETS = {1: "1.5 ms", 3: "2.5 ms", 10: "6 ms", 20: "11 ms"}  # an image, by number of people
_COUNTS = (1, 2, 4, 8, 12, 16)  # of the plot
_INTERVAL_S = 0.1  # between images
_MOVED = 0.3  # pixel standard deviations between images


def cost(options: Options) -> Iterator[Row]:
    """CPU time of one thread for an image, of tracked people and of new ones, and its stages."""
    with one_thread():
        for count, target in _TARGETS.items():
            for name, aim in (("tracked", target), ("cold", "")):
                spent = _timed(options, count, name == "tracked")
                typical, slow = 1000 * np.quantile(spent, (0.5, 0.95))
                yield Row(f"cost, {count} at once, {name}", f"{_protocol(options)}; ms per image",
                          {"p50, ms": typical, "p95, ms": slow, "a person, ms": typical / count},
                          aim)
            yield Row(f"cost, {count} at once, tracked, by stage",
                      f"{_protocol(options)}; p50 of each, ms per image", _stages(options, count))


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch in one thread, so that CPU time is time of computation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def latency(options: Options) -> Iterator[Row | Curve]:
    """CPU milliseconds per image for several numbers of people, tracked and new."""
    for name, tracked in (("tracked", True), ("cold", False)):
        medians = []
        for count in _COUNTS:
            median, slowest = 1000 * np.quantile(_timed(options, count, tracked), (0.5, 0.9))
            medians.append(median)
            yield Row(f"{count} people, {name}", f"{_protocol(options)}; ms per image",
                      {"median, ms": median, "slowest tenth, ms": slowest})
        yield Curve(LATENCY, f"body layer, {name}", list(_COUNTS), medians)


def _protocol(options: Options) -> str:
    return (f"lift, fit and correction, {options.repeats} runs, CPU time with "
            f"{torch.get_num_threads()} thread(s), beside whatever else the machine does")


@torch.inference_mode()
def _timed(options: Options, count: int, tracked: bool) -> list[float]:
    """CPU seconds of each run on `count` people."""
    fit, sighting, previous = _case(options, count)

    def run() -> None:
        fit.correct(sighting, fit.fit(sighting, previous if tracked else None))

    run()
    return [_seconds(run) for _ in range(options.repeats)]


@torch.inference_mode()
def _stages(options: Options, count: int) -> dict[str, float]:
    """Median CPU time, ms, of the stages of a fit of `count` tracked people."""
    fit, sighting, previous = _case(options, count)
    before = previous.state
    lifted, _ = fit.propose(sighting)
    likeliest = lifted.select(lifted.logits.argmax(1))

    def image_problem() -> Problem:
        return with_hypothesis(fit.problem(sighting, lifted), likeliest, before.root[:, 2])

    image = image_problem()
    temporal = with_previous(image, previous)
    iterations = fit.settings.warm_iterations
    state, local = minimise(temporal, before, iterations)
    found = body_fit(image, state, local, previous.disagreement_s)
    stages: dict[str, Callable[[], object]] = {
        "lift": lambda: fit.propose(sighting),
        "priors": lambda: with_previous(image_problem(), previous),
        "solve": lambda: minimise(temporal, before, iterations),
        "covariance": lambda: body_fit(image, state, local, previous.disagreement_s),
        "correction": lambda: fit.correct(sighting, found)}
    return {name: 1000 * float(np.median([_seconds(run) for _ in range(options.repeats)]))
            for name, run in stages.items()}


def _case(options: Options, count: int) -> tuple[Fitter, Sighting, Previous]:
    """The fit, and people in an image and in the one before."""
    first, second = _successive(options.seed, count)
    fit = fitter(options)
    before = fit.fit(first)
    seconds = torch.full((count,), _INTERVAL_S)
    return fit, second, Previous(before.state, seconds, torch.ones(count), before.disagreement_s)


def _successive(seed: int, count: int) -> tuple[Sighting, Sighting]:
    """Two images of people in poses near the prior mean, moved a little between them."""
    mean = torch.cat([torch.zeros(1, 3), PosePrior.load().mean.float()])
    seen = Projector(body_model(), mean[None], seed=seed).draw(count)
    points, cov = seen.points.double(), seen.cov.double()
    moved = points + _MOVED * PIXEL_STD * normal(seed, *points.shape)
    return Sighting(points, cov), Sighting(moved, cov)


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start

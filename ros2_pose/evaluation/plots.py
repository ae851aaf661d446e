"""Plots of benchmark results as PNG files, drawn by matplotlib (pip install matplotlib)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.evaluation.harness import Curve, EvaluationError
from ros2_pose.metrics.pose import coverage

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.8, 0.9, 0.95, 0.99)  # stated coverages

RELIABILITY, PRECISION_RECALL = "reliability", "precision_recall"
ERROR_BY_JOINT_MM, ERROR_BY_JOINT_PERCENT = "error_by_joint_mm", "error_by_joint_percent"
LATENCY = "latency"

# Of each figure: title, label of x, label of y.
FIGURES = {
    RELIABILITY: ("Reliability of covariances", "stated coverage", "observed coverage"),
    PRECISION_RECALL: ("Keypoint detection, OKS", "recall", "precision"),
    ERROR_BY_JOINT_MM: ("Error by joint", "", "mean error, mm"),
    ERROR_BY_JOINT_PERCENT: ("2D error by keypoint", "",
                             "median error, % of the person's size"),
    LATENCY: ("Latency by number of people", "people in the image", "median, ms per image")}
_BARS = (ERROR_BY_JOINT_MM, ERROR_BY_JOINT_PERCENT)
_UNIT_SQUARE = (RELIABILITY, PRECISION_RECALL)
_BARS_WIDTH = 0.8  # of the distance between groups
_DPI = 120


def reliability(label: str, error: np.ndarray, cov: np.ndarray) -> Curve:
    """Stated and observed coverage of errors (..., D) with covariances (..., D, D)."""
    return Curve(RELIABILITY, label, list(SHARES),
                 [coverage(error, cov, share) for share in SHARES])


def matplotlib():
    """Import matplotlib with a backend that needs no display.

    Raises EvaluationError if it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise EvaluationError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    return matplotlib


def draw(curves: list[Curve], folder: Path) -> list[Path]:
    """Draw one PNG for each figure that has curves.

    Returns: the files written, `folder/<figure>.png`.

    Raises: EvaluationError without matplotlib.
    """
    matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for figure in FIGURES:
        if some := [curve for curve in curves if curve.figure == figure]:
            written.append(folder / f"{figure}.png")
            _draw_figure(figure, some, written[-1])
    return written


def _draw_figure(name: str, curves: list[Curve], path: Path) -> None:
    from matplotlib.figure import Figure
    title, x_label, y_label = FIGURES[name]
    figure = Figure(figsize=(11, 5.5) if name in _BARS else (7.5, 5.5), layout="constrained")
    axes = figure.subplots()
    if name in _BARS:
        _bars(axes, curves)
    else:
        for curve in curves:
            axes.plot(curve.x, curve.y, label=curve.label, linewidth=1.5,
                      marker="" if name == PRECISION_RECALL else "o", markersize=3)
    if name in _UNIT_SQUARE:
        axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    else:
        axes.set_ylim(bottom=0)
    if name == RELIABILITY:
        axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="ideal")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small", ncols=2, frameon=False)
    figure.savefig(path, dpi=_DPI)


def _bars(axes, curves: list[Curve]) -> None:
    """Grouped bars: a group for each joint, a bar for each curve in it."""
    names = list(dict.fromkeys(name for curve in curves for name in curve.x))
    width = _BARS_WIDTH / len(curves)
    for number, curve in enumerate(curves):
        shift = (number - (len(curves) - 1) / 2) * width
        axes.bar([names.index(name) + shift for name in curve.x], curve.y, width,
                 label=curve.label)
    axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names], rotation=60,
                    ha="right", rotation_mode="anchor")


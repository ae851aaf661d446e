"""What `gpu_check` measures: a network against torch on the CPU, its rate and its memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch

from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.networks.base import PoseNetwork
from ros2_pose.networks.engine import torch_device
from ros2_pose.networks.registry import create_network
from ros2_pose.offline import demo_clip
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import CONTINUES, Pipeline

_SIZE = (1920, 1080)  # px
_TOP, _TILE = 200, (480, 540)  # of the clip's picture: rows of its people; columns with all three
_FIRST, _BEHIND = 190, 430  # columns of the person at the left, and from which there are no people
_KEPT = 40  # pictures that are made
_CLEAR = 0.2  # score of people who must be found again
_SAME_PX = 20.0  # mean distance of a person's keypoints, on pictures of 1080 lines
_FOV_DEG = 70.0
_MOST_FRAMES = 600


@lru_cache(maxsize=2)
def crowd(size: tuple[int, int]) -> list[np.ndarray]:
    """Return pictures (h, w, 3) uint8 RGB of ten people who move, at 60 Hz.

    Args:
        size: width and height, px.
    """
    clip = list(islice(demo_clip.pictures(), _KEPT + 30))
    return [_crowd(clip[number:], size) for number in range(_KEPT)]


def _crowd(clip: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Join three parts of three people, of different times, and one of one person."""
    rows, (columns, height) = slice(_TOP, _TOP + _TILE[1]), _TILE
    empty = np.ascontiguousarray(clip[0][rows, _BEHIND:])
    picture = cv2.resize(empty, _SIZE, interpolation=cv2.INTER_LINEAR)
    corners = ((0, 0), (0, 3 * columns), (height, columns))
    for number, (top, left) in enumerate(corners):
        tile = clip[10 * number][rows, :columns]
        picture[top:top + height, left:left + columns] = tile[:, ::-1] if number == 1 else tile
    picture[height:, 3 * columns:3 * columns + _FIRST] = clip[25][rows, :_FIRST]
    return picture if size == _SIZE else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _network(config: PoseConfig) -> PoseNetwork:
    """A network as the pipeline uses it: weak people are found, too."""
    network = create_network(config, torch_device(config))
    network.configure(config.score_threshold * CONTINUES, 20)
    return network


def parity(config: PoseConfig, size: tuple[int, int], count: int) -> dict[str, Any]:
    """Compare the people of a device with those of torch on the CPU.

    A person of a score of at least 0.2 on one side is looked for among all of the other side.

    Args:
        config: settings, `device` among them.
        size: of the pictures, px.
        count: number of pictures.
    Returns:
        Row: people, those found on one side alone, greatest and 99th percentile of the keypoints'
        distances in px, and the greatest difference of a covariance relative to it.
    """
    pictures = crowd(size)[::_KEPT // count][:count]
    found = [_detected(replace(config, device="cpu", engine="torch", fp16=False), pictures),
             _detected(config, pictures)]
    same_px = _SAME_PX * size[1] / _SIZE[1]
    pairs: list[tuple[People, People]] = []
    people, alone = 0, 0
    for one, other in zip(*found):
        matched = {(i, j) for first, a, b in ((True, one, other), (False, other, one))
                   for i, j in _partners(a, b, same_px, first)}
        people += int((one.scores >= _CLEAR).sum())
        alone += sum(None in pair for pair in matched)
        pairs += [(one[[i]], other[[j]]) for i, j in matched if i is not None and j is not None]
    distances = [np.linalg.norm(a.keypoints - b.keypoints, axis=-1).ravel() for a, b in pairs]
    covariances = [_relative(a.keypoint_cov, b.keypoint_cov) for a, b in pairs]
    all_px, all_cov = (np.concatenate(v) if v else np.array([np.nan])
                       for v in (distances, covariances))
    return {"name": _title(config), "people": people, "on one side alone": alone,
            "keypoints max, px": _rounded(all_px.max()),
            "p99, px": _rounded(np.percentile(all_px, 99)),
            "covariance p99, relative": _rounded(np.percentile(all_cov, 99)),
            "max": _rounded(all_cov.max())}


def _detected(config: PoseConfig, pictures: list[np.ndarray]) -> list[People]:
    network = _network(config)
    return [network.detect([Frame(picture)])[0] for picture in pictures]


def _partners(a: People, b: People, same_px: float,
              first: bool) -> Iterator[tuple[int | None, int | None]]:
    """Yield the rows of a's clear people and of their partners in b, in the order a, b if first."""
    for i in np.flatnonzero(a.scores >= _CLEAR):
        distance = np.linalg.norm(a.keypoints[i] - b.keypoints, axis=-1).mean(-1)
        j = int(distance.argmin()) if len(b) else None
        if j is not None and distance[j] > same_px:
            j = None
        yield (int(i), j) if first else (j, int(i))


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the difference (N,) of covariances (..., 2, 2) px^2, relative to a's norm."""
    return (np.linalg.norm(a - b, axis=(-2, -1)) / np.linalg.norm(a, axis=(-2, -1))).ravel()


def frames(config: PoseConfig, size: tuple[int, int], seconds: float) -> dict[str, Any]:
    """Run the whole pipeline of one camera for some seconds.

    Returns:
        Row: frames/s, latency and the network's share of it in ms, people and memory.
    """
    pipeline, camera = Pipeline(config), Camera.from_fov(*size, _FOV_DEG)
    pictures = crowd(size)
    detect, network_s, step_s, people = pipeline.network.detect, [], [], []

    def timed(given: list[Frame]) -> list[People]:
        begin_s = time.perf_counter()
        found = detect(given)
        network_s.append(time.perf_counter() - begin_s)
        return found

    pipeline.network.detect = timed  # type: ignore
    end_s = time.perf_counter() + seconds
    for number in range(_MOST_FRAMES):
        # Forth and back: people move without jumps.
        picture = pictures[abs(number % (2 * _KEPT - 2) - (_KEPT - 1))]
        begin_s = time.perf_counter()
        result = pipeline.step(Frame(picture, camera, demo_clip.stamp(number)))
        step_s.append(time.perf_counter() - begin_s)
        people.append(int((np.asarray(result.scores) > 0).sum()))
        if time.perf_counter() > end_s:
            break
    start = min(10, len(step_s) // 2)  # the first ones warm up
    step_ms, network_ms = (1e3 * np.array(values[start:]) for values in (step_s, network_s))
    p50, p95, p99 = np.percentile(step_ms, (50, 95, 99))
    return {"name": f"{_title(config)}, {pipeline.engine}", "frames": len(step_ms),
            "frames/s": _rounded(1e3 / step_ms.mean()), "p50, ms": _rounded(p50),
            "p95": _rounded(p95), "p99": _rounded(p99),
            "of it network, ms": _rounded(np.median(network_ms)),
            "people": _rounded(np.mean(people[start:])), **_memory()}


def batches(config: PoseConfig, size: tuple[int, int], counts: tuple[int, ...],
            seconds: float) -> Iterator[dict[str, Any]]:
    """Run the network alone on the pictures of some cameras at once.

    Args:
        config: settings.
        size: of the pictures, px.
        counts: numbers of cameras.
        seconds: for all counts together.
    Yields:
        A row for each number of cameras: pictures/s, the time of a batch and memory.
    """
    network, pictures = _network(config), crowd(size)
    for count in counts:
        given = [Frame(pictures[number % _KEPT]) for number in range(count)]
        network.detect(given)  # warm
        elapsed_s: list[float] = []
        while len(elapsed_s) < 3 or (sum(elapsed_s) < seconds / len(counts)
                                     and len(elapsed_s) < 100):
            begin_s = time.perf_counter()
            network.detect(given)  # what it returns is on the CPU: it has synchronised
            elapsed_s.append(time.perf_counter() - begin_s)
        batch_s = float(np.median(elapsed_s))
        yield {"name": _title(config), "cameras": count, "pictures/s": _rounded(count / batch_s),
               "a batch, ms": _rounded(1e3 * batch_s), **_memory()}


def _title(config: PoseConfig) -> str:
    """The network of settings as in `gpu_check.settings`, and its precision."""
    refiner = "" if config.refiner == PoseConfig().refiner else f", {config.refiner}"
    return f"{config.network}{refiner}{', fp16' if config.fp16 else ''}"


def _memory() -> dict[str, float]:
    """Memory of the GPU in GB: what torch holds at most, and all that the process takes."""
    if not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"torch, GB": _rounded(torch.cuda.max_memory_reserved() / 1e9),
            "GPU in use, GB": _rounded((total - free) / 1e9)}


def _rounded(value: Any) -> float:
    """A number of four significant digits."""
    return float(f"{float(value):.4g}")

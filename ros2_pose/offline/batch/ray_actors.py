"""Workers of a batch as actors of Ray, on the computers of a cluster.

All computers have ros2_pose installed and see recordings and results at the same paths. Ray is an
extra: pip install ray.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from ros2_pose.errors import one_line
from ros2_pose.offline.batch import BatchError
from ros2_pose.offline.batch.dispatch import DIED, READY, UNUSABLE
from ros2_pose.offline.batch.processes import load, process_recording
from ros2_pose.offline.batch.results import ResultFolders
from ros2_pose.offline.replayer import Replayer
from ros2_pose.runtime_env import settle


class RayWorkers:
    """Actors that live until they are stopped; each loads its networks once."""

    def __init__(self, address: str, count: int, most: int, threads: int, replayer: Replayer,
                 results: ResultFolders):
        """Connect to a cluster and start the actors.

        Args:
            address: of the cluster, as ray.init takes it: auto, local, HOST:PORT or ray://....
            count: number of actors; 0: as many as the cluster has GPUs or, without, CPU cores.
            most: maximum number of actors.
            threads: of each actor.
        Raises:
            BatchError: Ray is not installed, or there is no cluster.
        """
        self._ray = _connected(address)
        resources = self._ray.cluster_resources()
        gpus = 0 if replayer.config.device == "cpu" else int(resources.get("GPU", 0))
        cores = max(1, int(resources.get("CPU", 1)) // threads)
        self.count, self.threads = min(most, count or gpus or cores), threads
        on_each = math.ceil(self.count / gpus) if gpus else 0
        self._share = {"num_cpus": threads, "num_gpus": 1 / on_each if gpus else 0}
        results.out = Path(os.path.abspath(results.out))  # actors have another working directory
        self._work = replayer, results
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, int] = {}  # worker by the reference of its result
        for worker in range(self.count):
            self.replace(worker)

    def replace(self, worker: int) -> None:
        """Start an actor as this worker."""
        actor = self._ray.remote(Actor).options(**self._share).remote(self.threads, *self._work)
        self._actors[worker] = actor
        self._pending[actor.load.remote()] = worker

    def give(self, worker: int, name: str, source: Path) -> None:
        """Let a worker process a recording."""
        path = Path(os.path.abspath(source))
        self._pending[self._actors[worker].process.remote(name, path)] = worker

    def events(self) -> list[tuple[int, str, Any]]:
        """Wait for events of workers: (worker, kind, value)."""
        references, _ = self._ray.wait(list(self._pending), num_returns=1)
        events: list[tuple[int, str, Any]] = []
        for reference in references:
            worker = self._pending.pop(reference)
            try:
                events.append((worker, *self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                events.append((worker, DIED, f"ended ({_reason(error)})"))
        return events

    def stop(self) -> None:
        """End all actors; what they have not finished is lost."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()


class Actor:
    """The part of a worker that runs in the cluster."""

    def __init__(self, threads: int, replayer: Replayer, results: ResultFolders):
        settle()
        self._threads, self._work = threads, (replayer, results)

    def load(self) -> tuple[str, Any]:
        """Load the networks; return READY or UNUSABLE with a value."""
        import torch
        torch.set_num_threads(self._threads)
        reason = load(self._work[0], self._threads)
        return (UNUSABLE, reason) if reason else (READY, None)

    def process(self, name: str, source: Path) -> tuple[str, Any]:
        """Process a recording; return DONE or FAILED with a value."""
        return process_recording(*self._work, name, source, lambda images: None)


def _reason(error: Exception) -> str:
    """The line of Ray's explanation that tells most: of the actor's own error, the last one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["unknown reason"]
    return lines[-1] if re.match(r"[\w.]+(Error|Exception)\b", lines[-1]) else lines[0]


def _connected(address: str):
    """Import Ray on demand and connect to a cluster."""
    try:
        import ray
    except ImportError as error:
        raise BatchError(f"--ray needs Ray ({error}): pip install ray; or leave --ray out to use "
                         "the processes of this computer") from None
    try:
        ray.init(address=address, logging_level="warning")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise BatchError(f"--ray {address}: no cluster can be reached ({one_line(error)}): start "
                         "one by `ray start --head`, or give the address of its head") from None
    return ray

"""Workers of a batch as processes of this computer, with a share of its cores or a GPU each."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from ros2_pose.errors import PoseError, one_line
from ros2_pose.offline.batch.dispatch import DIED, DONE, FAILED, IMAGES, READY, UNUSABLE
from ros2_pose.offline.batch.results import ResultFolders
from ros2_pose.offline.replayer import Replayer
from ros2_pose.runtime_env import settle

_REPORT_S = 0.5  # between two messages about progress
_GPUS = "CUDA_VISIBLE_DEVICES"
# Of a worker process: it ends with its parent from the start, and imports what its parent does,
# not what lies in the working directory.
_PROGRAM = """\
import sys
sys.path[:] = filter(None, sys.path)
from ros2_pose.runtime_env import end_with_parent
end_with_parent(int(sys.argv[1]))
from ros2_pose.offline.batch.processes import serve
serve(int(sys.argv[2]))
"""


class ProcessWorkers:
    """Processes that live until they are stopped; each loads its networks once."""

    def __init__(self, count: int, threads: int, gpus: int, replayer: Replayer,
                 results: ResultFolders):
        """Start the processes.

        Args:
            threads: of each process.
            gpus: number of GPUs that the processes take turns in; 0: they use the CPU.
        """
        self.count, self.threads = count, threads
        self._gpus = _visible_gpus(gpus)
        self._work = replayer, results
        self._processes: dict[int, tuple[subprocess.Popen, Connection]] = {}
        for worker in range(count):
            self.replace(worker)

    def replace(self, worker: int) -> None:
        """Start a process as this worker.

        It is a new Python, because a fork would share locks, threads and CUDA, and in a session of
        its own, so that Ctrl-C reaches the parent alone.
        """
        ours, theirs = Pipe()
        variables = {**os.environ, "OMP_NUM_THREADS": str(self.threads),
                     "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if self._gpus:
            variables[_GPUS] = self._gpus[worker % len(self._gpus)]
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(os.getpid()), str(theirs.fileno())],
            env=variables, pass_fds=[theirs.fileno()], start_new_session=True,
            stdin=subprocess.DEVNULL)
        theirs.close()  # so that the end of the process is the end of the pipe
        self._processes[worker] = process, ours
        self._send(worker, (self.threads, *self._work))

    def give(self, worker: int, name: str, source: Path) -> None:
        """Let a worker process a recording."""
        self._send(worker, (name, source))

    def _send(self, worker: int, message: tuple) -> None:
        with suppress(OSError):  # the worker has just died, which is its next event
            self._processes[worker][1].send(message)

    def events(self) -> list[tuple[int, str, Any]]:
        """Wait for events of workers: (worker, kind, value)."""
        workers = {connection: worker for worker, (_, connection) in self._processes.items()}
        events: list[tuple[int, str, Any]] = []
        for connection in wait(list(workers)):
            assert isinstance(connection, Connection)
            worker = workers[connection]
            try:
                events.append((worker, *connection.recv()))
            except (EOFError, OSError):
                events.append((worker, DIED, self._end_of(worker)))
        return events

    def _end_of(self, worker: int) -> str:
        """How a process ended, in words."""
        process, connection = self._processes.pop(worker)
        connection.close()
        code = process.wait()
        if code == -signal.SIGKILL:
            return "was killed (SIGKILL); if memory is short, use fewer --workers"
        return f"ended with status {code}" if code >= 0 else f"was ended by signal {-code}"

    def stop(self) -> None:
        """Kill all processes; what they have not finished is lost."""
        for process, _ in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what it has started: downloads
        for process, connection in self._processes.values():
            process.wait()
            connection.close()
        self._processes.clear()


def serve(handle: int) -> None:
    """Process recordings as a worker until the connection is closed.

    Args:
        handle: file descriptor of the connection. Through it come first the number of threads,
            the Replayer and the ResultFolders, then names and paths of recordings.
    """
    settle()
    connection = Connection(handle)
    threads, replayer, results = connection.recv()
    reason = load(replayer, threads)
    connection.send((UNUSABLE, reason) if reason else (READY, None))
    while True:
        try:
            name, source = connection.recv()
        except EOFError:
            return
        connection.send(process_recording(
            replayer, results, name, source,
            lambda count: connection.send((IMAGES, count))))


def load(replayer: Replayer, threads: int) -> str:
    """Load the networks; return why that is impossible with these settings, or nothing."""
    import cv2
    cv2.setNumThreads(threads)
    try:
        replayer.pipeline  # noqa: B018
    except PoseError as error:
        return str(error)
    return ""


def process_recording(replayer: Replayer, results: ResultFolders, name: str, source: Path,
                      report: Callable[[int], None]) -> tuple[str, Any]:
    """Replay a recording into its folder.

    Args:
        report: is told now and then how many more images are processed.
    Returns:
        (DONE, record) or (FAILED, reason in one line).
    """
    _log_as(name)
    try:
        return DONE, results.write(name, source, lambda files: replayer.run(
            source, files, lambda images: _reported(images, report)))
    except PoseError as error:
        return FAILED, str(error)
    except Exception as error:  # a fault of the program must not stop the other recordings
        logging.getLogger(__name__).exception("unexpected error")
        return FAILED, f"{type(error).__name__}: {one_line(error)}"


def _log_as(name: str) -> None:
    """Begin all messages of this process with the name of a recording."""
    prefix = name.replace("%", "%%")
    logging.basicConfig(format=f"%(levelname)s {prefix}: %(message)s", level=logging.INFO,
                        force=True)


def _reported(images: Iterable, report: Callable[[int], None]) -> Iterator:
    """Pass images on and report their number."""
    count, reported = 0, time.monotonic()
    try:
        for image in images:
            yield image
            count += 1
            if time.monotonic() - reported > _REPORT_S:
                report(count)
                count, reported = 0, time.monotonic()
    finally:
        report(count)


def gpu_count(device: str) -> int:
    """Return the number of GPUs that the setting `device` may use.

    torch takes seconds to import: it is asked only where a driver is installed.
    """
    if device == "cpu" or not (_has_library("libcuda.so.1") or Path("/dev/kfd").exists()):
        return 0
    import torch
    return torch.cuda.device_count()


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _visible_gpus(count: int) -> list[str]:
    """Names of GPUs as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get(_GPUS, "")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]

"""A Replayer for the tests of `batch`: recordings are words in text files, without networks.

As a program: the command line of ros2_pose, whose `batch` uses this Replayer.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from ros2_pose.errors import PoseError
from ros2_pose.offline.replayer import Replayer


class WordReplayer(Replayer):
    """Treats each word of a file as an image, and some words as an order to the process."""

    pipeline = None

    def run(self, path, results, progress=None):
        """Write the words in upper case, and where they were processed."""
        files = [result / "data" if not result.suffix else result for result in results]
        summary = SimpleNamespace(images=0, unreadable=0, ignored=0, people=["p1"], problems=[],
                                  stopped="", write_failed=False)
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.write_text("half-written")
        for word in progress(path.read_text().split()):
            summary.images += 1
            self._obey(word, path, summary)
        variables = [os.environ.get(name, "") for name in ("OMP_NUM_THREADS",
                                                           "CUDA_VISIBLE_DEVICES")]
        for file in files:
            file.write_text(" ".join([path.read_text().upper(), *variables]))
        return summary

    def _obey(self, word, path, summary):
        started = path.with_suffix(".pid")
        if word == "die" or (word == "die_once" and not started.exists()):
            started.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "broken":
            raise PoseError(f"{path.name} is broken: record it again")
        elif word == "bug":
            raise ZeroDivisionError("division\nby zero")
        elif word == "full":
            summary.write_failed, summary.stopped = True, "the disk is full"
        elif word == "unreadable":
            summary.unreadable += 1
        elif word == "stay":
            started.write_text(str(os.getpid()))
            time.sleep(60)
        elif word == "meet":  # until as many processes as there are recordings do the same
            started.write_text(str(os.getpid()))
            others = list(path.parent.glob("*.mp4"))
            while not all(other.with_suffix(".pid").exists() for other in others):
                time.sleep(0.01)


def use_words(monkeypatch) -> None:
    """Let `batch` use a WordReplayer."""
    from ros2_pose.cli import batch
    real = batch.replayer_of

    def replayer_of(options):
        made = real(options)
        return WordReplayer(made.config, made.settings, made.camera, made.storage,
                            **made.recording)
    monkeypatch.setattr(batch, "replayer_of", replayer_of)


def recordings(folder: Path, **texts: str) -> Path:
    """Write recordings by the stems of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, text in texts.items():
        (folder / f"{stem}.mp4").write_text(text)
    return folder


if __name__ == "__main__":
    sys.modules["batch_helpers"] = sys.modules["__main__"]  # by which workers import it
    WordReplayer.__module__ = "batch_helpers"
    from ros2_pose import cli
    with pytest.MonkeyPatch.context() as patch:
        use_words(patch)
        sys.exit(cli.main())

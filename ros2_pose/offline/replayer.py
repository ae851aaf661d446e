"""Replay of recordings from files into files, with the same settings; networks are loaded once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.recording import open_recording

if TYPE_CHECKING:
    from ros2_pose.offline.replay import ReplaySummary
    from ros2_pose.pipeline import Pipeline


class Replayer:
    """Replays one recording after another; each is processed as if it were the only one.

    It can be pickled until its pipeline is loaded. torch is imported by the methods, not before:
    after `runtime_env.settle`, and not for wrong arguments.
    """

    def __init__(self, config: PoseConfig, settings: NodeConfig, camera: Camera | None = None,
                 storage: str = "sqlite3", **recording):
        """Set up.

        Args:
            camera: replaces the calibration of the recordings.
            storage: format of bags, sqlite3 or mcap.
            recording: further arguments of `open_recording`.
        """
        self.config, self.settings, self.camera = config, settings, camera
        self.storage, self.recording = storage, recording

    @cached_property
    def pipeline(self) -> Pipeline:
        """The pipeline with its networks, loaded on first use."""
        from ros2_pose.pipeline import Pipeline
        return Pipeline(self.config)

    def run(self, path: Path, results: list[Path],
            progress: Callable | None = None) -> ReplaySummary:
        """Replay a recording into result files.

        Args:
            progress: wraps the iterator of recorded frames; by default a progress bar.
        Raises:
            PoseError: the recording cannot be read, or a result cannot be written.
        """
        from ros2_pose.offline.replay import progress_bar, replay
        from ros2_pose.offline.results import check_results, open_sink
        from ros2_pose.offline.sinks import writing
        source = open_recording(path, camera=self.camera, settings=self.settings, **self.recording)
        check_results(results, path)
        pipeline = self.pipeline.another()
        sinks = []
        for result in results:
            with writing(result):
                sinks.append(open_sink(result, source.fps, pipeline, self.settings, self.storage))
        return replay(source, pipeline, sinks, progress or progress_bar)

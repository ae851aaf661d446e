"""MPI-INF-3DHP (Mehta et al. 2017): markerless motion capture of single actors in a studio."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.mupots import mpi_inf_sample
from ros2_pose.data.reading import (
    PROJECTED,
    members_of_split,
    parsing,
    read_frame,
    read_mat,
    require_path,
)
from ros2_pose.data.sample import DataError, Sample
from ros2_pose.skeleton import MUPOTS17

_JOINTS = len(MUPOTS17)
# The joints of MUPOTS17 among the 28 of MPI-INF-3DHP, as its benchmark selects them.
_OF_28 = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]


# T pictures of one actor from one camera; joints (T, 17, 2) px, pixel centres at 0, and (T, 17, 3)
# m, camera frame.
_Video = tuple[list[Path], Camera, np.ndarray, np.ndarray]


class MpiInf3dhp:
    """MPI-INF-3DHP: root/S1/Seq1/ and so on with annot.mat, camera.calibration and pictures.

    Pictures are the frames of the videos, imageFrames/video_0/frame_000001.jpg and so on; numbers
    start with 0 or 1, and some may be left out. Splits: train (S1 to S7), validation (S8) and all.
    Samples are not complete, since other people may pass through the studio. Keypoints are
    projections of the 3D joints.

    Raises DataError if a file is missing or has another content than expected.
    """

    _REMEDY = ("download MPI-INF-3DHP and extract the frames of imageSequence/video_<n>.avi to "
               "imageFrames/video_<n>/frame_000001.jpg and so on")

    def __init__(self, root: str | Path, split: str = "train") -> None:
        splits = {"train": range(1, 8), "validation": (8,), "all": range(1, 9)}
        subjects = members_of_split(splits, split, "MPI-INF-3DHP")
        self.videos: list[_Video] = []
        for sequence in [Path(root) / f"S{s}" / f"Seq{n}" for s in subjects for n in (1, 2)]:
            self.videos += self._read(sequence)
        self.index = [(number, time) for number, (paths, *_) in enumerate(self.videos)
                      for time in range(len(paths))]

    def _read(self, sequence: Path) -> list[_Video]:
        cameras = _calibrations(require_path(sequence / "camera.calibration", self._REMEDY))
        file, folder = sequence / "annot.mat", require_path(sequence / "imageFrames", self._REMEDY)
        pixels, points_mm = read_mat(file, ("annot2", "annot3"), self._REMEDY)
        videos: list[_Video] = []
        for pictures in sorted(folder.glob("video_*")):
            rows, paths = self._numbered(pictures)
            with parsing(file, f"annot2 and annot3 of {pictures.name}, 28 joints a frame"):
                camera = int(pictures.name.removeprefix("video_"))
                pixels_28 = pixels[camera].reshape(-1, 28, 2)
                points_28_mm = points_mm[camera].reshape(-1, 28, 3)
                paths = [path for row, path in zip(rows, paths) if row < len(pixels_28)]
                rows = rows[:len(paths)]  # a video may be longer than its annotations
                videos.append((paths, cameras[camera],
                               np.asarray(pixels_28[rows][:, _OF_28], np.float32),
                               np.asarray(points_28_mm[rows][:, _OF_28] / 1000, np.float32)))
        if not any(paths for paths, *_ in videos):
            raise DataError(f"{folder} has no pictures: {self._REMEDY}")
        return videos

    def _numbered(self, folder: Path) -> tuple[list[int], list[Path]]:
        """Rows of the annotations for the pictures, and the pictures in this order."""
        paths = sorted(folder.glob("*.jpg"))
        with parsing(folder, "pictures named frame_000001.jpg and so on"):
            numbers = [int(path.stem.rpartition("_")[2]) for path in paths]
        if numbers and numbers[0] > 1:
            raise DataError(f"{folder} starts with number {numbers[0]}, not with 0 or 1, so that "
                            f"the frame is unknown: {self._REMEDY}")
        return [number - numbers[0] for number in numbers], paths

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        video, time = self.index[number]
        paths, camera, pixels, points = self.videos[video]
        path = paths[time]
        annotations = path.parents[2] / "annot.mat"
        return mpi_inf_sample(read_frame(path, camera), points[[time]].astype(float),
                              pixels[[time]].astype(float), np.full((1, _JOINTS), PROJECTED),
                              f"{annotations}, {path.parent.name}/{path.name}")


def _calibrations(file: Path) -> dict[int, Camera]:
    """The cameras of a camera.calibration file by number, without distortion."""
    cameras, values = {}, {}
    with parsing(file, "name, size and intrinsic of each camera"):
        for line in file.read_text().splitlines():
            key, *words = line.split() or [""]
            values[key] = words
            if key == "intrinsic":
                K = np.array(words, float).reshape(4, 4)[:3, :3]
                width, height = map(int, values["size"])
                cameras[int(values["name"][0])] = Camera.from_opencv(width, height, K)
    return cameras

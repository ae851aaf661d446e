"""MuPoTS-3D and MPI-INF-3DHP (Mehta et al. 2018, 2017): markerless capture, in and out of doors."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.reading import (
    PROJECTED,
    boxes_around,
    coco_keypoints,
    make_sample,
    members_of_split,
    parsing,
    read_frame,
    read_mat,
    require_path,
    smpl_joints,
)
from ros2_pose.data.sample import HIDDEN, VISIBLE, DataError, Sample
from ros2_pose.people import Frame
from ros2_pose.skeleton import MUPOTS17

_J = len(MUPOTS17)


def _sample(frame: Frame, points: np.ndarray, pixels: np.ndarray, scores: np.ndarray,
            where: str) -> Sample:
    """points (P, 17, 3) m, pixels (P, 17, 2) with centres at 0, scores (P, 17): MuPoTS' order."""
    joints = smpl_joints(points, np.ones(points.shape[:2], bool), MUPOTS17, f"{where}, annot3")
    marks = coco_keypoints(pixels + 0.5, scores, MUPOTS17, f"{where}, annot2")
    return make_sample(frame, boxes_around(pixels + 0.5), marks, complete=False, joints=joints)


# --------------------------------------------------------------------------------- MuPoTS-3D


class _MpiInfSequence(NamedTuple):
    """T pictures of P people."""

    folder: Path
    valid: np.ndarray  # (T, P) bool
    pixels: np.ndarray  # (T, P, 17, 2) px, pixel centres at 0
    points: np.ndarray  # (T, P, 17, 3) m, camera frame
    hidden: np.ndarray  # (T, P, 17) bool
    K: np.ndarray  # (3, 3) pixel centres at 0


class Mupots:
    """MuPoTS-3D: root/TS1 to TS20 with annot.mat, occlusion.mat and img_000000.jpg and so on.

    'test' is all there is: nothing of it may be trained on. Two or three people are labelled where
    they are valid, others are not: never complete. The calibration is not among the files; it
    follows from annotations in the picture and in space, of which most are exact projections.
    """

    _REMEDY = "download and unpack MultiPersonTestSet.zip of MuPoTS-3D"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        numbers = members_of_split({"test": tuple(range(1, 21))}, split, "MuPoTS-3D")
        self.sequences = [self._read(Path(root) / f"TS{number}") for number in numbers]
        self.index = [(number, int(time)) for number, sequence in enumerate(self.sequences)
                      for time in np.flatnonzero(sequence.valid.any(1))]
        for number, time in self.index[:1]:
            require_path(_picture(self.sequences[number], time), self._REMEDY)

    def _read(self, folder: Path) -> _MpiInfSequence:
        cells, = read_mat(folder / "annot.mat", ("annotations",), self._REMEDY, squeeze=False)
        hidden, = read_mat(folder / "occlusion.mat", ("occlusion_labels",), self._REMEDY,
                           squeeze=False)
        with parsing(folder / "annot.mat", "cells of annot2, annot3 and isValidFrame"):
            people = np.vectorize(lambda cell: cell[0, 0], otypes=[object])(cells)
            valid, pixels, points = (
                np.array([[np.ravel(getattr(person, name), order="F") for person in row]
                          for row in people], float).reshape(*cells.shape, -1, size)
                for name, size in (("isValidFrame", 1), ("annot2", 2), ("annot3", 3)))
            valid = valid[..., 0, 0] > 0
            points = points.reshape(*cells.shape, _J, 3) / 1000
            pixels = pixels.reshape(*cells.shape, _J, 2)
        with parsing(folder / "occlusion.mat", "cells of 17 labels, as many as annotations"):
            hidden = np.array([[np.ravel(cell) for cell in row] for row in hidden], float) > 0
            hidden = hidden.reshape(*cells.shape, _J)
        K = _intrinsics(pixels[valid], points[valid], folder / "annot.mat")
        return _MpiInfSequence(folder, valid, pixels, points, hidden, K)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        sequence, time = self.sequences[self.index[number][0]], self.index[number][1]
        frame = read_frame(_picture(sequence, time), K=sequence.K)
        valid = sequence.valid[time]
        points, pixels = sequence.points[time][valid], sequence.pixels[time][valid]
        scores = np.where(sequence.hidden[time][valid], HIDDEN, VISIBLE)
        return _sample(frame, points, pixels, scores,
                       f"{sequence.folder / 'annot.mat'}, picture {time}")


def _picture(sequence: _MpiInfSequence, time: int) -> Path:
    return sequence.folder / f"img_{time:06d}.jpg"


def _intrinsics(pixels: np.ndarray, points: np.ndarray, file: Path) -> np.ndarray:
    """(3, 3) K that takes points (N, 17, 3) to pixels (N, 17, 2).

    By least squares without the worst: most are exact, but some are hundreds of px off.
    """
    flat = np.c_[points.reshape(-1, 3), pixels.reshape(-1, 2)]
    flat = flat[np.isfinite(flat).all(1) & (flat[:, 2] > 0)]
    if len(flat) < _J:
        raise DataError(f"{file}: too few valid annotations to find the camera's calibration: "
                        "take the unmodified file")
    lines = [_line(flat[:, axis] / flat[:, 2], flat[:, 3 + axis]) for axis in range(2)]
    (fx, cx), (fy, cy) = lines
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope and offset of y over x, found where most of them agree."""
    terms, agree = np.c_[x, np.ones(len(x))], np.ones(len(x), bool)
    for _ in range(5):
        line = np.linalg.lstsq(terms[agree], y[agree], rcond=None)[0]
        error = np.abs(terms @ line - y)
        agree = error <= 3 * np.median(error) + 1e-6
    return line


# ------------------------------------------------------------------------------ MPI-INF-3DHP

# MuPoTS' seventeen joints among the 28 of MPI-INF-3DHP, as its benchmark chooses them.
_OF_28 = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]


class _Video(NamedTuple):
    """T pictures of one actor by one camera."""

    file: Path  # annot.mat
    paths: list[Path]
    camera: Camera
    pixels: np.ndarray  # (T, 17, 2) px, pixel centres at 0
    points: np.ndarray  # (T, 17, 3) m, camera frame


class MpiInf3dhp:
    """MPI-INF-3DHP: root/S1/Seq1/ and so on with annot.mat, camera.calibration and pictures.

    Pictures are the frames of the videos, imageFrames/video_0/frame_000001.jpg and so on; numbers
    start with 0 or 1, and some may be left out. split: train (S1 to S7), validation (S8) or all.
    Other people may pass through the studio: not complete. Keypoints are projections.
    """

    _REMEDY = ("download MPI-INF-3DHP and extract the frames of imageSequence/video_<n>.avi to "
               "imageFrames/video_<n>/frame_000001.jpg and so on")

    def __init__(self, root: str | Path, split: str = "train") -> None:
        splits = {"train": range(1, 8), "validation": range(8, 9), "all": range(1, 9)}
        subjects = members_of_split(splits, split, "MPI-INF-3DHP")
        self.videos: list[_Video] = []
        for sequence in [Path(root) / f"S{s}" / f"Seq{n}" for s in subjects for n in (1, 2)]:
            self.videos += self._read(sequence)
        self.index = [(number, time) for number, video in enumerate(self.videos)
                      for time in range(len(video.paths))]

    def _read(self, sequence: Path) -> list[_Video]:
        cameras = _calibrations(require_path(sequence / "camera.calibration", self._REMEDY))
        file, folder = sequence / "annot.mat", require_path(sequence / "imageFrames", self._REMEDY)
        pixels, points = read_mat(file, ("annot2", "annot3"), self._REMEDY)
        videos = []
        for pictures in sorted(folder.glob("video_*")):
            rows, paths = self._numbered(pictures)
            with parsing(file, f"annot2 and annot3 of {pictures.name}, 28 joints a frame"):
                camera = int(pictures.name.removeprefix("video_"))
                p2, p3 = (cells[camera].reshape(-1, 28, size)[:, _OF_28]
                          for cells, size in ((pixels, 2), (points, 3)))
                paths = [path for row, path in zip(rows, paths) if row < len(p2)]
                rows = rows[:len(paths)]  # videos may run on after the annotations
                videos.append(_Video(file, paths, cameras[camera], np.float32(p2[rows]),
                                     np.float32(p3[rows] / 1000)))
        if not any(video.paths for video in videos):
            raise DataError(f"{folder} has no pictures: {self._REMEDY}")
        return videos

    def _numbered(self, folder: Path) -> tuple[list[int], list[Path]]:
        """The annotation's row of each picture, and the pictures in this order."""
        paths = sorted(folder.glob("*.jpg"))
        with parsing(folder, "pictures named frame_000001.jpg and so on"):
            numbers = [int(path.stem.rpartition("_")[2]) for path in paths]
        if numbers and numbers[0] > 1:
            raise DataError(f"{folder} starts with number {numbers[0]}, so that nobody knows which "
                            f"frame that is: {self._REMEDY}")
        return [number - numbers[0] for number in numbers], paths

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        video, time = self.videos[self.index[number][0]], self.index[number][1]
        path = video.paths[time]
        return _sample(read_frame(path, video.camera), video.points[[time]].astype(float),
                       video.pixels[[time]].astype(float), np.full((1, _J), PROJECTED),
                       f"{video.file}, {path.parent.name}/{path.name}")


def _calibrations(file: Path) -> dict[int, Camera]:
    """The cameras of a camera.calibration by number; they have no distortion."""
    cameras, values = {}, {}
    with parsing(file, "name, size and intrinsic of each camera"):
        for line in file.read_text().splitlines():
            key, *words = line.split() or [""]
            values[key] = words
            if key == "intrinsic":
                K = np.array(words, float).reshape(4, 4)[:3, :3]
                cameras[int(values["name"][0])] = Camera.from_opencv(*map(int, values["size"]), K)
    return cameras

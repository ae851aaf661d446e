"""MuPoTS-3D (Mehta et al. 2018): two or three people per scene, markerless motion capture.

Two forms are read: the published folder with pictures (`Mupots`), and an npz file that holds the
ground truth alone (`read_sequences`, `read_people`), with arrays `TS<n>_p2`, `TS<n>_p3_mm`,
`TS<n>_valid` and `TS<n>_K` for sequence n, and `joint_names`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.data.reading import (
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

FPS = 30.0
_JOINTS = len(MUPOTS17)
_FIT_ROUNDS = 5
_OUTLIER_MEDIANS = 3  # an annotation this many median errors off does not fit the camera


class MupotsSequence(NamedTuple):
    """Annotations of T frames and P people, joints in the order of MUPOTS17."""

    number: int  # 1..20
    valid: np.ndarray  # (T, P) bool: the person is annotated in this frame
    pixels: np.ndarray  # (T, P, 17, 2) px
    points: np.ndarray  # (T, P, 17, 3) m, camera frame
    K: np.ndarray  # (3, 3) intrinsics, px
    hidden: np.ndarray | None = None  # (T, P, 17) bool: the joint is occluded; None: not read
    folder: Path | None = None  # of the pictures; None: the sequence has none


class MupotsPeople(NamedTuple):
    """N annotated people of several sequences, frame by frame, joints in the order of MUPOTS17."""

    rays: np.ndarray  # (N, 17, 2) image points at z = 1
    poses: np.ndarray  # (N, 17, 3) m, camera frame
    sequence: np.ndarray  # (N,) 1..20
    person: np.ndarray  # (N,) index of the person, constant within a sequence


# ------------------------------------------------------------------------- ground-truth file


def read_sequences(path: str | Path) -> list[MupotsSequence]:
    """Read all sequences of a ground-truth npz.

    Returns: sequences in the alphabetical order of their names (TS1, TS10, TS2, ...), pixels and
        points in the precision of the file.

    Raises: ValueError if the joints are not those of MUPOTS17.
    """
    with np.load(path, allow_pickle=False) as file:
        if tuple(file["joint_names"]) != MUPOTS17.names:
            raise ValueError(f"{path} has joints {', '.join(file['joint_names'])}, expected "
                             f"{', '.join(MUPOTS17.names)}")
        names = sorted({name.split("_")[0] for name in file if name.startswith("TS")})
        return [_from_arrays(file, name) for name in names]


def _from_arrays(file, name: str) -> MupotsSequence:
    fx, fy, cx, cy = file[f"{name}_K"].astype(float)
    return MupotsSequence(
        number=int(name.removeprefix("TS")), valid=file[f"{name}_valid"].astype(bool),
        pixels=file[f"{name}_p2"], points=file[f"{name}_p3_mm"] / 1000,
        K=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))


def read_people(path: str | Path, stride: int = 1) -> MupotsPeople:
    """Read the annotated people of every `stride`-th frame of a ground-truth npz.

    Returns: people ordered by sequence number, then frame, then person.

    Raises: ValueError if the joints are not those of MUPOTS17.
    """
    sequences = sorted(read_sequences(path), key=lambda sequence: sequence.number)
    parts = [_people_of(sequence, stride) for sequence in sequences]
    return MupotsPeople(*map(np.concatenate, zip(*parts)))


def _people_of(sequence: MupotsSequence, stride: int) -> MupotsPeople:
    valid = sequence.valid[::stride]
    focal, centre = np.diag(sequence.K)[:2], sequence.K[:2, 2]
    _, person = np.nonzero(valid)
    return MupotsPeople(
        rays=(sequence.pixels[::stride][valid] - centre) / focal,
        poses=sequence.points[::stride][valid],
        sequence=np.full(len(person), sequence.number), person=person)


# --------------------------------------------------------------------------- published folder


class Mupots:
    """MuPoTS-3D as published: root/TS1 to TS20 with annot.mat, occlusion.mat, img_000000.jpg, ...

    The only split is 'test': nothing of it may be trained on. Samples are never complete, since
    only people with a valid annotation are labelled. The intrinsics are not among the files; they
    are fitted to the 2D and 3D annotations, of which most are exact projections.

    Raises DataError if a file is missing or has another content than expected.
    """

    _REMEDY = "download and unpack MultiPersonTestSet.zip of MuPoTS-3D"

    def __init__(self, root: str | Path, split: str = "test") -> None:
        numbers = members_of_split({"test": tuple(range(1, 21))}, split, "MuPoTS-3D")
        self.sequences = [self._read(Path(root) / f"TS{number}", number) for number in numbers]
        self.index = [(number, int(time)) for number, sequence in enumerate(self.sequences)
                      for time in np.flatnonzero(sequence.valid.any(1))]
        for number, time in self.index[:1]:
            require_path(_picture(self.sequences[number], time), self._REMEDY)

    def _read(self, folder: Path, number: int) -> MupotsSequence:
        cells, = read_mat(folder / "annot.mat", ("annotations",), self._REMEDY, squeeze=False)
        labels, = read_mat(folder / "occlusion.mat", ("occlusion_labels",), self._REMEDY,
                           squeeze=False)
        with parsing(folder / "annot.mat", "cells of annot2, annot3 and isValidFrame"):
            people = np.vectorize(lambda cell: cell[0, 0], otypes=[object])(cells)
            valid = _stacked(people, "isValidFrame").reshape(cells.shape) > 0
            pixels = _stacked(people, "annot2").reshape(*cells.shape, _JOINTS, 2)
            points = _stacked(people, "annot3").reshape(*cells.shape, _JOINTS, 3) / 1000
        with parsing(folder / "occlusion.mat", "cells of 17 labels, as many as annotations"):
            hidden = np.array([[np.ravel(cell) for cell in row] for row in labels], float) > 0
            hidden = hidden.reshape(*cells.shape, _JOINTS)
        K = _intrinsics(pixels[valid], points[valid], folder / "annot.mat")
        return MupotsSequence(number, valid, pixels, points, K, hidden, folder)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        sequence, time = self.sequences[self.index[number][0]], self.index[number][1]
        frame = read_frame(_picture(sequence, time), K=sequence.K)
        valid = sequence.valid[time]
        assert sequence.hidden is not None and sequence.folder is not None
        scores = np.where(sequence.hidden[time][valid], HIDDEN, VISIBLE)
        return mpi_inf_sample(frame, sequence.points[time][valid], sequence.pixels[time][valid],
                              scores, f"{sequence.folder / 'annot.mat'}, picture {time}")


def _stacked(people: np.ndarray, name: str) -> np.ndarray:
    """(T, P, values) one field of MATLAB structs (T, P), each flattened column by column."""
    return np.array([[np.ravel(getattr(person, name), order="F") for person in row]
                     for row in people], float)


def mpi_inf_sample(frame: Frame, points: np.ndarray, pixels: np.ndarray, scores: np.ndarray,
                   where: str) -> Sample:
    """Build a sample of P people in the format that MuPoTS-3D and MPI-INF-3DHP share.

    Args:
        points (P, 17, 3): m, camera frame, order of MUPOTS17.
        pixels (P, 17, 2): px, the centre of the first pixel at 0.
        scores (P, 17): VISIBLE, HIDDEN and so on.
        where: file and picture, for error messages.
    """
    joints = smpl_joints(points, np.ones(points.shape[:2], bool), MUPOTS17, f"{where}, annot3")
    keypoints = coco_keypoints(pixels + 0.5, scores, MUPOTS17, f"{where}, annot2")
    return make_sample(frame, boxes_around(pixels + 0.5), keypoints, complete=False, joints=joints)


def _picture(sequence: MupotsSequence, time: int) -> Path:
    assert sequence.folder is not None
    return sequence.folder / f"img_{time:06d}.jpg"


def _intrinsics(pixels: np.ndarray, points: np.ndarray, file: Path) -> np.ndarray:
    """(3, 3) K that projects points (N, 17, 3) to pixels (N, 17, 2).

    Robust least squares: most annotations are exact, some are hundreds of px off.
    """
    flat = np.c_[points.reshape(-1, 3), pixels.reshape(-1, 2)]
    flat = flat[np.isfinite(flat).all(1) & (flat[:, 2] > 0)]
    if len(flat) < _JOINTS:
        raise DataError(f"{file}: too few valid annotations to find the camera's calibration: "
                        "take the unmodified file")
    fx, cx = _robust_line(flat[:, 0] / flat[:, 2], flat[:, 3])
    fy, cy = _robust_line(flat[:, 1] / flat[:, 2], flat[:, 4])
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])


def _robust_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(2,) slope and offset of y (N,) over x (N,), fitted again without the outliers."""
    terms, inlier = np.c_[x, np.ones(len(x))], np.ones(len(x), bool)
    for _ in range(_FIT_ROUNDS):
        line = np.linalg.lstsq(terms[inlier], y[inlier], rcond=None)[0]
        error = np.abs(terms @ line - y)
        inlier = error <= _OUTLIER_MEDIANS * np.median(error) + 1e-6
    return line

"""The datasets by name, several as one, and what to do about a few damaged pictures.

Each reader takes the folder of the dataset as it was published and a split, looks once whether
everything is there, and opens pictures only when they are asked for. "synthetic" takes a file of
motion capture instead, and draws.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ros2_pose.data.h36m import Human36M
from ros2_pose.data.mpi_inf_3dhp import MpiInf3dhp
from ros2_pose.data.mupots import Mupots
from ros2_pose.data.panoptic import Panoptic
from ros2_pose.data.pw3d import Pw3d
from ros2_pose.data.sample import DataError, Sample, Samples, Stored
from ros2_pose.data.stills import Coco, LspExtended, Mpii
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.pictures import SyntheticPictures
from ros2_pose.weights import cache_dir

log = logging.getLogger(__name__)

_SYNTHETIC = {"train": 20_000, "test": 500, "validation": 300}  # pictures


def synthetic(mocap: str | Path, split: str) -> Samples:
    """Synthetic pictures of people in the poses of an npz (`bodies.read_poses`): those that are
    learned from (train, validation), or those held back from all training (test). Drawn when they
    are first asked for, and kept in the cache."""
    if split not in _SYNTHETIC:
        raise DataError(f"synthetic has no split {split!r}; it has {', '.join(_SYNTHETIC)}")
    try:
        poses = read_poses(mocap, held=split == "test")
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{mocap} is not motion capture ({error}): give an npz with theta "
                        "(N, 24, 3) and src (N,), as ros2_pose.data.bvh makes") from error
    pictures = SyntheticPictures(poses, seed=list(_SYNTHETIC).index(split))
    return Stored(cache_dir() / "synthetic" / split, pictures, _SYNTHETIC[split])


DATASETS = {"synthetic": synthetic, "coco": Coco, "mpii": Mpii, "lspet": LspExtended, "3dpw": Pw3d,
            "h36m": Human36M, "panoptic": Panoptic, "mupots": Mupots, "3dhp": MpiInf3dhp}


def load(name: str, root: str | Path, split: str) -> Samples:
    """A dataset by its name in DATASETS. Raises DataError if it, its split or a file is missing."""
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name](root, split)


class Mixed:
    """Several datasets, as many samples of each: the smaller ones begin again."""

    def __init__(self, *parts: Samples) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts) * max(map(len, self.parts))

    def __getitem__(self, number: int) -> Sample:
        row, which = divmod(range(len(self))[number], len(self.parts))
        part = self.parts[which]
        return part[row % len(part)]


class Skipping:
    """Samples of which a few cannot be read: the next one that can stands in for each of those.

    Each is named once in the log and counted in `bad`; a loader's workers count for themselves.
    Raises DataError when more than `share` of all samples are bad: then it is not bad luck.
    """

    def __init__(self, samples: Samples, share: float = 0.05) -> None:
        self.samples, self.share = samples, share
        self.most = min(share * len(samples), len(samples) - 1)
        self.bad: set[int] = set()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]
        while True:
            try:
                if number not in self.bad:
                    return self.samples[number]
            except DataError as error:
                self._count(number, error)
            number = (number + 1) % len(self)

    def _count(self, number: int, error: DataError) -> None:
        self.bad.add(number)
        log.warning("sample %d is left out (%d by now): %s", number, len(self.bad), error)
        if len(self.bad) > self.most:
            raise DataError(f"{len(self.bad)} of {len(self)} samples cannot be read, more than "
                            f"{self.share:.0%}; the last: {error}") from error

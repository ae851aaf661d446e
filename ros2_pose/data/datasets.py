"""The datasets by name, mixtures of them, and how to skip a few damaged pictures.

A reader takes the folder of a dataset as it was published and a split, checks once whether
everything is there, and opens pictures only when they are asked for. To add a dataset, write a
reader in a file of its own and enter it in `DATASETS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ros2_pose.data.coco import Coco
from ros2_pose.data.h36m import Human36M
from ros2_pose.data.labelled import Labelled
from ros2_pose.data.lsp import LspExtended
from ros2_pose.data.mpi_inf_3dhp import MpiInf3dhp
from ros2_pose.data.mpii import Mpii
from ros2_pose.data.mupots import Mupots
from ros2_pose.data.panoptic import Panoptic
from ros2_pose.data.pw3d import Pw3d
from ros2_pose.data.sample import DataError, Sample, Samples, StoredSamples
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.pictures import SyntheticPictures
from ros2_pose.weights import cache_dir

log = logging.getLogger(__name__)

_SYNTHETIC_COUNTS = {"train": 20_000, "test": 500, "validation": 300}  # pictures by split


def synthetic(mocap: str | Path, split: str) -> Samples:
    """Synthetic pictures of people in the poses of motion capture.

    They are drawn when they are first asked for and kept in the cache.

    Args:
        mocap: an npz with theta (N, 24, 3) and src (N,), see `bodies.read_poses`.
        split: train or validation use the poses that are learned from, test those held back.
    Raises:
        DataError: if there is no such split, or the file cannot be read.
    """
    if split not in _SYNTHETIC_COUNTS:
        raise DataError(f"synthetic has no split {split!r}, only {', '.join(_SYNTHETIC_COUNTS)}")
    try:
        poses = read_poses(mocap, held=split == "test")
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{mocap} is not motion capture ({error}): give an npz with theta "
                        "(N, 24, 3) and src (N,), as ros2_pose.data.bvh makes") from error
    pictures = SyntheticPictures(poses, seed=list(_SYNTHETIC_COUNTS).index(split))
    return StoredSamples(cache_dir() / "synthetic" / split, pictures, _SYNTHETIC_COUNTS[split])


# Name in commands to reader: takes the folder (a file for "synthetic", "labelled") and the split.
DATASETS: dict[str, Callable[[str | Path, str], Samples]] = {
    "synthetic": synthetic,
    "coco": Coco,
    "labelled": Labelled,
    "mpii": Mpii,
    "lspet": LspExtended,
    "3dpw": Pw3d,
    "h36m": Human36M,
    "panoptic": Panoptic,
    "mupots": Mupots,
    "3dhp": MpiInf3dhp,
}


def load(name: str, root: str | Path, split: str) -> Samples:
    """Open a dataset by its name in DATASETS.

    Raises:
        DataError: if the name, the split or a file is missing.
    """
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name](root, split)


class Mixed:
    """Several datasets in turn; the smaller ones begin again.

    Args:
        parts: the datasets.
        shares: samples of each in one turn, e.g. (3, 1); empty, or a single dataset: one of each.

    Raises:
        DataError: if there are not as many shares as datasets.
    """

    def __init__(self, *parts: Samples, shares: Sequence[int] = ()) -> None:
        shares = shares if shares and len(parts) > 1 else (1,) * len(parts)
        if len(shares) != len(parts):
            raise DataError(f"{len(shares)} shares for {len(parts)} datasets: give one for each "
                            "--data, in their order")
        self.parts = parts
        # The dataset of each sample of a turn, and its number among those of the dataset.
        self._turn = [(part, k, share) for part, share in zip(parts, shares) for k in range(share)]

    def __len__(self) -> int:
        return len(self._turn) * max(-(-len(part) // share) for part, _, share in self._turn)

    def __getitem__(self, number: int) -> Sample:
        turn, place = divmod(range(len(self))[number], len(self._turn))
        part, k, share = self._turn[place]
        return part[(share * turn + k) % len(part)]


class Skipping:
    """Samples in which each unreadable one is replaced by the next readable one.

    Each unreadable sample is logged once and counted in `bad`; the workers of a data loader count
    separately.

    Raises:
        DataError: on access, when more than `max_bad_share` of all samples are bad.
    """

    def __init__(self, samples: Samples, max_bad_share: float = 0.05) -> None:
        self.samples, self.max_bad_share = samples, max_bad_share
        self.max_bad = min(max_bad_share * len(samples), len(samples) - 1)
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
        log.warning("skipped sample %d (%d skipped so far): %s", number, len(self.bad), error)
        if len(self.bad) > self.max_bad:
            raise DataError(f"{len(self.bad)} of {len(self)} samples cannot be read, more than "
                            f"{self.max_bad_share:.0%}; the last: {error}") from error


def opened(words: list[str], split: str = "train") -> Samples:
    """Open the dataset of the words NAME FOLDER [SPLIT]; damaged images are left out."""
    if len(words) not in (2, 3):
        raise DataError(f"{' '.join(words)!r} must be NAME FOLDER or NAME FOLDER SPLIT")
    name, folder, split = words if len(words) == 3 else [*words, split]
    return Skipping(load(name, folder, split))

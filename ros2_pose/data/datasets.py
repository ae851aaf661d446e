"""The datasets that can be read, by name, and how to train on one that has a few damaged pictures.

Each reader takes the folder of the dataset as it was published and a split, looks once whether
everything is there, and opens pictures only when they are asked for.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ros2_pose.data.h36m import Human36M
from ros2_pose.data.mpi_inf import MpiInf3dhp, Mupots
from ros2_pose.data.panoptic import Panoptic
from ros2_pose.data.pw3d import Pw3d
from ros2_pose.data.sample import DataError, Sample, Samples
from ros2_pose.data.stills import Coco, LspExtended, Mpii

log = logging.getLogger(__name__)

DATASETS = {"coco": Coco, "mpii": Mpii, "lspet": LspExtended, "3dpw": Pw3d, "h36m": Human36M,
            "panoptic": Panoptic, "mupots": Mupots, "3dhp": MpiInf3dhp}


def load(name: str, root: str | Path, split: str) -> Samples:
    """A dataset by its name in DATASETS. Raises DataError if it, its split or a file is missing."""
    if name not in DATASETS:
        raise DataError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    return DATASETS[name](root, split)


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

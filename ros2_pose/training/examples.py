"""The endless sequence of examples that a network is trained on."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from ros2_pose.data.sample import Sample, Samples
from ros2_pose.training.augment import (
    Example,
    close_up,
    example,
    hidden_behind,
    mosaic,
    person_crop,
)
from ros2_pose.training.disturb import degraded, occluded

_MOSAIC = 0.75  # side of a mosaic relative to an image's: as large people as in images, but more
_DRAWN = 9  # samples among which three more with people are searched


class Endless(Dataset):
    """Example number n of a training without end; a function of the seed and n alone.

    Args:
        samples: images with truth.
        size: side of an example's image, px.
        seed: of the order and the augmentation.
        batch: number of successive examples of one kind, images or mosaics.
        mosaics: share of batches of mosaics of four close-ups.
        roll_deg: most that the camera is rotated about its optical axis, either way.
        occluders: share of examples in which a part of another picture is in front of a person.
        degraded: share of examples with blur, noise or low light.
        one_person: crops of one person each, instead of whole pictures and mosaics.
    """

    def __init__(self, samples: Samples, size: int, seed: int, batch: int = 1,
                 mosaics: float = 0.0, roll_deg: float = 0.0, occluders: float = 0.0,
                 degraded: float = 0.0, one_person: bool = False) -> None:
        self.samples, self.size, self.seed = samples, size, seed
        self.batch, self.mosaics = batch, mosaics
        self.roll_deg, self.occluders, self.degraded = roll_deg, occluders, degraded
        self.one_person = one_person
        self._order: tuple[int, np.ndarray] | None = None  # of an epoch

    def __getitem__(self, number: int) -> Example:
        rng = np.random.default_rng((self.seed, 1, number))
        made = self._made(number, rng)
        if rng.random() < self.occluders:
            other = self.samples[int(rng.integers(len(self.samples)))].frame.image
            image, covered = occluded(made.image, made.people, other, rng)
            made = hidden_behind(made._replace(image=image), covered)
        if rng.random() < self.degraded:
            made = made._replace(image=degraded(made.image, rng))
        return made

    def _made(self, number: int, rng: np.random.Generator) -> Example:
        first = self._sample(number)
        if self.one_person:
            return self._of_one(first, rng)
        batch_rng = np.random.default_rng((self.seed, 2, number // self.batch))
        if batch_rng.random() >= self.mosaics:
            return example(first, self.size, rng, self.roll_deg)
        side = int(_MOSAIC * self.size) // 32 * 16
        drawn = rng.integers(len(self.samples), size=_DRAWN)
        tiles: list[Example] = []
        if len(first.people):
            tiles.append(close_up(first, side, rng, self.roll_deg))
        for row in drawn:
            if len(tiles) == 4:
                break
            sample = self.samples[int(row)]
            if len(sample.people):
                tiles.append(close_up(sample, side, rng, self.roll_deg))
        while len(tiles) < 4:
            tiles.append(close_up(first, side, rng, self.roll_deg))
        return mosaic(tiles)

    def _of_one(self, sample: Sample, rng: np.random.Generator) -> Example:
        """Return the crop of a person of a sample, or of others if it shows no one."""
        for row in rng.integers(len(self.samples), size=_DRAWN):
            if len(sample.people):
                break
            sample = self.samples[int(row)]
        return person_crop(sample, self.size, rng, self.roll_deg)

    def _sample(self, number: int) -> Sample:
        """Return sample number n; every sample comes once an epoch."""
        epoch, row = divmod(number, len(self.samples))
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.samples))
            self._order = epoch, order
        return self.samples[int(self._order[1][row])]

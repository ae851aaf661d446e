"""The contract between the pipeline and a pose network: frames in, `People` out.

`PoseNetwork` declares everything that the pipeline sets or asks. `TorchNetwork` implements it for
a torch module that computes one batch of equally large inputs at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import cv2
import numpy as np
import torch
from torch import nn

from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.imaging.resize import resized, shrunk
from ros2_pose.networks.engine import autocast
from ros2_pose.networks.heads import engines_in_use
from ros2_pose.networks.keypoint_noise import KeypointNoise
from ros2_pose.people import DETECTED, Frame, People

PAD = 114  # grey beside an image, 0..255, of networks that were trained with it


class NetworkError(PoseError):
    """The output of a network violates the contract."""


class Finder(ABC):
    """Finds people in the whole picture: a pose network, or a detector of boxes.

    A subclass implements `find_people`; everything else has a default.

    Attributes:
        config: settings that it was created with.
        score_threshold: people with a lower score are not returned, 0..1.
        max_people: greatest number of people returned for one image.
    """

    config: PoseConfig
    score_threshold: float
    max_people: int

    def __init__(self, config: PoseConfig, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings of the pipeline; frozen.
            device: torch device that the network computes on.
        """
        super().__init__()
        self.config = config
        self.configure(config.score_threshold, config.max_people)

    def configure(self, score_threshold: float, max_people: int) -> None:
        """Set what may change while running; the pipeline calls it before the first frame.

        Args:
            score_threshold: people with a lower score are not returned, 0..1.
            max_people: greatest number of people returned for one image.
        """
        self.score_threshold, self.max_people = score_threshold, max_people

    def searches(self) -> list[Finder]:
        """Return the parts of its search, the cheapest first, each a finder of its own.

        Parts can be run in different images, to spread the cost. By default the whole search.
        """
        return [self]

    @property
    def engines(self) -> set[tuple[str, str]]:
        """What computes its layers: names of engines, each with its device, "cpu" or "cuda"."""
        return engines_in_use(self, self.config) if isinstance(self, nn.Module) else set()

    @abstractmethod
    def find_people(self, frames: list[Frame]) -> list[People]:
        """Compute what `PoseNetwork.detect` returns, by its contract.

        A network leaves out people below `self.score_threshold` and returns at most
        `self.max_people`; both differ from the user's settings, because the tracker also needs weak
        detections. It keeps no memory of earlier frames: several cameras share it. A detector of
        boxes gives NaN for keypoints, keypoint_cov and keypoint_scores.
        """


class PoseNetwork(Finder):
    """Base class of every network of `registry.NETWORKS`; implements nothing of `find_people`."""

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the title for reports: the network and the settings that its scores depend on."""
        return config.network

    @property
    def keypoint_noise(self) -> KeypointNoise | None:
        """Error model by which `People.keypoint_cov` is stated; None if there is none."""
        return None

    @property
    def search_parts(self) -> int:
        """Number of parts of its search that `Frame.search` may choose from; 0: it cannot choose.

        A network with parts looks at `Frame.expected`, too, and finds those people without a
        search. Others search each frame.
        """
        return 0

    @property
    def most_followed(self) -> int:
        """Number of people that can be followed without a search; more need one in each frame."""
        return 0

    @property
    def rotation_std(self) -> torch.Tensor | None:
        """Standard deviation (24,) of `People.theta`, rad, SMPL order; None without theta."""
        return None

    def variants(self) -> dict[str, PoseNetwork]:
        """Return, by title, what `ros2_pose evaluate` scores of the network without the body layer.

        By default the network itself; a network may add versions of itself to compare with.
        """
        return {self.config.network: self}

    def detect(self, frames: list[Frame]) -> list[People]:
        """Find the people of each frame; what the pipeline calls.

        Args:
            frames: images (H, W, 3) uint8 RGB, upright; sizes may differ. An image may be a view
                that np.rot90 made: scale it with `imaging.resize`. `Frame.camera` may be None. A
                network with `search_parts` reads `Frame.expected` and `Frame.search`.
        Returns:
            One `People` a frame, best scores first, in px of its image, pixel centres at +0.5:
            boxes (P, 4), scores (P,), keypoints (P, 17, 2), keypoint_cov (P, 17, 2, 2) px^2 and
            keypoint_scores (P, 17), all finite. A network that sees bodies also gives theta
            (P, 24, 4), betas (P, 10), root (P, 3) m and joints (P, 24, 3) m in the camera frame,
            NaN for a person without body. The result for a frame does not depend on the others.
        Raises:
            NetworkError: the network returned something else.
        """
        found = self.find_people(frames)
        if len(found) != len(frames):
            raise NetworkError(f"{type(self).__name__} returned {len(found)} results for "
                               f"{len(frames)} frames: find_people must return one a frame")
        for people in found:
            _check(people, type(self).__name__)
        return found


def _check(people: People, network: str) -> None:
    """Raise NetworkError for values that violate the contract; `People` has checked the shapes."""
    if not isinstance(people, People):
        raise NetworkError(f"{network} returned {type(people).__name__} for a frame, expected "
                           "People; for an image without people, People.nobody()")
    for name in DETECTED:
        values = getattr(people, name)
        if values is None:
            raise NetworkError(f"{network} returned no {name}")
        if not np.isfinite(values).all():
            raise NetworkError(f"{network} returned {name} that are not finite: check its decoding "
                               "and its weights")
    for name in ("scores", "keypoint_scores"):
        values = getattr(people, name)
        if values.size and not (values.min() >= 0 and values.max() <= 1):
            raise NetworkError(f"{network} returned {name} from {values.min():.3g} to "
                               f"{values.max():.3g}, expected 0 to 1")
    var_x, var_y, cov_xy = (people.keypoint_cov[..., i, j] for i, j in ((0, 0), (1, 1), (0, 1)))
    if not ((var_x > 0) & (var_x * var_y > cov_xy**2)).all():
        raise NetworkError(f"{network} returned keypoint_cov that is not positive definite")


class TorchNetwork(PoseNetwork, nn.Module):
    """A network in torch: prepares inputs, computes them in batches and decodes the outputs."""

    def __init__(self, config: PoseConfig, device: torch.device | str = "cpu") -> None:
        nn.Module.__init__(self)
        self.config = config
        self.configure(config.score_threshold, config.max_people)

    @abstractmethod
    def prepare(self, image: np.ndarray) -> list[torch.Tensor]:
        """Return the inputs (C, h, w) of an image (H, W, 3) uint8 RGB, one for each forward pass.

        Inputs of one image may differ in size, e.g. several scales.
        """

    @abstractmethod
    def forward(self, batch: torch.Tensor) -> tuple:
        """Compute the raw outputs of inputs (B, C, h, w): a tuple of outputs indexed by B."""

    @abstractmethod
    def decode(self, raw: list[tuple], frame: Frame) -> People:
        """Return the people of one frame from the raw outputs of its inputs, in their order."""

    @property
    def device(self) -> torch.device:
        """Device of the network's parameters."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def find_people(self, frames: list[Frame]) -> list[People]:
        """Prepare, compute and decode frames; see `PoseNetwork.detect`."""
        raw = self._forward_by_size([self.prepare(frame.image) for frame in frames])
        return [self.decode(outputs, frame) for outputs, frame in zip(raw, frames)]

    def _forward_by_size(self, inputs: list[list[torch.Tensor]]) -> list[list[tuple]]:
        """Compute inputs of equal size as one batch; return outputs in the order of `inputs`."""
        by_size: dict[tuple, list[tuple[int, int]]] = {}  # indices of frame and input
        for i, of_frame in enumerate(inputs):
            for k, tensor in enumerate(of_frame):
                by_size.setdefault(tuple(tensor.shape), []).append((i, k))
        outputs: list[list] = [[None] * len(of_frame) for of_frame in inputs]
        for indices in by_size.values():
            images = [inputs[i][k] for i, k in indices]
            # One image keeps its order in memory.
            batch = images[0][None] if len(images) == 1 else torch.stack(images)
            with autocast(self.config, self.device):
                raw = self(batch.to(self.device))
            for row, (i, k) in enumerate(indices):
                outputs[i][k] = tuple(_at_least_float(output[row]) for output in raw)
        return outputs


def _at_least_float(output: torch.Tensor) -> torch.Tensor:
    """Return an output (...) in half precision as float; others as they are."""
    return output.float() if output.dtype == torch.float16 else output


def input_size(size: tuple[int, int], scale: int) -> tuple[int, int]:
    """Return (width, height) in px of an image of `size` scaled to a long side of `scale` px."""
    factor = scale / max(size)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def padded_length(length: int) -> int:
    """Return the next multiple of 32 px, the networks' coarsest stride."""
    return -(-length // 32) * 32


def letterbox(image: np.ndarray, scale: int) -> np.ndarray:
    """Return an image (H, W, 3) scaled to a long side of `scale` px.

    It is padded with zeros at the right and bottom to multiples of 32 px.
    """
    width, height = input_size((image.shape[1], image.shape[0]), scale)
    padded = np.zeros((padded_length(height), padded_length(width), 3), np.uint8)
    padded[:height, :width] = shrunk(image, (width, height))
    return padded


def grey_letterbox(image: np.ndarray, scale: int, shrink: int = 1) -> torch.Tensor:
    """Return an image (H, W, 3) scaled to a long side of `scale` px, as an input (3, h, w).

    It is padded with grey at the right and bottom to multiples of 32 px.

    Args:
        image: uint8 RGB.
        scale: long side, px.
        shrink: factor by which the network reduces the input before its strides: multiples of
            32 * shrink px.
    """
    width, height = input_size((image.shape[1], image.shape[0]), scale)
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
    rows, columns = (shrink * padded_length(-(-side // shrink)) for side in (height, width))
    padded = np.full((rows, columns, 3), PAD, np.uint8)
    padded[:height, :width] = resized(image, (width, height), method)
    return torch.from_numpy(padded).permute(2, 0, 1)

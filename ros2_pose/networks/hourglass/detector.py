"""The stacked hourglasses as networks that the pipeline can use; `network.py` has the layers.

`HourglassTags` groups keypoints by associative embedding (Benzine et al. 2019), `HourglassFields`
by part affinity fields (Cao et al. 2017).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.networks.base import PoseNetwork, TorchNetwork, input_size, letterbox
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.hourglass import bodies, orpm, peaks
from ros2_pose.networks.hourglass.grouping import group_by_fields, group_by_tags
from ros2_pose.networks.hourglass.joints import J, K
from ros2_pose.networks.hourglass.network import HourglassNet, sampled
from ros2_pose.people import Frame, People, concatenated
from ros2_pose.skeleton import COCO17

_LEAST_PEAK = 0.2  # score of a peak
_MOST_PEAKS = 40  # of a kind of keypoint
_LEAST_KEYPOINTS = 3  # of a person
_LEAST_READ = 0.2  # score of a keypoint at which 3D is read
_KEYPOINTS = len(COCO17)

Found = dict[str, Tensor]
"""P people of one input: points (P, 19, 2) px, cov (P, 19, 2, 2) px^2 of votes, scores (P, 19),
found (P, 19) bool, and bones (P, 24, 3) m."""


class HourglassTags(TorchNetwork):
    """Detector of people with keypoints and, where the camera is known, 3D joints."""

    GROUPING = "tags"

    def __init__(self, config: PoseConfig = PoseConfig(), device: torch.device | str = "cpu",
                 net: HourglassNet | None = None, stacks: int | None = None,
                 naive: bool = False) -> None:
        """Load the network.

        Args:
            config: settings; read are `checkpoint`, and `scales`, the long sides of its inputs, px.
            device: torch device that the network computes on.
            net: layers to use in place of the checkpoint's.
            stacks: number of hourglasses used; None: all.
            naive: read 3D joints at their own keypoints alone.
        """
        super().__init__(config, device)
        self.net = load_layers(config.checkpoint, HourglassNet) if net is None else net
        self.net.eval().to(device, memory_format=torch.channels_last)
        self.stacks, self.naive = stacks or self.net.config.stacks, naive

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the network, its checkpoint and scales."""
        return f"{config.network}, {config.checkpoint or 'as shipped'}, at " \
            f"{', '.join(map(str, config.scales))} px"

    def variants(self) -> dict[str, PoseNetwork]:
        """Return the ablations of the paper's Table 1: fewer hourglasses, and naive read-out."""
        variants: dict[str, PoseNetwork] = {f"{self.stacks} hourglasses": self}
        settings = {"naive read-out": (self.stacks, True)}
        fewer = self.stacks // 2
        while fewer:
            settings[f"{fewer} hourglass{'es' if fewer > 1 else ''}"] = (fewer, False)
            fewer //= 2
        for title, (stacks, naive) in settings.items():
            other = type(self)(self.config, self.device, self.net, stacks, naive)
            other.configure(self.score_threshold, self.max_people)
            variants[title] = other
        return variants

    def prepare(self, image: np.ndarray) -> list[Tensor]:
        """Return the image (3, h, w) at each scale, 0..255, padded to multiples of 32 px."""
        return [torch.from_numpy(letterbox(image, scale)).permute(2, 0, 1)
                for scale in self.config.scales]

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Compute the last hourglass's maps of images (B, 3, h, w).

        Returns:
            heat, tags, orpm, fields and offsets; see `HourglassNet.forward`.
        """
        found, offsets = self.net(batch.float(), self.stacks)
        maps = found[-1]
        return maps["heat"], maps["tags"], maps["orpm"], maps["fields"], offsets

    def decode(self, raw: list[tuple], frame: Frame) -> People:
        """Return the people of one frame; with root and joints if it has a camera."""
        size = (frame.image.shape[1], frame.image.shape[0])
        parts, bones = [], []
        for maps, scale in zip(raw, self.config.scales):
            inputs = input_size(size, scale)
            found = self._found(maps, torch.tensor(inputs))
            factor = (torch.tensor(size) / torch.tensor(inputs)).to(found["points"])
            found["points"] = found["points"] * factor
            found["cov"] = found["cov"] * (factor[:, None] * factor)
            parts.append(self._people(found, size))
            bones.append(found["bones"].double().cpu())
        people = concatenated(parts)
        keep = oks.suppress(people.keypoints, oks.area(people.boxes), people.scores,
                            self.score_threshold)[:self.max_people]
        people = people[keep]
        if frame.camera is None or not len(people):
            return people
        return bodies.with_joints(people, torch.cat(bones)[keep], frame.camera,
                                  float(self.net.model_std))

    def _found(self, maps: tuple[Tensor, ...], size: Tensor) -> Found:
        """Find the people in the maps of one input, the picture's size (2,) px within it."""
        heat, tags, volume, fields, offsets = maps
        shift = offsets if self.net.movenet is not None else None
        keypoint, points, cov, scores = peaks.find_peaks(heat, shift, _LEAST_PEAK, _MOST_PEAKS)
        stride, picture = self.net.config.stride, torch.zeros_like(keypoint)
        kinds, values = keypoint.cpu().numpy(), scores.cpu().numpy()
        if self.GROUPING == "tags":
            read = sampled(tags.flatten(0, 1)[None], picture[:1], points[None], stride)[0] \
                if len(points) else points.new_zeros(0, K * tags.shape[1])
            own = read.unflatten(1, (K, -1))[torch.arange(len(keypoint)), keypoint]
            rows = group_by_tags(kinds, values, own.cpu().numpy())
        else:
            rows = group_by_fields(kinds, values, points, fields, stride)
        rows = rows[(rows >= 0).sum(1) >= _LEAST_KEYPOINTS]
        index = torch.from_numpy(rows).to(heat.device)
        found = {"found": index >= 0}
        index = index.clamp(min=0)
        if not len(index):
            points, cov, scores = (value.new_zeros(1, *value.shape[1:]) for value in
                                   (points, cov, scores))
        found |= {"points": points[index], "cov": cov[index], "scores": scores[index]
                  * found["found"]}
        found["bones"] = self._bones(volume, found, size.to(heat.device))
        return bodies.completed(found, heat, shift)

    def _bones(self, volume: Tensor, found: Found, size: Tensor) -> Tensor:
        """Read the 3D joints (P, 24, 3) m, relative to their parents, of people of one input."""
        stride, points = self.net.config.stride, found["points"]
        known = torch.where(found["found"][..., None], points, torch.nan)
        valid = orpm.is_valid(known, found["scores"], size, _LEAST_READ, stride)
        image = torch.zeros(len(points), dtype=torch.long, device=points.device)
        values = sampled(volume.flatten(0, 1)[None], image, points, stride)
        return orpm.read_bones(values.unflatten(2, (J, 3)), valid, self.net.mean_bones, self.naive)

    def _people(self, found: Found, size: tuple[int, int]) -> People:
        """Return people of one input, without bodies; found is in px of the picture."""
        points, scores = found["points"][:, :_KEYPOINTS], found["scores"][:, :_KEYPOINTS]
        boxes = bodies.boxes_around(points, scores, size)
        lengths = self.net.lengths(boxes)[:, None]
        floor = (self.net.floor[:, None] * lengths.square()).diag_embed()
        cov = self.net.votes[:, None, None] * found["cov"][:, :_KEYPOINTS] + floor
        cov = cov + 0.01 * torch.eye(2).to(cov)
        values = (boxes, bodies.person_scores(scores, found["found"]), points, cov, scores)
        people = People(*(value.double().cpu().numpy() for value in values))
        # Of two detections of a person, the sharper one is better.
        expected = oks.expected(people.keypoint_cov, people.keypoint_scores,
                                oks.area(people.boxes))
        return people.with_fields(scores=people.scores * expected)


class HourglassFields(HourglassTags):
    """The same layers, keypoints grouped by part affinity fields."""

    GROUPING = "fields"

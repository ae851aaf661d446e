"""Load a Deformable DETR trained on COCO, as published on Hugging Face, to start a training from.

Published are SenseTime/deformable-detr (Zhu et al. 2021) and the same with -with-box-refine and
-with-box-refine-two-stage; Apache-2.0. Their ResNet has the names of torchvision's layers.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ros2_pose.networks.checkpoint import CheckpointError
from ros2_pose.networks.tian.network import TianNet

_PERSON = "person"
_ANYTHING = 0  # the class of the encoder's proposals

# Sizes that must be equal, by their names in TianConfig and in transformers.
_SIZES = {"width": "d_model", "encoder_layers": "encoder_layers",
          "decoder_layers": "decoder_layers", "heads": "encoder_attention_heads",
          "points": "encoder_n_points", "ffn": "encoder_ffn_dim", "levels": "num_feature_levels",
          "two_stage": "two_stage", "box_refine": "with_box_refine"}

_RESNET = r"(backbone\.(?:conv_encoder\.)?model\.)"
_NAMES = {_RESNET + r"conv1\.": r"\1embedder.embedder.convolution.",
          _RESNET + r"bn1\.": r"\1embedder.embedder.normalization."} \
    | {_RESNET + rf"layer{n + 1}\.": rf"\1encoder.stages.{n}.layers." for n in range(4)} \
    | {rf"(stages\.\d+\.layers\.\d+\.)conv{n + 1}\.": rf"\1layer.{n}.convolution."
       for n in range(3)} \
    | {rf"(stages\.\d+\.layers\.\d+\.)bn{n + 1}\.": rf"\1layer.{n}.normalization."
       for n in range(3)} \
    | {r"downsample\.0\.": "shortcut.convolution.", r"downsample\.1\.": "shortcut.normalization."}


def load_coco(net: TianNet, source: str | Path) -> None:
    """Load backbone, encoder, decoder and heads of a detector, of its classes only people.

    Args:
        net: network to load into.
        source: a name on Hugging Face, or a folder with its config.json and model.safetensors.
    Raises:
        CheckpointError: the detector cannot be read, has other sizes or no class of people.
    """
    from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetBackbone
    theirs = _read(DeformableDetrConfig, source)
    _check_sizes(net, theirs, source)
    config = copy.deepcopy(net.detr.config)
    config.num_labels = theirs.num_labels
    detr, found = _read(DeformableDetrForObjectDetection, source, config=config, key_mapping=_NAMES,
                        output_loading_info=True, ignore_mismatched_sizes=True)
    wrong = [f"{name} is {tuple(there)}, expected {tuple(here)}"
             for name, there, here in sorted(found["mismatched_keys"])]
    wrong += [f"{name} is missing" for name in sorted(found["missing_keys"])]
    if wrong:
        raise CheckpointError(f"{source} is of another network: {wrong[0]}, and {len(wrong) - 1} "
                              f"more; the backbone here is {net.config.backbone}")
    person = list(theirs.id2label.values()).index(_PERSON)
    resnet = next(name for name, part in net.detr.named_modules()
                  if isinstance(part, ResNetBackbone))
    net.detr.load_state_dict({
        name.replace("model.backbone.model", resnet): _for_people(name, value, person,
                                                                  config.decoder_layers)
        for name, value in detr.state_dict().items()})


def _read(kind: Any, source: str | Path, **options):
    try:
        return kind.from_pretrained(source, **options)
    except Exception as error:
        raise CheckpointError(
            f"cannot read the detector {source} ({str(error).splitlines()[0]}): without a network, "
            "`hf download NAME --local-dir FOLDER` on another machine, and give the folder"
        ) from error


def _check_sizes(net: TianNet, theirs, source: str | Path) -> None:
    wrong = [f"{name} is {getattr(theirs, there)}, expected {getattr(net.config, name)}"
             for name, there in _SIZES.items()
             if getattr(theirs, there) != getattr(net.config, name)]
    if not net.config.two_stage and theirs.num_queries != net.config.queries:
        wrong.append(f"queries is {theirs.num_queries}, expected {net.config.queries}")
    if wrong:
        raise CheckpointError(f"{source} is of another size: {'; '.join(wrong)}")
    if _PERSON not in theirs.id2label.values():
        raise CheckpointError(f"{source} has no class {_PERSON!r} among its {theirs.num_labels}")


def _for_people(name: str, value: Tensor, person: int, layers: int) -> Tensor:
    """Return a weight; of a classification head, the row of people alone."""
    head = re.search(r"class_embed\.(\d+)\.", name)
    if head is None:
        return value
    row = _ANYTHING if int(head[1]) == layers else person
    return value[row:row + 1]

"""What ResNets trained on ImageNet expect, and the layers that their names stand for."""

from __future__ import annotations

# Mean and standard deviation of the pixels that they were trained with, RGB, 0..255.
IMAGENET_PIXELS = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
# Layer type and depths of the stages, as `transformers` names them.
RESNETS = {"resnet18": ("basic", [2, 2, 2, 2]),
           "resnet50": ("bottleneck", [3, 4, 6, 3]),
           "resnet152": ("bottleneck", [3, 8, 36, 3])}
# Channels of the stages, at strides 4, 8, 16 and 32.
STAGE_CHANNELS = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}

"""Detectors trained on COCO: the network detects people as they do; what does not fit is named."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from safetensors.torch import load_file, save_file
from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection, ResNetConfig

from ros2_pose.networks.checkpoint import CheckpointError
from ros2_pose.networks.tian.coco_detr import load_coco
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.training.trainer import start

_TINY = dict(width=32, encoder_layers=1, decoder_layers=2, heads=4, points=2, ffn=48, queries=7,
             roi_width=16, roi_layers=0, cells=8)
_CLASSES = {0: "N/A", 1: "person", 2: "bicycle"}


def tiny(**changes):
    return TianConfig(**{"backbone": "resnet18", "levels": 4, **_TINY, **changes})


def publish(folder, layer_type="basic", depths=(2, 2, 2, 2), sizes=(64, 128, 256, 512), **changes):
    """A detector with weights by chance, saved in a folder."""
    backbone = ResNetConfig(layer_type=layer_type, depths=list(depths), hidden_sizes=list(sizes),
                            out_features=["stage2", "stage3", "stage4"])
    settings = dict(id2label=_CLASSES, d_model=32, encoder_layers=1, decoder_layers=2,
                    encoder_ffn_dim=48, decoder_ffn_dim=48, encoder_attention_heads=4,
                    decoder_attention_heads=4, encoder_n_points=2, num_feature_levels=4,
                    num_queries=7, two_stage_num_proposals=7, with_box_refine=True, two_stage=True)
    torch.manual_seed(1)
    detr = DeformableDetrForObjectDetection(DeformableDetrConfig(
        backbone_config=backbone, **settings | changes)).eval()
    for name, weight in detr.named_parameters():
        if "_embed" in name:
            nn.init.normal_(weight, std=0.3)
    detr.save_pretrained(folder)
    return detr


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return folder, publish(folder)


@pytest.mark.parametrize("refine, two_stage", [(False, False), (True, False), (True, True)])
@torch.no_grad()
def test_people_are_detected_as_the_published_detector_does(tmp_path, refine, two_stage):
    theirs = publish(tmp_path, with_box_refine=refine, two_stage=two_stage)
    if refine and not two_stage:  # as published: `transformers` would save one head for all layers
        weights = load_file(tmp_path / "model.safetensors")
        for number in range(2):
            head = theirs.class_embed[number] = nn.Linear(32, 3)
            weights |= {f"class_embed.{number}.weight": head.weight.detach(),
                        f"class_embed.{number}.bias": head.bias.detach()}
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    net = start(TianNet(tiny(two_stage=two_stage, box_refine=refine)), None, str(tmp_path)).eval()
    images = 255 * torch.rand(2, 3, 64, 96)
    found = net.detect(images)
    expected = theirs((images - net.mean) / net.std)
    logits, boxes = found.layers[-1]
    assert torch.allclose(logits, expected.logits[..., 1], atol=1e-3)
    assert torch.allclose(boxes, expected.pred_boxes, atol=1e-3)
    if two_stage:  # proposals are of the first class, whatever they are of
        assert torch.allclose(found.proposals[0], expected.enc_outputs_class[..., 0], atol=1e-3)


class Bottleneck(nn.Module):
    """He et al. 2016 with torchvision's names, which are those of published weights."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(n) for n in (width, width, 4 * width))
        self.downsample = None
        if inputs != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride, bias=False),
                                            nn.BatchNorm2d(4 * width))

    def forward(self, x):
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn3(self.conv3(self.bn2(self.conv2(out)).relu()))
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for number, blocks in enumerate((3, 4, 6, 3), 1):
            width, stride = 32 * 2**number, 1 if number == 1 else 2
            parts = [Bottleneck(4 * width if i else inputs, width, 1 if i else stride)
                     for i in range(blocks)]
            setattr(self, f"layer{number}", nn.Sequential(*parts))
            inputs = 4 * width

    def forward(self, x):
        x = self.layer1(F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1))
        levels = [self.layer2(x)]
        return levels + [self.layer3(levels[0]), self.layer4(self.layer3(levels[0]))]


@torch.no_grad()
def test_a_backbone_with_torchvisions_names_gives_its_features(tmp_path):
    publish(tmp_path, "bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048))
    theirs = ResNet50().eval()
    for name, value in theirs.named_buffers():
        value.copy_(torch.rand_like(value.float()) + 0.5)
    path = tmp_path / "model.safetensors"
    weights = {name: value for name, value in load_file(path).items() if "backbone" not in name}
    weights |= {f"model.backbone.conv_encoder.model.{name}": value
                for name, value in theirs.state_dict().items()}
    save_file(weights, path, {"format": "pt"})
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"backbone_config": None, "backbone": "resnet50", "use_timm_backbone": True}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    net = TianNet(tiny(backbone="resnet50")).eval()
    load_coco(net, tmp_path)
    images = torch.randn(1, 3, 64, 64)
    found = net.detr.model.backbone(images, torch.ones(1, 64, 64))
    for (ours, _), expected in zip(found, theirs(images), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("changes, message", [
    (dict(width=64), "width is 32, expected 64"),
    (dict(decoder_layers=3, ffn=64), "decoder_layers is 2, expected 3; ffn is 48, expected 64"),
    (dict(two_stage=False), "two_stage is True, expected False"),
    (dict(backbone="resnet50"), r"\.weight is \(\d.*\), expected \(\d.*backbone here is resnet50"),
    (dict(backbone="efficientnet_lite0"), "expected .*backbone here is efficientnet_lite0")])
def test_what_does_not_fit_is_named(published, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load_coco(TianNet(tiny(**changes)), published[0])


def test_the_number_of_queries_matters_only_where_each_was_learned(published, tmp_path):
    load_coco(TianNet(tiny(queries=5)), published[0])
    publish(tmp_path, with_box_refine=False, two_stage=False)
    with pytest.raises(CheckpointError, match="queries is 7, expected 5"):
        load_coco(TianNet(tiny(queries=5, two_stage=False, box_refine=False)), tmp_path)


def test_a_detector_of_cats_is_refused(tmp_path):
    publish(tmp_path, id2label={0: "cat", 1: "dog"})
    with pytest.raises(CheckpointError, match="no class 'person' among its 2"):
        load_coco(TianNet(tiny()), tmp_path)


def test_without_a_network_the_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for source in ("SenseTime/deformable-detr", str(tmp_path / "nothing")):
        with pytest.raises(CheckpointError, match="(?s)cannot read.*hf download.*the folder"):
            load_coco(TianNet(tiny()), source)


def test_a_file_cut_short_is_named(published, tmp_path):
    for name in ("config.json", "model.safetensors"):
        content = (published[0] / name).read_bytes()
        (tmp_path / name).write_bytes(content if name == "config.json" else content[:1000])
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_coco(TianNet(tiny()), tmp_path)

"""MoveNet in torch: the LiteRT interpreter as the oracle, decoding, batches, refusals."""

import numpy as np
import pytest
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.networks import onnx_engine
from ros2_pose.networks.graph import GraphError
from ros2_pose.networks.movenet import _HEADS, MoveNet
from ros2_pose.networks.tflite import load_tflite
from ros2_pose.people import Frame
from ros2_pose.weights import fetch


def _config(**settings) -> PoseConfig:
    """Settings under which weak detections are returned, too."""
    return PoseConfig(score_threshold=0.1, **settings)


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def movenet(request):
    if request.param == "onnxruntime" and not onnx_engine.available():
        pytest.skip("onnxruntime is not installed")
    return MoveNet(_config(engine=request.param))


def _interpret(path, picture: np.ndarray):
    """Every tensor of the file by name, as LiteRT computes it for a uint8 picture (h, w, 3)."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(path), experimental_preserve_all_tensors=True)
    interpreter.resize_tensor_input(0, (1, *picture.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, picture[None])
    interpreter.invoke()
    tensors = {}
    for detail in interpreter.get_tensor_details():
        if detail["name"].split(";")[0] in _HEADS and len(detail["shape_signature"]) == 4:
            tensors[detail["name"].split(";")[0]] = interpreter.get_tensor(detail["index"])
    return tensors, interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def test_heads_agree_with_litert_on_real_pictures(movenet, clip):
    for picture in clip[:2]:
        for scaled in movenet.prepare(picture):
            expected, _ = _interpret(fetch("movenet_multipose.tflite"),
                                     scaled.permute(1, 2, 0).numpy())
            with torch.inference_mode():
                heads = movenet(scaled[None])
            for name, head in zip(_HEADS, heads):
                ours, theirs = head.permute(0, 2, 3, 1).numpy(), expected[name]
                assert ours.shape == theirs.shape
                assert np.abs(ours - theirs).max() <= 1e-3 * np.abs(theirs).max(), name


def test_decodes_what_the_original_decodes(clip):
    """At one scale, the original's best people are found with the same keypoints."""
    network = MoveNet(_config(scales=(512,)))
    scaled = network.prepare(clip[0])[0].permute(1, 2, 0).numpy()
    _, people = _interpret(fetch("movenet_multipose.tflite"), scaled)
    ours = network.detect([Frame(clip[0])])[0]
    best = people[people[:, 55] > 0.35]
    assert len(best) >= 2
    ratio = np.array(clip[0].shape[1::-1]) / (290, 512)  # what 544 x 960 was scaled to
    for person in best:
        points = person[:51].reshape(17, 3)
        expected = points[:, 1::-1] * scaled.shape[1::-1] * ratio
        nearest = np.abs(ours.keypoints - expected)[:, points[:, 2] > 0.2].max((1, 2))
        assert nearest.min() < 0.1


def test_alone_and_in_a_batch_are_the_same(movenet, clip):
    wide = clip[3][:400]
    alone = movenet.detect([Frame(clip[0])])[0]
    together = movenet.detect([Frame(picture) for picture in (wide, clip[0], clip[5])])[1]
    assert len(alone) == len(together) >= 2
    assert np.allclose(alone.keypoints, together.keypoints, atol=1e-3)
    assert np.allclose(alone.keypoint_cov, together.keypoint_cov, rtol=1e-3)


def test_mirrored_picture_swaps_left_and_right(movenet, clip):
    from ros2_pose.skeleton import COCO17
    people = movenet.detect([Frame(clip[0])])[0][:2]
    mirrored = movenet.detect([Frame(np.ascontiguousarray(clip[0][:, ::-1]))])[0]
    for i in range(len(people)):
        clear = people.keypoint_scores[i] > 0.4
        back = mirrored.keypoints[:, COCO17.mirror] * (-1, 1) + (clip[0].shape[1], 0)
        distance = np.linalg.norm(back - people.keypoints[i], axis=-1)[:, clear]
        height = people.boxes[i, 3] - people.boxes[i, 1]
        assert np.median(distance, axis=1).min() < 0.04 * height


def test_covariances_are_positive_and_grow_with_the_picture(movenet, clip):
    people = movenet.detect([Frame(clip[0])])[0]
    assert (np.linalg.eigvalsh(people.keypoint_cov) > 0).all()
    twice = movenet.detect([Frame(clip[0].repeat(2, 0).repeat(2, 1))])[0]
    ratio = np.median(np.linalg.det(twice.keypoint_cov[0]) / np.linalg.det(people.keypoint_cov[0]))
    assert ratio == pytest.approx(16, rel=0.2)


def test_more_than_six_people_are_found(movenet, clip):
    crowd = np.concatenate([np.concatenate([clip[0], clip[3], clip[6]], axis=1)] * 2)[::2, ::2]
    assert len(MoveNet(_config(scales=(512, 768))).detect([Frame(crowd)])[0]) > 6


def test_nothing_to_see_is_nobody(movenet):
    grey = np.full((120, 160, 3), 128, np.uint8)
    assert len(movenet.detect([Frame(grey)])[0]) == 0


def test_is_exportable(movenet, clip):
    scaled = movenet.prepare(clip[0])[0][None].float()
    module = movenet.heads.module
    program = torch.export.export(module, (scaled,))
    with torch.inference_mode():
        for exported, eager in zip(program.module()(scaled), module(scaled)):
            assert torch.allclose(exported, eager, atol=1e-4)


def test_an_unknown_tensor_is_named():
    with pytest.raises(GraphError, match="no tensor is named 'tail'"):
        load_tflite(fetch("movenet_multipose.tflite"), ["tail"])

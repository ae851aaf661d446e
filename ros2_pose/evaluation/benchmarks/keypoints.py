"""OKS average precision of a 2D network, by COCO's definition and COCO's own code.

Annotations are a COCO keypoints file (`person_keypoints_*.json`). A picture whose people are not
all labelled should not be in it: what is found there counts as false.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.networks import movenet
from ros2_pose.networks.base import input_size
from ros2_pose.networks.registry import create_network
from ros2_pose.people import Frame, People
from ros2_pose.weights import fetch

_LOWEST = 0.02  # average precision wants the weak detections too


class EvaluationError(PoseError):
    """Data that cannot be evaluated; the message names file and reason."""


@dataclass(frozen=True)
class KeypointScores:
    """ap, ap50, ap75, ar: COCO's AP and AR; people found above the threshold in empty pictures."""

    ap: float
    ap50: float
    ap75: float
    ar: float
    pictures: int
    empty_pictures: int
    false_people: int


def evaluate(detect, annotations: Path, images: Path, threshold: float) -> KeypointScores:
    """Score a detector.

    detect: one picture (H, W, 3) uint8 RGB to `People`, also those scored low. threshold: score
    above which a person in a picture without people is counted as false.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError as error:
        raise EvaluationError("evaluation needs COCO's code: pip install pycocotools") from error
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
    found, false_people, empty = [], 0, 0
    for image_id, info in tqdm(truth.imgs.items(), "evaluating", unit="picture"):
        people = detect(read_image(images / info["file_name"]))
        found += _as_coco(image_id, people)
        if not truth.getAnnIds(imgIds=image_id):
            empty += 1
            false_people += int((people.scores >= threshold).sum())
    stats = _average_precision(truth, found)
    return KeypointScores(stats[0], stats[1], stats[2], stats[5], len(truth.imgs), empty,
                          false_people)


def read_image(path: Path) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB; a missing and an unreadable file are different errors."""
    if not path.exists():
        raise EvaluationError(f"{path} does not exist")
    image = cv2.imread(str(path))
    if image is None:
        raise EvaluationError(f"{path} is not a picture that OpenCV can read")
    return image[:, :, ::-1]


def _as_coco(image_id: int, people: People) -> list[dict]:
    """COCO results: keypoints as x, y, score with the first pixel's centre at 0."""
    return [{"image_id": image_id, "category_id": 1, "score": float(score),
             "keypoints": np.c_[points - 0.5, scores].ravel().tolist()}
            for points, scores, score in zip(people.keypoints, people.keypoint_scores,
                                             people.scores)]


def _average_precision(truth, found: list[dict]) -> np.ndarray:
    from pycocotools.cocoeval import COCOeval
    if not found:
        return np.zeros(10)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(found), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def network_detector(config: PoseConfig):
    """A function from a picture to `People`, weak ones included, by the configured network."""
    network = create_network(config)
    network.configure(_LOWEST, network.max_people)
    return lambda image: network.detect([Frame(image)])[0]


def reference_detector(config: PoseConfig):
    """The same by MoveNet's original file in LiteRT: six people a scale, its own decoding.

    The scales are merged as the torch network merges its own, by score.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise EvaluationError("the reference needs LiteRT: pip install ai-edge-litert") from error
    interpreter = Interpreter(str(fetch("movenet_multipose.tflite")), num_threads=2)
    inputs = movenet.MoveNet(replace(config, engine="torch"))

    def detect(image: np.ndarray) -> People:
        found = [_interpret(interpreter, tensor.permute(1, 2, 0).numpy(), scale, image.shape[1::-1])
                 for tensor, scale in zip(inputs.prepare(image), config.scales)]
        keypoints, scores, boxes, keypoint_scores = map(np.concatenate, zip(*found))
        keep = oks.suppress(keypoints, oks.area(boxes), scores, _LOWEST)
        unknown = np.full((len(keep), 17, 2, 2), np.nan)
        return People(boxes[keep], scores[keep], keypoints[keep], unknown, keypoint_scores[keep])
    return detect


def _interpret(interpreter, picture: np.ndarray, scale: int, size: tuple[int, int]):
    """Keypoints (6, 17, 2), scores, boxes, keypoint scores, in px of the picture of `size`."""
    interpreter.resize_tensor_input(0, (1, *picture.shape))
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, picture[None])
    interpreter.invoke()
    people = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
    # Fractions of the padded input, y before x.
    to_px = np.array(picture.shape[1::-1]) * size / input_size(size, scale)
    points = people[:, :51].reshape(-1, 17, 3).astype(float)
    boxes = people[:, [52, 51, 54, 53]].astype(float) * np.tile(to_px, 2)
    return points[..., 1::-1] * to_px, people[:, 55].astype(float), boxes, points[..., 2]


def table(rows: dict[str, KeypointScores], threshold: float) -> str:
    """The scores as a Markdown table with the protocol above it."""
    first = next(iter(rows.values()))
    lines = [f"OKS (COCO's code), {first.pictures} pictures, detections from the network, no flip",
             "", f"| network | AP | AP50 | AP75 | AR | people above {threshold:g} in "
             f"{first.empty_pictures} empty pictures |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {s.ap:.3f} | {s.ap50:.3f} | {s.ap75:.3f} | {s.ar:.3f} | "
              f"{s.false_people} |" for name, s in rows.items()]
    return "\n".join(lines)

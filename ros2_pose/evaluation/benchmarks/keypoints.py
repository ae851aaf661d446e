"""OKS average precision of a 2D network, by COCO's definition and COCO's own code.

    python -m ros2_pose.evaluation.benchmarks.keypoints ANNOTATIONS.json PICTURES

Annotations are a COCO keypoints file (`person_keypoints_*.json`). Leave out pictures in which not
all people are labelled: a detection of an unlabelled person counts as false.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.harness import Benchmark, Curve, EvaluationError, Options, Row
from ros2_pose.evaluation.plots import PRECISION_RECALL
from ros2_pose.metrics.detection_ap import WEAKEST
from ros2_pose.networks import movenet
from ros2_pose.networks.base import input_size
from ros2_pose.networks.registry import create_network, network_title
from ros2_pose.people import Frame, People
from ros2_pose.weights import fetch

_DRAWN_LIMITS = {0.5: 0, 0.75: 5}  # least OKS: index among COCO's ten


def evaluate(name: str, detect: Callable[[np.ndarray], People], annotations: Path, images: Path,
             threshold: float) -> tuple[Row, list[Curve]]:
    """Score a detector by COCO's keypoint metrics.

    Args:
        name: title of the row.
        detect: from a picture (H, W, 3) uint8 RGB to `People`, low scores included.
        annotations, images: COCO keypoints file, and the folder of its pictures.
        threshold: score above which a person in a picture without people counts as false.

    Raises: EvaluationError without pycocotools, or if a picture cannot be read.
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
    stats, precision = _average_precision(truth, found)
    row = Row(name, f"OKS (COCO's code), {len(truth.imgs)} pictures, detections from the network, "
              "no flip",
              {"AP": stats[0], "AP50": stats[1], "AP75": stats[2], "AR": stats[5],
               f"people above {threshold:g} in {empty} empty pictures": false_people})
    recall = np.linspace(0, 1, len(precision)).tolist()
    return row, [Curve(PRECISION_RECALL, f"{name}, OKS {oks_limit:g}", recall,
                       precision[:, column].tolist())
                 for oks_limit, column in _DRAWN_LIMITS.items()]


def read_image(path: Path) -> np.ndarray:
    """Read a picture (H, W, 3) uint8 RGB.

    Raises EvaluationError if the file is missing or is not a picture.
    """
    if not path.exists():
        raise EvaluationError(f"{path} does not exist")
    image = cv2.imread(str(path))
    if image is None:
        raise EvaluationError(f"{path} is not a picture that OpenCV can read")
    return image[:, :, ::-1]


def _as_coco(image_id: int, people: People) -> list[dict]:
    """COCO results: keypoints as x, y, score, px, with the centre of the first pixel at 0."""
    return [{"image_id": image_id, "category_id": 1, "score": float(score),
             "keypoints": np.c_[points - 0.5, scores].ravel().tolist()}
            for points, scores, score in zip(people.keypoints, people.keypoint_scores,
                                             people.scores)]


def _average_precision(truth, found: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """COCO's ten summary figures, and precision (101, 10) by recall and least OKS."""
    from pycocotools.cocoeval import COCOeval
    if not found:
        return np.zeros(10), np.zeros((101, 10))
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(found), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # Axes: OKS limit, recall, category, area (the first is all), detections per picture.
    return evaluation.stats, evaluation.eval["precision"][:, :, 0, 0, -1].T


def network_detector(config: PoseConfig) -> Callable[[np.ndarray], People]:
    """A function from a picture (H, W, 3) uint8 RGB to `People`, with the configured network."""
    network = create_network(config)
    network.configure(WEAKEST, network.max_people)
    return lambda image: network.detect([Frame(image)])[0]


def reference_detector(config: PoseConfig) -> Callable[[np.ndarray], People]:
    """The same as `network_detector` with MoveNet's original file in LiteRT.

    At each scale it decodes up to six people itself; scales are merged by score with OKS-NMS, as
    the torch network does.
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
        keep = oks.suppress(keypoints, oks.area(boxes), scores, WEAKEST)
        unknown = np.full((len(keep), 17, 2, 2), np.nan)
        return People(boxes[keep], scores[keep], keypoints[keep], unknown, keypoint_scores[keep])
    return detect


def _interpret(interpreter, picture: np.ndarray, scale: int, size: tuple[int, int]):
    """Keypoints (6, 17, 2) px, scores (6,), boxes (6, 4) px, keypoint scores (6, 17)."""
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


def keypoints(options: Options) -> Iterator[Row | Curve]:
    """Score the default network."""
    assert options.annotations is not None and options.images is not None
    config = PoseConfig()
    row, curves = evaluate(network_title(config), network_detector(config), options.annotations,
                           options.images, config.score_threshold)
    yield row
    yield from curves


BENCHMARKS = {"keypoints": Benchmark(keypoints, ("--annotations", "--images"),
                                     ("annotations", "images"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__, positional=("annotations", "images"))

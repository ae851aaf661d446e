"""OKS average precision of a 2D network, by COCO's definition and COCO's own code.

Annotations are a COCO keypoints file (`person_keypoints_*.json`). A picture whose people are not
all labelled should not be in it: what is found there counts as false.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose.people import People


class EvaluationError(RuntimeError):
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

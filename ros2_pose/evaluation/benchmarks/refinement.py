"""How sure a reported person is a person, and how often the refiner leaves the one proposed.

    python -m ros2_pose.evaluation.benchmarks.refinement ANNOTATIONS.json PICTURES

Annotations are a COCO keypoints file in which all people of each picture are labelled.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.boxes import overlaps, shares_within
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks.keypoints import read_image
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.metrics.detection_ap import WEAKEST
from ros2_pose.networks.registry import network_title
from ros2_pose.networks.top_down import TopDown
from ros2_pose.people import Frame, People

_A_PERSON = 0.3  # overlap with a label from which a box is taken to be of a person
_FITS = 0.5  # OKS from which keypoints are taken to be those of a label
_LEAST_LABELLED = 4  # keypoints of a label that can be compared by OKS
_LEAST_SCORE = 0.1  # of the refined people that are compared


def refinement(options: Options) -> Iterator[Row]:
    """Precision of the people reported, and jumps onto a neighbour, with the default networks."""
    assert options.annotations is not None and options.images is not None
    config = PoseConfig()
    network = TopDown(config)
    network.configure(WEAKEST, network.max_people)
    labels = json.loads(options.annotations.read_text())
    of_picture = defaultdict(list)
    for label in labels["annotations"]:
        of_picture[label["image_id"]].append(label)
    reported, real, compared, jumps = 0, 0, 0, 0
    for info in tqdm(labels["images"], "refinement", unit="picture"):
        frame = Frame(read_image(Path(options.images) / info["file_name"]))
        proposals = network.propose([frame])[0]
        refined = network.refine(frame, proposals)
        truth = of_picture[info["id"]]
        keep = oks.suppress(refined.keypoints, oks.area(refined.boxes), refined.scores,
                            config.score_threshold)
        reported += len(keep)
        real += int(is_labelled(refined.boxes[keep], truth).sum())
        more = jumped(proposals.people, refined, truth)
        compared += len(more)
        jumps += int(more.sum())
    name = network_title(config)
    yield Row(name, f"{len(labels['images'])} pictures; people reported at "
              f"{config.score_threshold:g}, of them people: their box overlaps a label by "
              f"{_A_PERSON:g}; proposals that fit one of several labels, of them refined "
              "onto another",
              {"reported": str(reported), "people": str(real),
               "people, %": 100 * real / max(reported, 1), "compared": str(compared),
               "jumped": str(jumps)})


def is_labelled(boxes: np.ndarray, labels: list[dict]) -> np.ndarray:
    """Whether each box (N, 4) px is of a labelled person, or lies in a crowd's region, (N,)."""
    if not labels or not len(boxes):
        return np.zeros(len(boxes), bool)
    theirs = label_boxes(labels)
    is_crowd = np.array([bool(label.get("iscrowd")) for label in labels])
    fits = np.where(is_crowd, shares_within(boxes, theirs) >= 0.5,
                    overlaps(boxes, theirs) >= _A_PERSON)
    return np.asarray(fits.any(1))


def jumped(proposed: People, refined: People, labels: list[dict]) -> np.ndarray:
    """Whether refined people are another than the one proposed.

    Args:
        proposed (P,): before, with keypoints or NaN; refined (P,): after, row by row.
        labels: COCO's, of the picture.

    Returns:
        (C,) bool, of the people with a proposal that fits a label; empty with a single label.
    """
    labels = [label for label in labels if not label.get("iscrowd")
              and np.count_nonzero(label["keypoints"][2::3]) >= _LEAST_LABELLED]
    if len(labels) < 2 or not len(refined) or len(proposed) != len(refined):
        return np.zeros(0, bool)
    keypoints = np.array([label["keypoints"] for label in labels], float).reshape(-1, 17, 3)
    points = np.where(keypoints[..., 2:] > 0, keypoints[..., :2] + 0.5, np.nan)  # edges at 0
    areas = np.array([label["area"] for label in labels], float)
    before = oks.similarity(proposed.keypoints[:, None], points[None], areas[None])
    is_box = np.isnan(proposed.keypoints).any((1, 2))
    before[is_box] = overlaps(proposed.boxes[is_box], label_boxes(labels))
    after = oks.similarity(refined.keypoints[:, None], points[None], areas[None])
    own, now = before.argmax(1), after.argmax(1)
    rows = np.arange(len(refined))
    counts = (before.max(1) >= _FITS) & (refined.scores >= _LEAST_SCORE)
    is_other = (now != own) & (after[rows, now] >= _FITS) & (after[rows, own] < _FITS)
    return is_other[counts]


def label_boxes(labels: list[dict]) -> np.ndarray:
    """Boxes xyxy (L, 4) px of COCO's labels."""
    boxes = np.array([label["bbox"] for label in labels], float)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


BENCHMARKS = {"refinement": Benchmark(refinement, ("--annotations", "--images"),
                                      ("annotations", "images"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__, positional=("annotations", "images"))

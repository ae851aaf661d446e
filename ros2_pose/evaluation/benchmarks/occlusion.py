"""Top-down, bottom-up and both together, on all people and on the most occluded third of them.

    python -m ros2_pose.evaluation.benchmarks.occlusion ANNOTATIONS.json PICTURES

Annotations are a COCO keypoints file in which all people of each picture are labelled. A person's
occlusion is the share of the labelled keypoints that are marked as hidden, plus the greatest
overlap of the box with another person's.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ros2_pose.boxes import overlaps
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks.keypoints import evaluate, network_detector
from ros2_pose.evaluation.benchmarks.refinement import label_boxes
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.people import People

_NETWORKS = {"top-down": "top_down", "bottom-up": "movenet", "both": "top_down_bottom_up"}
_HIDDEN = 1  # a keypoint's visibility in COCO's files


def occlusion(options: Options) -> Iterator[Row]:
    """OKS AP of the three, people of the most occluded third alone counting in the last column."""
    assert options.annotations is not None and options.images is not None
    labels = json.loads(options.annotations.read_text())
    count = sum(label["num_keypoints"] > 0 for label in labels["annotations"])
    with tempfile.TemporaryDirectory() as folder:
        occluded = Path(folder) / "occluded.json"
        occluded.write_text(json.dumps(with_the_occluded(labels)))
        for title, network in _NETWORKS.items():
            config = PoseConfig(network=network)
            detect = _once(network_detector(config))
            rows = [evaluate(title, detect, file, options.images, config.score_threshold)[0]
                    for file in (options.annotations, occluded)]
            values = [dict(row.values) for row in rows]
            yield Row(title, f"{rows[0].protocol}; {count} people, the most occluded third alone "
                      "counting: the others are neither missed nor false",
                      {"AP": values[0]["AP"], "AP50": values[0]["AP50"],
                       "AP, occluded third": values[1]["AP"],
                       "AP50, occluded third": values[1]["AP50"]})


def _once(detect: Callable[[np.ndarray], People]) -> Callable[[np.ndarray], People]:
    """Keep what a detector has found in each picture: several evaluations show the same ones."""
    found: dict[bytes, People] = {}

    def detect_once(image: np.ndarray) -> People:
        key = image.tobytes()
        if key not in found:
            found[key] = detect(image)
        return found[key]
    return detect_once


def with_the_occluded(labels: dict) -> dict:
    """Return COCO's labels in which the most occluded third of the people alone count.

    Of the others the number of keypoints is 0, which COCO's code neither misses nor holds to be
    false; their keypoints stay.
    """
    of_picture = defaultdict(list)
    for label in labels["annotations"]:
        of_picture[label["image_id"]].append(label)
    degree: dict[int, float] = {}
    for people in of_picture.values():
        boxes = label_boxes(people)
        shared = overlaps(boxes, boxes) - np.eye(len(boxes))
        for person, most in zip(people, shared.max(1)):
            visibility = np.array(person["keypoints"][2::3])
            if person["num_keypoints"] > 0 and not person.get("iscrowd"):
                hidden = (visibility == _HIDDEN).sum() / max((visibility > 0).sum(), 1)
                degree[person["id"]] = hidden + max(most, 0.0)
    chosen = set(sorted(degree, key=lambda one: -degree[one])[:len(degree) // 3])
    changed = [label if label["id"] in chosen else label | {"num_keypoints": 0}
               for label in labels["annotations"]]
    return labels | {"annotations": changed}


BENCHMARKS = {"occlusion": Benchmark(occlusion, ("--annotations", "--images"),
                                     ("annotations", "images"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__, positional=("annotations", "images"))

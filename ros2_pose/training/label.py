"""Labels of people in any pictures, by the default network and the body layer: pseudo-labels.

    ros2_pose label PICTURES OUT

A person is labelled whom the network reports at the same place in the picture, in its reflection
and in a smaller copy; a joint, where the three agree. Weaker people become regions that training
ignores. A network trained on such labels learns what these pictures look like from a slower one
(distillation): see docs/distil.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.data.labelled import LABELS
from ros2_pose.errors import PoseError
from ros2_pose.imaging.resize import resized
from ros2_pose.networks.registry import network_title
from ros2_pose.offline.sources import RecordedFrame
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline, PipelineError
from ros2_pose.skeleton import COCO17

log = logging.getLogger(__name__)

PICTURES = "pictures"  # in the folder of the labels
ASSUMED_FOV_DEG = 60.0  # of a camera without calibration
_SMALLER = 0.75  # size of the smaller copy
_SAME = 0.6  # OKS from which two versions agree on a person
_GATE = 9.21  # squared Mahalanobis distance of two versions of a joint, 99 % of true ones
_LEAST_SCORE = 0.2  # of a labelled joint
_LEAST_JOINTS = 5  # of a labelled person
_SAVED_EVERY = 50  # pictures
_BLOCK, _BLOCKS = 5, 10  # of a recording, one of ten blocks of five images is for validation
_QUALITY = 92  # of JPEGs
_DIGITS = 4


class LabelError(PoseError):
    """Labels that cannot be continued or written; the message says why."""


class Labeller:
    """Finds the people of single images whom training can learn from.

    Args:
        config: settings of the pipeline; people of `score_threshold` and more are labelled.
    """

    def __init__(self, config: PoseConfig = PoseConfig()) -> None:
        config = replace(config, correct=False, fov_deg=config.fov_deg or ASSUMED_FOV_DEG)
        self.pipeline = Pipeline(config)

    def label(self, frame: Frame) -> tuple[People, np.ndarray]:
        """Label one image, whatever was seen before.

        Returns:
            People with bodies, in px and camera frame of the image; keypoint_scores are 0 where
            the label is missing. Boxes (M, 4) px of the other people that may be there.
        Raises:
            PipelineError: the image shows nothing or is not uint8 RGB.
        """
        self.pipeline.reset()
        prepared = self.pipeline.prepare(frame)
        upright = replace(prepared.upright, expected=None, search=None)
        network = self.pipeline.network
        people = network.detect([upright])[0]
        versions = [_mirrored(network.detect([_mirror(upright)])[0], upright.image.shape[1]),
                    _enlarged(network.detect([_shrunk(upright)])[0])]
        people, is_sure = agreed(people, versions)
        is_sure &= people.scores >= self.pipeline.config.score_threshold
        weak = prepared.as_taken(people[~is_sure])
        sure = people[is_sure].with_fields(proposal_scores=None, proposal_parts=None)
        labelled = self.pipeline.follow(sure, prepared._replace(upright=upright))
        return prepared.as_taken(labelled), weak.boxes


def agreed(people: People, versions: list[People]) -> tuple[People, np.ndarray]:
    """Compare people with those of other versions of the image.

    Args:
        people (P,): of the image.
        versions: people of its reflection, ..., in px of the image.

    Returns:
        People (P,) with the means of all versions and covariances that include their differences;
        keypoint_scores are 0 where they disagree. Whether all versions have the person, (P,).
    """
    if not len(people):
        return people, np.zeros(0, bool)
    is_sure = np.ones(len(people), bool)
    points, agree = [people.keypoints], np.ones(people.keypoint_scores.shape, bool)
    for other in versions:
        if not len(other):
            return people, np.zeros(len(people), bool)
        similar = oks.similarity(people.keypoints[:, None], other.keypoints[None],
                                 oks.area(people.boxes)[:, None])
        best = similar.argmax(1)
        is_sure &= similar.max(1) >= _SAME
        difference = other.keypoints[best] - people.keypoints
        cov = people.keypoint_cov + other.keypoint_cov[best]
        distance2 = (difference * np.linalg.solve(cov, difference[..., None])[..., 0]).sum(-1)
        agree &= distance2 <= _GATE
        points.append(other.keypoints[best])
    mean = np.mean(points, axis=0)
    apart = np.stack(points) - mean
    cov = people.keypoint_cov + np.einsum("vpki,vpkj->pkij", apart, apart) / (len(points) - 1)
    scores = np.where(agree, people.keypoint_scores, 0.0)
    is_sure &= (scores >= _LEAST_SCORE).sum(1) >= _LEAST_JOINTS
    return people.with_fields(keypoints=mean, keypoint_cov=cov, keypoint_scores=scores), is_sure


def _mirror(frame: Frame) -> Frame:
    return replace(frame, image=np.ascontiguousarray(frame.image[:, ::-1]), camera=None)


def _mirrored(people: People, width: int) -> People:
    """People of the reflection of an image, `width` px wide, in px of the image."""
    people = people.with_sides_changed(list(range(len(people))))
    return people.with_fields(keypoints=people.keypoints * (-1, 1) + (width, 0),
                              keypoint_cov=people.keypoint_cov * [[1, -1], [-1, 1]])


def _shrunk(frame: Frame) -> Frame:
    height, width = frame.image.shape[:2]
    size = max(round(_SMALLER * width), 1), max(round(_SMALLER * height), 1)
    return replace(frame, image=resized(frame.image, size, cv2.INTER_AREA), camera=None)


def _enlarged(people: People) -> People:
    """People of the smaller copy, in px of the image."""
    return people.with_fields(keypoints=people.keypoints / _SMALLER,
                              keypoint_cov=people.keypoint_cov / _SMALLER**2)


def write_labels(source: Iterable[RecordedFrame], name: str, labeller: Labeller, out: Path,
                 every_s: float) -> dict[str, int]:
    """Label the images of a recording and save both in a folder.

    What an interrupted run has labelled is kept: the same command goes on behind it.

    Args:
        source: pictures, a video or a bag, see `open_recording`.
        name: of the recording, with which the pictures' names begin.
        labeller: that labels them.
        out: folder for `labels.json` and `pictures/`.
        every_s: least time between two images, s; 0: all of them.

    Returns:
        Counts of images, people, ignored regions and images that could not be read.
    Raises:
        LabelError: the folder's labels cannot be continued.
        SourceError: the recording cannot be read to its end; what is labelled is kept.
    """
    table = _table(out, labeller)
    known = {image["file_name"] for image in table["images"]}
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    last_stamp, number, unreadable = None, 0, 0
    try:
        for recorded in tqdm(source, "labelling", total=getattr(source, "count", None),
                             unit="image"):
            if last_stamp is not None and 0 <= recorded.stamp - last_stamp < 1e9 * every_s:
                continue
            last_stamp = recorded.stamp
            file_name = f"{PICTURES}/{name}_{number:06d}.jpg"
            split = "val" if number // _BLOCK % _BLOCKS == _BLOCKS - 1 else "train"
            number += 1
            if file_name in known:
                continue
            try:
                if recorded.frame is None:
                    raise PipelineError(recorded.problem)
                people, ignored = labeller.label(recorded.frame)
            except PipelineError as error:
                log.warning("image %s is left out: %s", recorded.name, error)
                unreadable += 1
                continue
            _add(table, recorded.frame, people, ignored, file_name, split, labeller)
            picture = np.ascontiguousarray(recorded.frame.image[..., ::-1])
            if not cv2.imwrite(str(out / file_name), picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
                raise LabelError(f"{out / file_name} cannot be written: is the disk full?")
            if len(table["images"]) % _SAVED_EVERY == 0:
                _save(table, out)
    finally:
        _save(table, out)
    is_crowd = [annotation["iscrowd"] for annotation in table["annotations"]]
    return {"images": len(table["images"]), "people": is_crowd.count(0),
            "ignored regions": is_crowd.count(1), "unreadable": unreadable}


def _table(out: Path, labeller: Labeller) -> dict[str, Any]:
    """The labels in the folder; new ones if there are none."""
    if not (out / LABELS).exists():
        title = network_title(labeller.pipeline.config)
        return {"info": {"description": f"labels by ros2_pose: {title}, and the body layer"},
                "categories": [{"id": 1, "name": "person", "keypoints": list(COCO17.names)}],
                "images": [], "annotations": []}
    try:
        table = json.loads((out / LABELS).read_text())
        assert isinstance(table["images"], list) and isinstance(table["annotations"], list)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise LabelError(f"{out / LABELS} is not a file of labels ({error}): give another folder, "
                         "or delete it") from error
    return table


def _save(table: dict[str, Any], out: Path) -> None:
    unfinished = out / f"{LABELS}.part"
    unfinished.write_text(json.dumps(table))
    unfinished.replace(out / LABELS)


def _add(table: dict[str, Any], frame: Frame, people: People, ignored: np.ndarray, file_name: str,
         split: str, labeller: Labeller) -> None:
    """Add an image with its people and ignored regions."""
    height, width = frame.image.shape[:2]
    camera = frame.camera or Camera.from_fov(width, height, labeller.pipeline.config.fov_deg)
    image_id = len(table["images"]) + 1
    table["images"].append({
        "id": image_id, "file_name": file_name, "width": width, "height": height, "split": split,
        "camera": _rounded(np.array([camera.fx, camera.fy, camera.cx, camera.cy])),
        "camera_is_assumed": frame.camera is None})
    for row in range(len(people)):
        table["annotations"].append(_annotation(people, row))
    for box in ignored:
        table["annotations"].append({"bbox": _bbox(box), "area": _area(box), "iscrowd": 1,
                                     "num_keypoints": 0, "keypoints": [0.0] * 51})
    first = len(table["annotations"]) - len(people) - len(ignored)
    for number, annotation in enumerate(table["annotations"][first:], first + 1):
        annotation |= {"id": number, "image_id": image_id, "category_id": 1}


def _annotation(people: People, row: int) -> dict[str, Any]:
    """COCO's keys of a person, and those of `Labelled`; pixel centres at 0 as COCO has them."""
    labelled = people.keypoint_scores[row] >= _LEAST_SCORE
    points = np.where(labelled[:, None], people.keypoints[row] - 0.5, 0.0)
    cov = people.keypoint_cov[row]
    values = {"bbox": _bbox(people.boxes[row]), "area": _area(people.boxes[row]), "iscrowd": 0,
              "score": round(float(people.scores[row]), _DIGITS),
              "num_keypoints": int(labelled.sum()),
              "keypoints": _rounded(np.c_[points, 2 * labelled].ravel()),
              "keypoint_scores": _rounded(people.keypoint_scores[row]),
              "keypoints_cov": _rounded(np.stack([cov[:, 0, 0], cov[:, 0, 1], cov[:, 1, 1]], 1))}
    if people.theta is not None and np.isfinite(people.theta[row]).all():
        for name in ("theta", "betas", "root", "joints", "joint_cov"):
            value = getattr(people, name)
            values[name] = _rounded(value[row])
    return values


def _bbox(box: np.ndarray) -> list[float]:
    """COCO's x, y, width and height of a box xyxy."""
    return _rounded(np.array([*box[:2], *(box[2:] - box[:2])]))


def _area(box: np.ndarray) -> float:
    return round(float(oks.area(box)), 1)


def _rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, float), _DIGITS).tolist()

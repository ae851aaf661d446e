"""People in other packages' messages: navigation's, ROS4HRI's, vision_msgs'. No ROS here.

As in messages.py, `make` builds a message by its name.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.messages.people import (
    body_rotation,
    has_body,
    person_id,
    pose_with_covariance,
    tracking_state,
)
from ros2_pose.messages.standard import Make, point_message, pose_message, vector_message
from ros2_pose.people import LOST, TRACKED, People
from ros2_pose.skeleton import COCO17

_FLESH_M = 0.1  # around the joints
_STATES = {TRACKED: "tracked", LOST: "lost"}

# The order of hri_msgs/Skeleton2D; its neck is between the shoulders.
_HRI_KEYPOINTS = ("nose", "neck", *(f"{side}_{joint}" for side in ("right", "left")
                                    for joint in ("shoulder", "elbow", "wrist")),
                  *(f"{side}_{joint}" for side in ("right", "left")
                    for joint in ("hip", "knee", "ankle")),
                  "left_eye", "right_eye", "left_ear", "right_ear")


# Navigation -------------------------------------------------------------------------------------


def navigation_people(make: Make, header, people: People):
    """A people_msgs/People of those tracked, and of those just lost from sight where they must be.

    A velocity that is not known yet is 0, which a costmap draws as a circle: it would be lost with
    a NaN. The tag `velocity` says so. None if someone is there whose place is not known: an empty
    list would say that the room is empty.
    """
    there = [i for i in range(len(people)) if tracking_state(people, i) in _STATES]
    placed = [i for i in there if has_body(people, i)]
    if there and not placed:
        return None
    return make("people_msgs/msg/People", header=header,
                people=[_navigation_person(make, people, i) for i in placed])


def _navigation_person(make: Make, people: People, i: int):
    velocity = np.zeros(3)
    known = people.velocity is not None and bool(np.isfinite(people.velocity[i]).all())
    if known:
        velocity = people.velocity[i]
    return make("people_msgs/msg/Person", name=person_id(people, i),
                position=point_message(make, people.root[i]),
                velocity=point_message(make, velocity),
                reliability=float(np.clip(people.scores[i], 0, 1)),
                tagnames=["state", "velocity"],
                tags=[_STATES[tracking_state(people, i)], "known" if known else "unknown"])


# Detections -------------------------------------------------------------------------------------


def detections(make: Make, header, people: People):
    """A vision_msgs/Detection3DArray of those seen who have a body, each in a box turned as it is.

    The box holds the joints and a hand's breadth around them; the pose is that of the pelvis.
    """
    seen = [i for i in range(len(people))
            if has_body(people, i) and tracking_state(people, i) != LOST]
    return make("vision_msgs/msg/Detection3DArray", header=header,
                detections=[_detection(make, header, people, i) for i in seen])


def _detection(make: Make, header, people: People, i: int):
    rotation = body_rotation(people.theta[i, 0])
    inside = rotation.inv().apply(people.joints[i])
    low, high = inside.min(0) - _FLESH_M, inside.max(0) + _FLESH_M
    box = make("vision_msgs/msg/BoundingBox3D", size=vector_message(make, high - low),
               center=pose_message(make, rotation.apply((low + high) / 2), rotation.as_quat()))
    hypothesis = make("vision_msgs/msg/ObjectHypothesis", class_id="person",
                      score=float(people.scores[i]))
    result = make("vision_msgs/msg/ObjectHypothesisWithPose", hypothesis=hypothesis,
                  pose=pose_with_covariance(make, people, i))
    return make("vision_msgs/msg/Detection3D", header=header, results=[result], bbox=box,
                id=person_id(people, i))


# ROS4HRI (REP-155) ------------------------------------------------------------------------------


def tracked_bodies(make: Make, header, people: People):
    """An hri_msgs/IdsList of those tracked, and the rows they have in `people`."""
    rows = [i for i in range(len(people)) if tracking_state(people, i) == TRACKED]
    return make("hri_msgs/msg/IdsList", header=header,
                ids=[person_id(people, i) for i in rows]), rows


def hri_skeleton(make: Make, header, people: People, i: int, size: tuple[int, int]):
    """An hri_msgs/Skeleton2D of an image of (width, height) px; out of the image is unknown."""
    positions = people.keypoints[i] / size
    scores = np.where(_in_unit_square(positions), people.keypoint_scores[i], 0.0)
    by_name = {name: (point, score) for name, point, score in zip(COCO17.names, positions, scores)}
    shoulders = [by_name[f"{side}_shoulder"] for side in ("left", "right")]
    by_name["neck"] = (sum(point for point, _ in shoulders) / 2,
                       min(score for _, score in shoulders))
    return make("hri_msgs/msg/Skeleton2D", header=header,
                skeleton=[_hri_point(make, *by_name[name]) for name in _HRI_KEYPOINTS])


def _hri_point(make: Make, point: np.ndarray, score: float):
    x, y = point if score > 0 else (np.nan, np.nan)
    return make("hri_msgs/msg/NormalizedPointOfInterest2D", x=float(x), y=float(y), c=float(score))


def hri_region(make: Make, header, people: People, i: int, size: tuple[int, int]):
    """An hri_msgs/NormalizedRegionOfInterest2D: of a box, what lies in an image of that size."""
    box = np.clip(people.boxes[i].reshape(2, 2) / size, 0, 1).reshape(4).tolist()
    return make("hri_msgs/msg/NormalizedRegionOfInterest2D", header=header,
                **dict(zip(("xmin", "ymin", "xmax", "ymax"), box)), c=float(people.scores[i]))


def _in_unit_square(positions: np.ndarray) -> np.ndarray:
    """(N,) whether points (N, 2) are; NaN is not."""
    return np.all((positions >= 0) & (positions <= 1), axis=-1)

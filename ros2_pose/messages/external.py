"""People in messages of other packages: people_msgs, vision_msgs, hri_msgs. No ROS here.

`make` builds a message by its type name, see messages/standard.py.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.messages.people import (
    body_rotation,
    has_body,
    has_position,
    person_id,
    pose_with_covariance,
)
from ros2_pose.messages.standard import Make, point_message, pose_message, vector_message
from ros2_pose.people import LOST, TRACKED, People
from ros2_pose.skeleton import COCO17

_BODY_MARGIN_M = 0.1  # of the body's box around the joints
_STATES = {TRACKED: "tracked", LOST: "lost"}

# The order of hri_msgs/Skeleton2D; its neck is the middle of the shoulders.
_HRI_KEYPOINTS = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "left_eye", "right_eye", "left_ear", "right_ear")


# Navigation -------------------------------------------------------------------------------------


def navigation_people(make: Make, header, people: People):
    """Return a people_msgs/People of tracked and lost people: positions in m, velocities in m/s.

    Positions of lost people are predictions. An unknown velocity is 0, which a costmap draws as a
    circle; with NaN it would drop the person. The tag `velocity` then is "unknown".

    Returns:
        None if there are people but no position is known: an empty list would mean an empty room.
    """
    present = [i for i in range(len(people)) if people.state_of(i) in _STATES]
    located = [i for i in present if has_position(people, i)]
    if present and not located:
        return None
    return make("people_msgs/msg/People", header=header,
                people=[_navigation_person(make, people, i) for i in located])


def _navigation_person(make: Make, people: People, i: int):
    assert people.root is not None
    velocity, is_known = np.zeros(3), False
    if people.velocity is not None and np.isfinite(people.velocity[i]).all():
        velocity, is_known = people.velocity[i], True
    return make("people_msgs/msg/Person", name=person_id(people, i),
                position=point_message(make, people.root[i]),
                velocity=point_message(make, velocity),
                reliability=float(np.clip(people.scores[i], 0, 1)),
                tagnames=["state", "velocity"],
                tags=[_STATES[people.state_of(i)], "known" if is_known else "unknown"])


# Detections -------------------------------------------------------------------------------------


def detections(make: Make, header, people: People):
    """Return a vision_msgs/Detection3DArray of people with a body who are seen in this image.

    The box is aligned with the body's axes and contains the joints with a margin of 0.1 m; the pose
    is that of the pelvis.
    """
    seen = [i for i in range(len(people))
            if has_body(people, i) and people.state_of(i) != LOST]
    return make("vision_msgs/msg/Detection3DArray", header=header,
                detections=[_detection(make, header, people, i) for i in seen])


def _detection(make: Make, header, people: People, i: int):
    assert people.theta is not None and people.joints is not None
    rotation = body_rotation(people.theta[i, 0])
    in_body_axes = rotation.inv().apply(people.joints[i])
    low = in_body_axes.min(0) - _BODY_MARGIN_M
    high = in_body_axes.max(0) + _BODY_MARGIN_M
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
    """Return an hri_msgs/IdsList of the tracked people, and their rows in `people`."""
    rows = [i for i in range(len(people)) if people.state_of(i) == TRACKED]
    return make("hri_msgs/msg/IdsList", header=header,
                ids=[person_id(people, i) for i in rows]), rows


def hri_skeleton(make: Make, header, people: People, i: int, size: tuple[int, int]):
    """Return an hri_msgs/Skeleton2D of person i.

    Args:
        size: width and height of the image, px. Keypoints outside of it get score 0 and NaN.
    """
    points = people.keypoints[i] / size  # (17, 2), 0..1 in the image
    is_inside = np.all((points >= 0) & (points <= 1), axis=-1)  # false for NaN
    scores = np.where(is_inside, people.keypoint_scores[i], 0.0)
    left, right = COCO17.index("left_shoulder"), COCO17.index("right_shoulder")
    points_by_name = dict(zip(COCO17.names, points))
    points_by_name["neck"] = (points[left] + points[right]) / 2
    scores_by_name = dict(zip(COCO17.names, scores))
    scores_by_name["neck"] = min(scores[left], scores[right])
    return make("hri_msgs/msg/Skeleton2D", header=header,
                skeleton=[_hri_point(make, points_by_name[name], scores_by_name[name])
                          for name in _HRI_KEYPOINTS])


def _hri_point(make: Make, point: np.ndarray, score: float):
    x, y = point if score > 0 else (np.nan, np.nan)
    return make("hri_msgs/msg/NormalizedPointOfInterest2D", x=float(x), y=float(y), c=float(score))


def hri_region(make: Make, header, people: People, i: int, size: tuple[int, int]):
    """Return an hri_msgs/NormalizedRegionOfInterest2D of person i's box, clipped to the image.

    Args:
        size: width and height of the image, px.
    """
    corners = np.clip(people.boxes[i].reshape(2, 2) / size, 0, 1)
    (xmin, ymin), (xmax, ymax) = corners.tolist()
    return make("hri_msgs/msg/NormalizedRegionOfInterest2D", header=header, xmin=xmin, ymin=ymin,
                xmax=xmax, ymax=ymax, c=float(people.scores[i]))

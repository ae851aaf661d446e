"""Markers of people (visualization_msgs/MarkerArray) for RViz and Foxglove; no ROS here."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.draw import joint_colour, person_colour
from ros2_pose.messages.people import has_body, person_id
from ros2_pose.messages.standard import Make, point_message, pose_message, vector_message
from ros2_pose.people import INFERRED, LOST, People
from ros2_pose.skeleton import SMPL24

_ADD, _DELETE, _DELETE_ALL = 0, 2, 3  # Marker.action
_LINE_LIST, _SPHERE_LIST, _TEXT, _TRIANGLE_LIST = 5, 7, 9, 11  # Marker.type
_BONES, _JOINTS, _LABEL, _BODY = range(4)  # Marker.id; Marker.ns is the person's id
_FAINT = 0.35  # opacity of lost people and of joints that are not seen
_BODY_OPACITY = 0.6
_LABEL_OFFSET_M = 0.35  # from the head, along the spine


def marker_array(make: Make, header, people: People, shown: set[str], lifetime: float,
                 body: BodyModel | None = None):
    """Return a visualization_msgs/MarkerArray of the people with bodies, and the ids it shows.

    Args:
        shown: ids of the previous array; markers of those that are missing now are deleted.
        lifetime: s after which markers disappear if no image renews them.
        body: model of the people's theta and betas, to show body surfaces; None shows none.
    """
    rows = [i for i in range(len(people)) if has_body(people, i)]
    ids = {person_id(people, i) for i in rows}
    markers = []
    for i in rows:
        markers += _person_markers(make, header, people, i, lifetime)
    if body is not None and rows and len(body.coarse_faces):
        markers += _surface_markers(make, header, people, rows, lifetime, body)
    for name in sorted(shown - ids):
        for part in (_BONES, _JOINTS, _LABEL, _BODY):
            markers.append(_marker(make, header, name, part, action=_DELETE))
    return make("visualization_msgs/msg/MarkerArray", markers=markers), ids


def delete_all(make: Make, header):
    """Return a visualization_msgs/MarkerArray that deletes all markers."""
    marker = _marker(make, header, "", 0, action=_DELETE_ALL)
    return make("visualization_msgs/msg/MarkerArray", markers=[marker])


def _surface_markers(make: Make, header, people: People, rows: list[int], lifetime: float,
                     body: BodyModel) -> list:
    """Coarse body surfaces of some people, fainter for lost ones."""
    assert people.theta is not None and people.betas is not None and people.root is not None
    theta, betas, root = (torch.from_numpy(np.asarray(values[rows])).float()
                          for values in (people.theta, people.betas, people.root))
    surfaces = body.coarse_surface(theta, betas, root)
    corners = body.coarse_faces.flatten().tolist()
    markers = []
    for i, vertices in zip(rows, surfaces.tolist()):
        points = [point_message(make, vertex) for vertex in vertices]
        markers.append(_marker(
            make, header, person_id(people, i), _BODY, type=_TRIANGLE_LIST, scale=(1, 1, 1),
            points=[points[corner] for corner in corners], lifetime=lifetime,
            color=person_colour(person_id(people, i)),
            opacity=_FAINT * _BODY_OPACITY if _is_lost(people, i) else _BODY_OPACITY))
    return markers


def _beyond_head(joints: np.ndarray) -> np.ndarray:
    """Position (3,) of the label, m: beyond the head, because the up axis depends on the frame."""
    head = joints[SMPL24.index("head")]
    spine = head - joints[SMPL24.index("pelvis")]
    return head + _LABEL_OFFSET_M * spine / max(np.linalg.norm(spine), 1e-6)


def _is_lost(people: People, i: int) -> bool:
    return people.tracking_state is not None and people.tracking_state[i] == LOST


def _person_markers(make: Make, header, people: People, i: int, lifetime: float) -> list:
    """Markers of a person's bones, joints and label; faint where it is lost or not seen."""
    assert people.joints is not None
    name, joints = person_id(people, i), people.joints[i]
    own_colour = person_colour(name)
    colours = []
    for joint, is_seen in enumerate(_joints_seen(people, i)):
        rgb = joint_colour(SMPL24, joint, own_colour)
        colours.append(_colour(make, rgb, 1.0 if is_seen else _FAINT))
    points = [point_message(make, position) for position in joints]
    bone_points, bone_colours = [], []
    for parent, child in SMPL24.edges:
        bone_points += [points[parent], points[child]]
        bone_colours += [colours[child], colours[child]]
    return [
        _marker(make, header, name, _BONES, type=_LINE_LIST, scale=(0.03, 0, 0),
                points=bone_points, colors=bone_colours, lifetime=lifetime),
        _marker(make, header, name, _JOINTS, type=_SPHERE_LIST, scale=(0.05, 0.05, 0.05),
                points=points, colors=colours, lifetime=lifetime),
        _marker(make, header, name, _LABEL, type=_TEXT, scale=(0, 0, 0.15),
                position=_beyond_head(joints), text=name, color=own_colour, lifetime=lifetime)]


def _joints_seen(people: People, i: int) -> np.ndarray:
    """Whether each joint (24,) of person i is seen in the image."""
    if _is_lost(people, i):
        return np.full(len(SMPL24), False)
    if people.joint_source is None:
        return np.full(len(SMPL24), True)
    return people.joint_source[i] != INFERRED


def _colour(make: Make, rgb: tuple, opacity: float):
    r, g, b = (value / 255 for value in rgb)
    return make("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=opacity)


def _marker(make: Make, header, ns: str, id: int, **given):
    """A visualization_msgs/Marker; fields that are not given are empty."""
    values: dict[str, Any] = dict(
        type=_LINE_LIST, action=_ADD, scale=(0, 0, 0), position=(0, 0, 0), color=(0, 0, 0),
        opacity=1.0, lifetime=0.0, points=[], colors=[], text="") | given
    seconds = int(values["lifetime"])
    return make(
        "visualization_msgs/msg/Marker", header=header, ns=ns, id=id, type=values["type"],
        action=values["action"], pose=pose_message(make, values["position"], (0, 0, 0, 1)),
        scale=vector_message(make, values["scale"]),
        color=_colour(make, values["color"], values["opacity"]),
        lifetime=make("builtin_interfaces/msg/Duration", sec=seconds,
                      nanosec=int((values["lifetime"] - seconds) * 1e9)),
        frame_locked=False, points=values["points"], colors=values["colors"],
        texture_resource="", texture=_no_texture(make, header), uv_coordinates=[],
        text=values["text"], mesh_resource="", mesh_use_embedded_materials=False,
        mesh_file=make("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)))


def _no_texture(make: Make, header):
    return make("sensor_msgs/msg/CompressedImage", header=header, format="",
                data=np.zeros(0, np.uint8))

"""visualization_msgs/MarkerArray of people, for RViz and Foxglove. No ROS here: see messages.py."""

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
_BONES, _JOINTS, _LABEL, _BODY = range(4)  # Marker.id; ns is the person
_FAINT = 0.35  # opacity of what is not seen
_BODY_OPACITY = 0.6
_LABEL_ABOVE = 0.35  # m beyond the head


def marker_array(make: Make, header, people: People, shown: set[str], lifetime: float,
                 body: BodyModel | None = None):
    """The markers of an image and the ids they show.

    shown: the ids shown before; those that are gone are deleted. lifetime: s until markers that
    no image renews disappear. body: the model of the people's theta and betas, to show surfaces.
    """
    rows = [i for i in range(len(people)) if has_body(people, i)]
    now = {person_id(people, i) for i in rows}
    markers = [m for i in rows for m in _person_markers(make, header, people, i, lifetime)]
    if body is not None and rows and len(body.coarse_faces):
        markers += _surface_markers(make, header, people, rows, lifetime, body)
    markers += [_marker(make, header, name, part, action=_DELETE)
                for name in sorted(shown - now) for part in (_BONES, _JOINTS, _LABEL, _BODY)]
    return make("visualization_msgs/msg/MarkerArray", markers=markers), now


def delete_all(make: Make, header):
    """A MarkerArray after which nobody is shown."""
    marker = _marker(make, header, "", 0, action=_DELETE_ALL)
    return make("visualization_msgs/msg/MarkerArray", markers=[marker])


def _surface_markers(make: Make, header, people: People, rows: list[int], lifetime: float,
                     body: BodyModel) -> list:
    """The coarse surface of each person, fainter where the person is lost from sight."""
    surfaces = body.coarse_surface(*(torch.from_numpy(np.asarray(value[rows])).float()
                                     for value in (people.theta, people.betas, people.root)))
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
    """(3,) where the label is: up is another axis in every frame, the body's own is not."""
    head = joints[SMPL24.index("head")]
    spine = head - joints[SMPL24.index("pelvis")]
    return head + _LABEL_ABOVE * spine / max(np.linalg.norm(spine), 1e-6)


def _is_lost(people: People, i: int) -> bool:
    return people.tracking_state is not None and people.tracking_state[i] == LOST


def _person_markers(make: Make, header, people: People, i: int, lifetime: float) -> list:
    """Bones, joints and a label; a joint that no pixel shows is faint, a lost person all over."""
    name, joints = person_id(people, i), people.joints[i]
    own = person_colour(name)
    seen = np.full(len(SMPL24), True)
    if people.joint_source is not None:
        seen = people.joint_source[i] != INFERRED
    if _is_lost(people, i):
        seen[:] = False
    colours = [_colour(make, joint_colour(SMPL24, joint, own), 1.0 if seen[joint] else _FAINT)
               for joint in range(len(SMPL24))]
    points = [point_message(make, position) for position in joints]
    ends = np.array(SMPL24.edges).reshape(-1)
    children = np.array(SMPL24.edges)[:, [1, 1]].reshape(-1)  # a bone has its child's colour
    label = _beyond_head(joints)
    return [
        _marker(make, header, name, _BONES, type=_LINE_LIST, scale=(0.03, 0, 0),
                points=[points[k] for k in ends], colors=[colours[k] for k in children],
                lifetime=lifetime),
        _marker(make, header, name, _JOINTS, type=_SPHERE_LIST, scale=(0.05, 0.05, 0.05),
                points=points, colors=colours, lifetime=lifetime),
        _marker(make, header, name, _LABEL, type=_TEXT, scale=(0, 0, 0.15), position=label,
                text=name, color=own, lifetime=lifetime)]


def _colour(make: Make, rgb: tuple, opacity: float):
    r, g, b = (value / 255 for value in rgb)
    return make("std_msgs/msg/ColorRGBA", r=r, g=g, b=b, a=opacity)


def _marker(make: Make, header, ns: str, id: int, **given):
    """A Marker with every field; what is not given is empty."""
    values: dict[str, Any] = dict(
        type=_LINE_LIST, action=_ADD, scale=(0, 0, 0), position=(0, 0, 0), color=(0, 0, 0),
        opacity=1.0, lifetime=0.0, points=[], colors=[], text="") | given
    whole = int(values["lifetime"])
    return make(
        "visualization_msgs/msg/Marker", header=header, ns=ns, id=id, type=values["type"],
        action=values["action"], pose=pose_message(make, values["position"], (0, 0, 0, 1)),
        scale=vector_message(make, values["scale"]),
        color=_colour(make, values["color"], values["opacity"]),
        lifetime=make("builtin_interfaces/msg/Duration", sec=whole,
                      nanosec=int((values["lifetime"] - whole) * 1e9)),
        frame_locked=False, points=values["points"], colors=values["colors"],
        texture_resource="", texture=_no_texture(make, header), uv_coordinates=[],
        text=values["text"], mesh_resource="", mesh_use_embedded_materials=False,
        mesh_file=make("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)))


def _no_texture(make: Make, header):
    return make("sensor_msgs/msg/CompressedImage", header=header, format="",
                data=np.zeros(0, np.uint8))

"""Replay results for the Rerun viewer: images, and people in 2D and 3D over time.

The viewer is a large package and therefore an extra: pip install rerun-sdk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.draw import VISIBLE, joint_colour, person_colour
from ros2_pose.errors import PoseError
from ros2_pose.offline.sources import RecordedFrame
from ros2_pose.people import LOST, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

# Entities. Those below the image are in its pixels, all others in the camera frame.
_IMAGE, _IN_IMAGE, _IN_SPACE = "camera/image", "camera/image/people", "people"
_CLASSES = {1: COCO17, 2: SMPL24}  # keypoint classes: names, colours and bones
_PIXELS, _METRES = _CLASSES
_MIDDLE = (200, 200, 200)  # RGB of joints that are neither left nor right
_JPEG_QUALITY = 85
_JOINT_RADIUS_M = 0.02


class RerunError(PoseError):
    """A recording that cannot be written; the message says why and what to do."""


class RerunLog:
    """A sink of `replay` that writes an .rrd file with the images' stamps as timeline `stamp`.

    Images are stored as JPEG. Each person is an entity below `camera/image/people` (box and
    keypoints, px) and one below `people` (joints, m, camera frame), cleared in images without the
    person.
    """

    in_image_frame = True

    def __init__(self, path: Path, pipeline: Pipeline):
        """Create the file. Raises RerunError without Rerun, or if it cannot be written."""
        self._rr, self.path, self.pipeline = _rerun(), path, pipeline
        self._camera: Camera | None = None
        self._shown: set[str] = set()  # entities
        self._stream = self._rr.RecordingStream("ros2_pose")
        try:
            self._stream.save(path, default_blueprint=self._layout())
        except (OSError, RuntimeError) as error:
            raise RerunError(f"{path} cannot be written: {error}") from None
        self._stream.log("/", self._rr.ViewCoordinates.RDF, self._annotations(), static=True)

    def write(self, recorded: RecordedFrame, people: People | None) -> None:
        """Log an image and its people."""
        self._stream.set_time("stamp", timestamp=np.datetime64(recorded.stamp, "ns"))
        note = recorded.problem if people is None else people.note
        if note:
            self._stream.log("notes", self._rr.TextLog(f"{recorded.name}: {note}", level="WARN"))
        if recorded.frame is not None and people is not None:
            self._log_camera(self.pipeline.camera(recorded.frame)[0])
            self._log_image(recorded.frame.image)
            self._log_people(people)

    def close(self) -> None:
        """Complete the file."""
        self._stream.disconnect()  # waits until all is written

    def _layout(self):
        views = self._rr.blueprint
        return views.Blueprint(views.Horizontal(views.Spatial2DView(origin=_IMAGE, name="Camera"),
                                                views.Spatial3DView(origin="/", name="Space")))

    def _annotations(self):
        """Names, colours and bones of each joint set."""
        return self._rr.AnnotationContext([self._annotation(number, joints)
                                           for number, joints in _CLASSES.items()])

    def _annotation(self, number: int, joints: JointSet):
        keypoints = [self._rr.AnnotationInfo(i, name, joint_colour(joints, i, _MIDDLE))
                     for i, name in enumerate(joints.names)]
        return self._rr.ClassDescription(
            info=self._rr.AnnotationInfo(number, joints.name, _MIDDLE),
            keypoint_annotations=keypoints, keypoint_connections=joints.edges)

    def _log_camera(self, camera: Camera | None) -> None:
        if camera is None or camera == self._camera:
            return
        self._camera = camera  # Rerun does not model its distortion
        self._stream.log(_IMAGE, self._rr.Pinhole(
            image_from_camera=camera.K, resolution=(camera.width, camera.height)))

    def _log_image(self, image: np.ndarray) -> None:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR),
                               [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
        self._stream.log(_IMAGE, self._rr.EncodedImage(contents=data.tobytes(),
                                                       media_type="image/jpeg"))

    def _log_people(self, people: People) -> None:
        entities: dict[str, Any] = {}
        assert people.ids is not None and people.tracking_state is not None  # set by the tracker
        for i, name in enumerate(people.ids):
            lost = people.tracking_state[i] == LOST
            label = f"{name} lost" if lost else name
            seen = (people.keypoint_scores[i] >= VISIBLE) & (not lost)
            entities |= {
                f"{_IN_IMAGE}/{name}": self._box(people.boxes[i], name, label),
                f"{_IN_IMAGE}/{name}/keypoints": self._keypoints(people.keypoints[i], seen)}
            if people.joints is not None:
                entities[f"{_IN_SPACE}/{name}"] = self._joints(people.joints[i], label)
        entities = {entity: what for entity, what in entities.items() if what is not None}
        for entity in self._shown - entities.keys():
            self._stream.log(entity, self._rr.Clear(recursive=False))
        for entity, what in entities.items():
            self._stream.log(entity, what)
        self._shown = set(entities)

    def _box(self, box: np.ndarray, name: str, label: str):
        return self._rr.Boxes2D(mins=[box[:2]], sizes=[box[2:] - box[:2]], labels=[label],
                                colors=[person_colour(name)])

    def _keypoints(self, points: np.ndarray, seen: np.ndarray):
        """Visible keypoints of points (17, 2) px; None if there are none."""
        rows = np.flatnonzero(seen & np.isfinite(points).all(-1))
        if not len(rows):
            return None
        return self._rr.Points2D(points[rows], class_ids=_PIXELS, keypoint_ids=rows,
                                 show_labels=False)

    def _joints(self, joints: np.ndarray, label: str):
        """Joints (24, 3) m; None for a person without a body."""
        if not np.isfinite(joints).all():
            return None
        return self._rr.Points3D(joints, radii=_JOINT_RADIUS_M, class_ids=_METRES, labels=[label],
                                 keypoint_ids=np.arange(len(joints)), show_labels=True)


def _rerun():
    """Import Rerun on demand."""
    try:
        import rerun
    except ImportError as error:
        raise RerunError(f"a Rerun recording needs Rerun ({error}): pip install rerun-sdk") \
            from None
    return rerun

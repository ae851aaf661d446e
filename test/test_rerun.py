"""The recording for the Rerun viewer holds what the replay saw; without Rerun, one line says so."""

from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ros2_pose import cli
from ros2_pose.camera import Camera
from ros2_pose.offline.rerun import RerunError, RerunLog
from ros2_pose.offline.sources import RecordedFrame
from ros2_pose.people import LOST, Frame
from ros2_pose.skeleton import SMPL24

_STAMPS = (1_700_000_000_123_456_789, 1_700_000_000_223_456_789)
_RED = np.full((48, 64, 3), (200, 30, 30), np.uint8)


class _Pipeline:
    """Knows the camera of every frame, as Pipeline does."""

    def camera(self, frame):
        return frame.camera, ""


def _shot(number: int = 0) -> RecordedFrame:
    stamp = _STAMPS[number]
    frame = Frame(_RED, Camera.from_fov(64, 48, 60), stamp)
    return RecordedFrame(stamp, "camera", str(number), frame)


@pytest.fixture
def record(tmp_path):
    """Function that writes images with their people, and reads what was written: for each entity a
    list of (stamp or None, {component: values}), in order."""
    pytest.importorskip("rerun", reason="an extra: pip install rerun-sdk")
    chunks = pytest.importorskip("rerun.chunk", reason="this Rerun does not read recordings")

    def run(*seen) -> dict[str, list]:
        path = tmp_path / "out.rrd"
        sink = RerunLog(path, _Pipeline())
        for shot, people in seen:
            sink.write(shot, people)
        sink.close()
        entities: dict[str, list] = {}
        for chunk in chunks.RrdReader(path).stream():
            batch = chunk.to_record_batch()
            stamps = batch["stamp"].cast("int64").to_pylist() if "stamp" in \
                batch.schema.names else [None] * batch.num_rows
            for row, stamp in enumerate(stamps):
                values = {name: batch[name][row].as_py() for name in batch.schema.names
                          if ":" in name and batch[name][row].is_valid}
                entities.setdefault(chunk.entity_path, []).append((stamp, values))
        return {entity: sorted(rows, key=lambda row: row[0] or 0)
                for entity, rows in entities.items()}
    return run


def test_pictures_and_people_are_there_at_the_images_stamps(record, some_people):
    entities = record((_shot(0), some_people), (_shot(1), some_people[1:]))
    pictures = [(stamp, values["EncodedImage:blob"][0]) for stamp, values in
                entities["/camera/image"] if "EncodedImage:blob" in values]
    assert [stamp for stamp, _ in pictures] == list(_STAMPS)
    drawn = cv2.imdecode(np.array(pictures[0][1], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert drawn.shape == _RED.shape and np.abs(drawn.astype(int) - _RED).max() < 10
    for i, name in enumerate(some_people.ids):
        stamp, box = entities[f"/camera/image/people/{name}"][0]
        low, high = some_people.boxes[i, :2], some_people.boxes[i, 2:]
        assert stamp == _STAMPS[0] and box["Boxes2D:labels"] == [name]
        assert np.allclose(box["Boxes2D:centers"], (low + high) / 2, atol=1e-3)
        assert np.allclose(box["Boxes2D:half_sizes"], (high - low) / 2, atol=1e-3)
        _, joints = entities[f"/people/{name}"][0]
        assert np.allclose(joints["Points3D:positions"], some_people.joints[i], atol=1e-5)
        assert joints["Points3D:labels"] == [name]
        _, keypoints = entities[f"/camera/image/people/{name}/keypoints"][0]
        which = keypoints["Points2D:keypoint_ids"]
        assert np.allclose(keypoints["Points2D:positions"], some_people.keypoints[i, which],
                           atol=1e-3)
        unsure = np.flatnonzero(some_people.keypoint_scores[i] < 0.15)
        assert not set(unsure) & set(which) and len(unsure) + len(which) == 17


def test_the_camera_is_said_once_and_projects_as_ours(record, some_people):
    entities = record((_shot(0), some_people), (_shot(1), some_people))
    cameras = [values for _, values in entities["/camera/image"]
               if "Pinhole:image_from_camera" in values]
    assert len(cameras) == 1 and cameras[0]["Pinhole:resolution"] == [[64, 48]]
    by_column = np.reshape(cameras[0]["Pinhole:image_from_camera"], (3, 3))
    ray = by_column.T @ some_people.root[0]
    pixel = _shot().frame.camera.project(some_people.root[:1])[0]
    assert np.allclose(ray[:2] / ray[2], pixel, atol=1e-4)


def test_bones_connect_the_joints_of_a_set(record, some_people):
    context = record((_shot(), some_people))["/"][0][1]["AnnotationContext:context"][0]
    described = {entry["class_id"]: entry["class_description"] for entry in context}
    for entry in described.values():
        assert entry["keypoint_connections"]
    bones = [(pair["keypoint0"], pair["keypoint1"])
             for pair in described[2]["keypoint_connections"]]
    assert bones == list(SMPL24.edges)


def test_who_is_not_there_is_cleared(record, some_people):
    state = some_people.tracking_state.copy()
    state[1] = LOST
    entities = record((_shot(0), some_people),
                      (_shot(1), some_people.with_fields(tracking_state=state)[[1, 2]]))

    def cleared(entity: str) -> list[int]:
        return [stamp for stamp, values in entities[entity] if "Clear:is_recursive" in values]
    assert cleared("/people/p1") == cleared("/camera/image/people/p1") == [_STAMPS[1]]
    assert cleared("/camera/image/people/p2/keypoints") == [_STAMPS[1]]  # where she is, is a guess
    assert cleared("/camera/image/people/p2") == cleared("/people/p3") == []
    assert entities["/camera/image/people/p2"][-1][1]["Boxes2D:labels"] == ["p2 lost"]


def test_what_is_not_known_is_not_there(record, some_people):
    unreadable = replace(_shot(1), frame=None, problem="is cut off")
    flat = some_people.without_bodies("no camera calibration")
    entities = record((_shot(0), flat), (unreadable, None))
    assert not [entity for entity in entities if entity.startswith("/people")]
    assert [values["TextLog:text"] for _, values in entities["/notes"]] == \
        [["0: no camera calibration"], ["1: is cut off"]]


def test_without_rerun_one_line_names_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)
    cv2.imwrite(str(tmp_path / "a.png"), _RED)
    with pytest.raises(RerunError):
        RerunLog(tmp_path / "out.rrd", _Pipeline())
    assert cli.main(["replay", str(tmp_path / "a.png"), "--rerun", str(tmp_path / "out.rrd"),
                     "--scales", "128", "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "pip install rerun-sdk" in said[0]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    pytest.importorskip("rerun", reason="an extra: pip install rerun-sdk")
    with pytest.raises(RerunError, match="no_such_folder"):
        RerunLog(tmp_path / "no_such_folder" / "out.rrd", _Pipeline())


def test_nowhere_to_write_to_is_a_mistake(tmp_path, capsys):
    assert cli.main(["replay", str(tmp_path)]) == 2
    assert "--rerun" in capsys.readouterr().err

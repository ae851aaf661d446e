"""Readers of datasets, on miniatures in the published layouts that the tests write themselves."""

import json
import pickle
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from ros2_pose.data.datasets import DATASETS, Skipping, load
from ros2_pose.data.sample import HIDDEN, OUTSIDE, VISIBLE, DataError
from ros2_pose.safe_pickle import read_arrays
from ros2_pose.skeleton import COCO17, SMPL24, common_joints

W, H, F, C = 160, 120, 100.0, np.array([80.3, 59.1])  # pixel centres at 0, as in calibrations
K = np.array([[F, 0, C[0]], [0, F, C[1]], [0, 0, 1]])
R, T = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix(), np.array([0.4, -0.2, 1.0])


def person(count, left, right):
    """(count, 3) m: everybody faces the camera, so that the left side is right in the picture."""
    i = np.arange(count)
    side = np.where(np.isin(i, left), 1, np.where(np.isin(i, right), -1, 0))
    return np.c_[0.3 * side + 0.01 * i, np.linspace(-1, 1, count), 4 + 0.05 * i]


def pixels_of(points):
    return F * points[..., :2] / points[..., 2:] + C


def to_world(points):
    return (points - T) @ R


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (H, W, 3), np.uint8)
    assert cv2.imwrite(str(path), noise)
    return path


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, default=lambda array: array.tolist()))
    return path


class Mini(NamedTuple):
    """What was written, in pixels with centres at +0.5."""

    split: str
    count: int
    knee: np.ndarray  # (2,) the left knee of the first person in the first picture
    picture: object  # Path of the first picture
    file: object  # Path of the annotations
    complete: bool


# The joints' orders are written down here once more, so as not to believe the readers' own.


def coco(root, spoil=0.0):
    points = pixels_of(person(17, range(1, 17, 2), range(2, 17, 2)))
    points[13] += spoil
    marks = np.c_[np.round(points), np.full(17, 2)]
    marks[3], marks[5, 2] = 0, 1
    someone = {"image_id": 7, "iscrowd": 0}
    people = [{**someone, "bbox": [40, 20, 60, 80], "num_keypoints": 16,
               "keypoints": marks.ravel()},
              {**someone, "bbox": [0, 0, 30, 20], "num_keypoints": 0, "keypoints": [0] * 51},
              {**someone, "bbox": [120, 0, 60, 20], "num_keypoints": 0, "keypoints": [0] * 51,
               "iscrowd": 1}]
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]
    file = dump(root / "annotations/person_keypoints_mini.json",
                {"images": images, "annotations": people})
    draw(root / "mini/b.jpg")
    return Mini("mini", 2, marks[13, :2] + 0.5, draw(root / "mini/a.jpg"), file, True)


def labelled(root, spoil=0.0):
    mini = coco(root, spoil)
    table = json.loads(mini.file.read_text())
    for image in table["images"]:
        image |= {"split": "val", "file_name": f"mini/{image['file_name']}"}
    mini.file.unlink()
    return mini._replace(split="validation", file=dump(root / "labels.json", table))


def mpii(root, spoil=0.0):
    points = np.round(pixels_of(person(16, [3, 4, 5, 13, 14, 15], [0, 1, 2, 10, 11, 12])))
    points[4] += spoil
    joints = [{"id": i, "x": float(x), "y": float(y), "is_visible": str(i % 2)}
              for i, (x, y) in enumerate(points) if i != 15]
    for joint in joints[7:10]:
        joint["is_visible"] = np.zeros(0)
    known = {"annopoints": {"point": structs(joints)}, "scale": 2.0}
    unknown = {"annopoints": np.zeros(0), "scale": 3.0}
    entries = [{"image": {"name": "a.jpg"}, "annorect": structs([known, unknown])},
               {"image": {"name": "test.jpg"}, "annorect": np.zeros(0)},
               {"image": {"name": "nobody.jpg"}, "annorect": structs([unknown])}]
    file = root / "mpii_human_pose_v1_u12_1.mat"
    savemat(file, {"RELEASE": {"annolist": structs(entries), "img_train": [1, 0, 1]}})
    return Mini("train", 1, points[4] - 0.5, draw(root / "images/a.jpg"), file, False)


def structs(rows):
    """MATLAB's struct array."""
    out = np.zeros(len(rows), [(name, object) for name in rows[0]])
    for number, row in enumerate(rows):
        out[number] = tuple(row.values())
    return out


def lspet(root, spoil=0.0):
    points = pixels_of(person(14, [3, 4, 5, 9, 10, 11], [0, 1, 2, 6, 7, 8]))
    points[4] += spoil
    joints = np.concatenate([points, np.ones((14, 1))], 1)
    joints[11] = (-20, 3, 0)
    file = root / "joints.mat"
    savemat(file, {"joints": np.stack([joints] * 2, 2)})
    draw(root / "images/im00002.jpg")
    return Mini("train", 2, points[4] - 0.5, draw(root / "images/im00001.jpg"), file, False)


SMPL_LEFT, SMPL_RIGHT = [1, 4, 7, 10, 13, 16, 18, 20, 22], [2, 5, 8, 11, 14, 17, 19, 21, 23]
SMPL_OF_OPENPOSE = {2: 17, 3: 19, 4: 21, 5: 16, 6: 18, 7: 20, 8: 2, 9: 5, 10: 8, 11: 1, 12: 4,
                    13: 7}
POSES = np.random.default_rng(1).normal(0, 0.5, (2, 3, 72))


def pw3d(root, spoil=0.0):
    """Two people, three pictures: one's 3D is not valid in the first, the third is empty."""
    joints = np.stack([person(24, SMPL_LEFT, SMPL_RIGHT) + (0.1 * p, 0, 0) for p in range(2)])
    joints = np.repeat(joints[:, None], 3, 1)
    marks = np.zeros((2, 3, 3, 18))
    for mark, joint in SMPL_OF_OPENPOSE.items():
        marks[:, :2, :2, mark] = pixels_of(joints[:, :2, joint])
        marks[:, :2, 2, mark] = 0.7
    world = to_world(joints)
    world[0, 0, 4] += spoil
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = R, T
    table = {"sequence": "walk_00", "poses": list(POSES), "poses2d": list(marks),
             "jointPositions": list(world.reshape(2, 3, 72)), "betas": [np.ones(10), np.ones(10)],
             "genders": ["n", "f"], "cam_poses": np.stack([camera] * 3), "cam_intrinsics": K,
             "campose_valid": [np.array([1, 1, 0]), np.array([0, 1, 0])], "frames": np.float64(3)}
    file = root / "sequenceFiles/train/walk_00.pkl"
    file.parent.mkdir(parents=True)
    file.write_bytes(pickle.dumps(table, protocol=2))
    draw(root / "imageFiles/walk_00/image_00001.jpg")
    return Mini("train", 2, pixels_of(joints[0, 0, 4]) + 0.5,
                draw(root / "imageFiles/walk_00/image_00000.jpg"), file, False)


def h36m(root, spoil=0.0):
    joints = person(17, [4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16])
    world = 1000 * to_world(joints)
    world[5] += spoil
    for subject in (9, 11):
        start = root / "annotations" / f"Human36M_subject{subject}_"
        image = {"file_name": f"s{subject}/a.jpg", "subject": subject, "cam_idx": 4,
                 "action_idx": 2, "subaction_idx": 1, "frame_idx": 0, "width": W, "height": H}
        dump(start.with_name(start.name + "data.json"), {"images": [image], "annotations": []})
        dump(start.with_name(start.name + "camera.json"),
             {"4": {"R": R, "t": 1000 * T, "f": [F, F], "c": C}})
        file = dump(start.with_name(start.name + "joint_3d.json"), {"2": {"1": {"0": world}}})
        draw(root / "images" / image["file_name"])
    fit = {"pose": POSES[0, 0], "shape": np.ones(10), "trans": [0, 0, 0]}
    dump(file.with_name("Human36M_subject9_SMPL_NeuralAnnot.json"), {"2": {"1": {"0": fit}}})
    return Mini("test", 2, pixels_of(joints[5]) + 0.5, root / "images/s9/a.jpg",
                file.with_name("Human36M_subject9_joint_3d.json"), True)


def panoptic(root, spoil=0.0):
    """One person seen whole, one behind the camera; frames without people or without pictures."""
    here = person(19, [3, 4, 5, 6, 7, 8, 15, 16], [9, 10, 11, 12, 13, 14, 17, 18])
    sequence, bodies = root / "170101_chat1", []
    for number, joints in enumerate((here, here - (0, 0, 10))):
        joints = np.c_[100 * to_world(joints), np.full(19, 0.8)]
        joints[7, :3] += spoil
        joints[16, 3] = -1
        bodies.append({"id": number, "joints19": joints.ravel()})
    file = dump(sequence / "hdPose3d_stage1_coco19/body3DScene_00000005.json", {"bodies": bodies})
    for frame in (6, 7):
        dump(file.with_name(f"body3DScene_0000000{frame}.json"), {"bodies": []})
    cameras = [{"name": name, "type": "hd", "resolution": [W, H], "K": K, "distCoef": [0.0] * 5,
                "R": R, "t": 100 * T[:, None]} for name in ("00_03", "00_16")]
    cameras.append({"name": "01_01", "type": "vga"})
    dump(sequence / "calibration_170101_chat1.json", {"cameras": cameras})
    draw(sequence / "hdImgs/00_16/00_16_00000006.jpg")
    draw(sequence / "hdImgs/00_03/00_03_00000005.jpg")
    return Mini("test", 2, pixels_of(here[7]) + 0.5,
                draw(sequence / "hdImgs/00_16/00_16_00000005.jpg"), file, True)


def cells(shape, value: Callable):
    out = np.empty(shape, object)
    for position in np.ndindex(shape):
        out[position] = value(*position)
    return out


def mupots(root, spoil=0.0):
    """Two people in two pictures; an annotated head is far from its projection, as in the files."""
    joints = person(17, [5, 6, 7, 11, 12, 13], [2, 3, 4, 8, 9, 10])

    def someone(time, number):
        points = joints + (0.2 * time, 0, 0.5 * number)
        pixels = pixels_of(points)
        pixels[0] += 30
        pixels[12] += spoil
        return {"annot2": pixels.T, "annot3": 1000 * points.T, "univ_annot3": points.T,
                "isValidFrame": bool(number == 0 or time == 1)}

    occluded = (np.arange(17) == 13)[None]
    for number in range(1, 21):
        folder = root / f"TS{number}"
        for time in range(2):
            draw(folder / f"img_{time:06d}.jpg")
        savemat(folder / "annot.mat", {"annotations": cells((2, 2), someone)})
        savemat(folder / "occlusion.mat",
                {"occlusion_labels": cells((2, 2), lambda *_: np.float64(occluded))})
    return Mini("test", 40, pixels_of(joints[12]) + 0.5, root / "TS1/img_000000.jpg",
                root / "TS1/annot.mat", False)


def mpi_inf_3dhp(root, spoil=0.0):
    """Pictures 1 and 3 of a video of four, three of which are annotated."""
    joints = person(28, [8, 9, 10, 11, 12, 18, 19, 20, 21, 22],
                    [13, 14, 15, 16, 17, 23, 24, 25, 26, 27])
    moving = np.stack([joints + (0.1 * time, 0, 0) for time in range(3)])
    pixels = pixels_of(moving)
    pixels[0, 19] += spoil
    size, numbers = f"  size {W} {H}\n", " ".join(map(str, np.pad(K, (0, 1)).ravel()))
    calibration = "Skeletool Camera Calibration File V1.0\n" + "".join(
        f"name {camera}\n{size}  animated 0\n  intrinsic {numbers}\n  extrinsic 1 0\n  radial 0\n"
        for camera in range(2))
    for sequence in (root / "S8/Seq1", root / "S8/Seq2"):
        for number in (1, 3, 4):
            draw(sequence / f"imageFrames/video_1/frame_{number:06d}.jpg")
        (sequence / "camera.calibration").write_text(calibration)
        savemat(sequence / "annot.mat",
                {"annot2": cells((14, 1), lambda *_: pixels.reshape(3, -1)),
                 "annot3": cells((14, 1), lambda *_: 1000 * moving.reshape(3, -1))})
    first = root / "S8/Seq1"
    return Mini("validation", 4, pixels_of(joints[19]) + 0.5,
                first / "imageFrames/video_1/frame_000001.jpg", first / "annot.mat", False)


WRITERS = {"coco": coco, "labelled": labelled, "mpii": mpii, "lspet": lspet, "3dpw": pw3d,
           "h36m": h36m, "panoptic": panoptic, "mupots": mupots, "3dhp": mpi_inf_3dhp}
KNEE = COCO17.index("left_knee")


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def mini(name, tmp_path):
    return WRITERS[name](tmp_path)


@pytest.fixture
def samples(name, tmp_path, mini):
    return load(name, tmp_path, mini.split)


def test_every_dataset_has_a_miniature():
    assert WRITERS.keys() == DATASETS.keys() - {"synthetic"}


def test_number_shapes_and_pixels(samples, mini):
    assert len(samples) == mini.count == len(list(samples))
    frame, people, ignored, complete = samples[0]
    assert frame.image.shape == (H, W, 3) and ignored.shape[1:] == (4,)
    assert complete == mini.complete
    assert len(people) and (people.scores == 1).all()
    np.testing.assert_allclose(people.keypoints[0, KNEE], mini.knee, atol=2e-4)
    known = np.isfinite(people.keypoints).all(-1)
    assert (people.keypoint_scores[known] > OUTSIDE).all()
    assert (people.keypoint_scores[~known] == OUTSIDE).all()
    assert (people.boxes >= 0).all() and (people.boxes <= (W, H, W, H)).all()
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_left_is_the_persons_own(samples):
    """Who faces the camera has the left side on the picture's right."""
    people = samples[0].people
    for joint_set, values in ((COCO17, people.keypoints), (SMPL24, people.joints)):
        if values is None:
            continue
        across = (values - values[:, joint_set.mirror])[..., 0]
        left = np.array(joint_set.sides) == "left"
        known = np.isfinite(across[:, left])
        assert known.any() and (across[:, left][known] > 0).all()


def test_joints_project_onto_keypoints_through_the_camera(samples):
    frame, people, _, _ = samples[0]
    if people.joints is None:
        assert frame.camera is None
        return
    of_joints, of_keypoints = common_joints(SMPL24, COCO17)
    assert len(of_joints) == 12
    seen = frame.camera.project(people.joints[0, of_joints])
    np.testing.assert_allclose(seen, people.keypoints[0, of_keypoints], atol=1e-3)


def test_boxes_hold_the_keypoints(samples):
    people = samples[0].people
    low, high = people.boxes[:, None, :2], people.boxes[:, None, 2:]
    inside = (people.keypoints >= low) & (people.keypoints <= high)
    assert inside[people.keypoint_scores > OUTSIDE].all()


def test_missing_picture(samples, mini):
    mini.picture.unlink()
    with pytest.raises(DataError, match=mini.picture.name):
        samples[0]


def test_truncated_picture(samples, mini):
    mini.picture.write_bytes(mini.picture.read_bytes()[:2000])
    with pytest.raises(DataError, match=f"{mini.picture.name}.*cut off"):
        samples[0]


def test_missing_annotations(name, tmp_path, mini):
    for file in mini.file.parent.iterdir():
        if file.is_file():
            file.unlink()
    with pytest.raises(DataError, match=str(tmp_path)):
        load(name, tmp_path, mini.split)


def test_damaged_annotations(name, tmp_path, mini):
    mini.file.write_bytes(mini.file.read_bytes()[:60])
    with pytest.raises(DataError, match=mini.file.name):
        load(name, tmp_path, mini.split)[0]


def test_nan_is_named_with_file_joint_and_person(name, tmp_path):
    spoilt = WRITERS[name](tmp_path, np.nan)
    with pytest.raises(DataError, match=f"{spoilt.file.name}.*left_knee of person 0"):
        load(name, tmp_path, spoilt.split)[0]


def test_unknown_split_and_dataset(name, tmp_path, mini):
    with pytest.raises(DataError):
        load(name, tmp_path, "tomorrow")
    with pytest.raises(DataError, match="known are .*coco"):
        load("imagenet", tmp_path, "train")


def test_pictures_of_another_size_are_refused_where_a_calibration_has_one(tmp_path):
    mini = h36m(tmp_path)
    cv2.imwrite(str(mini.picture), np.zeros((H // 2, W // 2, 3), np.uint8))
    with pytest.raises(DataError, match=f"calibration is for {W}x{H}"):
        load("h36m", tmp_path, "test")[0]


# ------------------------------------------------------------------------- each set's own ways


def test_coco_crowds_and_people_without_keypoints_are_ignored(tmp_path):
    coco(tmp_path)
    samples = load("coco", tmp_path, "mini")
    _, people, ignored, _ = samples[0]
    np.testing.assert_array_equal(people.boxes, [[40, 20, 100, 100]])
    np.testing.assert_array_equal(ignored, [[0, 0, 30, 20], [120, 0, W, 20]])
    assert list(people.keypoint_scores[0, [0, 3, 5]]) == [VISIBLE, OUTSIDE, HIDDEN]
    empty = samples[1]
    assert empty.complete and len(empty.people) == len(empty.ignored) == 0


def test_coco_lacks_a_key(tmp_path):
    dump(coco(tmp_path).file, {"images": []})
    with pytest.raises(DataError, match="annotations"):
        load("coco", tmp_path, "mini")


def test_mpii_visibility_and_missing_joints(tmp_path):
    mpii(tmp_path)
    people = load("mpii", tmp_path, "train")[0].people
    scores = dict(zip(COCO17.names, people.keypoint_scores[0]))
    assert scores["right_ankle"] == HIDDEN and scores["right_knee"] == VISIBLE
    assert scores["left_wrist"] == scores["nose"] == OUTSIDE and len(people) == 1


def test_3dpw_bodies_in_the_camera(tmp_path):
    pw3d(tmp_path)
    first, second = (sample.people for sample in load("3dpw", tmp_path, "train"))
    to_camera = Rotation.from_matrix(R)
    turned = to_camera * Rotation.from_rotvec(POSES[0, 0, :3])
    assert (Rotation.from_quat(first.theta[0, 0]).inv() * turned).magnitude() < 1e-6
    bent = Rotation.from_rotvec(POSES[0, 0, 3:].reshape(23, 3))
    assert ((Rotation.from_quat(first.theta[0, 1:]).inv() * bent).magnitude() < 1e-6).all()
    np.testing.assert_allclose(first.joints[0], person(24, SMPL_LEFT, SMPL_RIGHT), atol=1e-5)
    np.testing.assert_array_equal(first.root, first.joints[:, 0])
    for field in (first.joints, first.theta, first.root):
        assert np.isfinite(field[0]).all() and np.isnan(field[1]).all()
    assert np.isfinite(first.keypoints[1, KNEE]).all() and np.isfinite(second.joints).all()
    assert (first.betas[0] == 1).all() and np.isnan(first.betas[1]).all()  # the second is female


class _Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        import os
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", range(5))
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, protocol):
    file, mark = pw3d(tmp_path).file, tmp_path / "mark"
    file.write_bytes(pickle.dumps({"sequence": "a", "poses": _Payload(mark)}, protocol))
    with pytest.raises(DataError, match=r"walk_00.pkl.*\.system, which is not allowed"):
        load("3dpw", tmp_path, "train")
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_in_a_pickle_are_read(tmp_path, protocol):
    table = {"a": np.arange(6.0).reshape(2, 3), "b": [np.float32(2), np.arange(2)], "c": "x\xe9"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(table, protocol))
    found = read_arrays(tmp_path / "a.pkl")
    np.testing.assert_array_equal(found["a"], table["a"])
    assert found["b"][0] == 2 and list(found["b"][1]) == [0, 1] and found["c"] == table["c"]


def test_human36m_has_bodies_where_they_were_fitted(tmp_path):
    h36m(tmp_path)
    fitted, plain = (sample.people for sample in load("h36m", tmp_path, "test"))
    turned = Rotation.from_matrix(R) * Rotation.from_rotvec(POSES[0, 0, :3])
    assert (Rotation.from_quat(fitted.theta[0, 0]).inv() * turned).magnitude() < 1e-6
    assert (fitted.betas == 1).all() and fitted.root is None
    assert plain.theta is None and plain.betas is None and plain.joints is not None
    assert np.isnan(plain.joints[0, SMPL24.index("pelvis")]).all()
    assert np.isnan(plain.keypoints[0, COCO17.index("nose")]).all()


def test_panoptic_splits_and_who_is_not_in_the_picture(tmp_path):
    panoptic(tmp_path)
    seen, empty = load("panoptic", tmp_path, "test")
    assert len(seen.people) == 1  # the other stands behind the camera
    assert np.isnan(seen.people.keypoints[0, COCO17.index("left_ear")]).all()
    assert not empty.complete and not len(empty.people)
    assert [len(load("panoptic", tmp_path, split)) for split in ("train", "all")] == [1, 3]


def test_panoptic_distortion_does_not_fold_the_world_into_the_picture(tmp_path):
    mini = panoptic(tmp_path)
    file = mini.file.parents[1] / "calibration_170101_chat1.json"
    table = json.loads(file.read_text())
    for camera in table["cameras"][:2]:
        camera["distCoef"] = [-0.3, 0.0, 0.0, 0.0, 0.0]
    dump(file, table)
    aside = person(19, [], []) + (7.2, 0, 0)  # r = 1.8, where r - 0.3 r^3 is 0.05 again
    dump(mini.file, {"bodies": [{"id": 0, "joints19": np.c_[100 * to_world(aside), np.ones(19)]}]})
    sample = load("panoptic", tmp_path, "test")[0]
    x = aside[:, 0] / aside[:, 2]
    assert np.nanmax(np.abs(x - 0.3 * x**3)) < 0.5  # the trap: near the middle of the picture
    assert np.isnan(sample.frame.camera.project(aside)).all()
    assert not len(sample.people)


def test_mupots_calibration_and_validity(tmp_path):
    mupots(tmp_path)
    samples = load("mupots", tmp_path, "test")
    camera = samples[0].frame.camera
    np.testing.assert_allclose((camera.fx, camera.fy, camera.cx, camera.cy),
                               (F, F, *C + 0.5), atol=1e-6)
    assert [len(samples[i].people) for i in range(2)] == [1, 2]
    scores = samples[0].people.keypoint_scores[0]
    assert scores[COCO17.index("left_ankle")] == HIDDEN and scores[KNEE] == VISIBLE


def test_3dhp_frames_that_were_left_out(tmp_path):
    mini = mpi_inf_3dhp(tmp_path)
    first, later, *_ = load("3dhp", tmp_path, "validation")
    moved = later.people.joints - first.people.joints
    np.testing.assert_allclose(np.nanmax(moved), 0.2, atol=1e-6)  # two frames on
    mini.picture.rename(mini.picture.with_name("frame_000002.jpg"))
    with pytest.raises(DataError, match="starts with number 2"):
        load("3dhp", tmp_path, "validation")


# ------------------------------------------------------------------------------------ Skipping


class _Numbers:
    def __init__(self, count, bad):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number in self.bad:
            raise DataError(f"picture {number}.jpg is cut off")
        return number


def test_a_bad_sample_is_named_once_and_the_next_one_given(caplog):
    samples = Skipping(_Numbers(100, {5, 6, 99}))
    for _ in range(2):
        assert list(samples) == [*range(5), 7, 7, *range(7, 99), 0]
    assert samples.bad == {5, 6, 99}
    assert [caplog.text.count(f"picture {i}.jpg") for i in (5, 6, 99)] == [1, 1, 1]


@pytest.mark.parametrize("share", [0.05, 1.0])
def test_many_bad_samples_are_an_error(share):
    samples = Skipping(_Numbers(100, range(100)), share)
    with pytest.raises(DataError, match="of 100 samples cannot be read"):
        samples[0]
    assert len(samples.bad) == (6 if share < 1 else 100)


@pytest.mark.parametrize("writer", [coco, labelled])
@pytest.mark.parametrize("joints", [14, 16, 18])
def test_labels_of_another_joint_set_are_named(tmp_path, writer, joints):
    """Also where the numbers of all people together could be cut into people of 17 joints."""
    mini = writer(tmp_path)
    table = json.loads(mini.file.read_text())
    table["annotations"] = [one | {"keypoints": [1, 1, 2] * joints}
                            for one in table["annotations"][:1] * 17]
    mini.file.write_text(json.dumps(table))
    with pytest.raises(DataError, match=f"{joints} keypoints.*expected.*17 keypoints"):
        load(writer.__name__, tmp_path, mini.split)


def test_labels_without_their_pictures_are_named(tmp_path):
    mini = labelled(tmp_path)
    for picture in (tmp_path / "mini").iterdir():
        picture.unlink()
    with pytest.raises(DataError, match="mini/.*does not exist.*ros2_pose label"):
        load("labelled", tmp_path, mini.split)

"""The body layer's table on miniature data made here: rows are computed, or skipped by name."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ros2_pose.body.kinematics import pose_rig, project
from ros2_pose.body.lift import FILE as LIFT
from ros2_pose.body.lift import Lift
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.data.mocap import held_back
from ros2_pose.data.mupots import MupotsPeople, read_people
from ros2_pose.data.synthetic.depth_camera import depth_image, sensed
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.benchmarks import body, fitting, mupots, video
from ros2_pose.evaluation.harness import Curve, Options, Row, as_tables, run
from ros2_pose.metrics.mupots import mupots_pck, with_bone_lengths
from ros2_pose.people import LOST, TRACKED, People
from ros2_pose.skeleton import COCO17, MUPOTS17, SMPL24


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder without videos: a dozen poses, and two sequences of the people in them."""
    folder = tmp_path_factory.mktemp("data")
    model, prior, rng = BodyModel.load(), PosePrior.load(), np.random.default_rng(0)
    trials = np.array([f"{n:02d}_01" for n in range(1, 60)])
    trials = trials[np.argsort(~held_back(trials))][:12]  # held back ones, too
    poses = np.zeros((len(trials), 24, 3), np.float32)
    poses[:, 1:] = prior.mean.numpy() + 0.1 * rng.normal(size=(len(trials), 23, 3))
    (folder / "mocap").mkdir()
    np.savez(folder / "mocap" / "cmu_theta_10hz.npz", theta=poses.repeat(46, 0),
             src=trials.repeat(46))
    (folder / "devset").mkdir()
    np.savez(folder / "devset" / "mupots_ts01_10_gt.npz", joint_names=MUPOTS17.names,
             **_sequence(model, poses, 1), **_sequence(model, poses, 4))
    return folder


def _sequence(model, poses, number):
    """Six frames of two people as MuPoTS gives them, one of them with a person not annotated."""
    drawn = Projector(model, torch.from_numpy(poses), seed=number, vary=False).draw(12)
    rig = model.rig(drawn.betas, MUPOTS17)
    positions = pose_rig(rig, drawn.rotmats, drawn.betas, drawn.root).keypoints
    valid = np.ones((6, 2), np.uint8)
    valid[2, 1] = 0
    focal, centre = np.array([1400, 1410.0]), np.array([1000, 980.0])
    values = {"p2": project(positions).numpy() * focal + centre, "p3_mm": 1000 * positions.numpy()}
    values = {name: value.reshape(6, 2, 17, -1) for name, value in values.items()}
    values |= {"valid": valid, "K": np.r_[focal, centre]}
    return {f"TS{number}_{name}": value for name, value in values.items()}


@pytest.fixture(scope="module")
def options(data) -> Options:
    """With an untrained lift: rows must come about, figures need not be good."""
    torch.manual_seed(0)
    torch.save(Lift(32, 1).state_dict(), data / "lift.pt")
    return Options(data, people=6, stride=2, frames=3, repeats=2, lift=data / "lift.pt")


# ----------------------------------------------------------------------------------- table


@pytest.mark.parametrize("part, count", [("correction", 6), ("fit", 6), ("mupots", 4),
                                         ("mupots-noise", 5), ("depth", 4), ("floor", 11),
                                         ("cost", 12), ("motion", 5), ("prediction", 4),
                                         ("mupots-floor", 1),
                                         ("latency", 12)])
def test_each_benchmark_gives_its_rows(options, part, count):
    found = run({part: body.BENCHMARKS[part]}, options)[part]
    rows = [one for one in found if isinstance(one, Row)]
    assert len(rows) == count
    assert all(row.name and row.protocol and row.values for row in rows)
    assert all(np.isfinite(list(row.values.values())).all() for row in rows)
    for curve in (one for one in found if isinstance(one, Curve)):
        assert len(curve.x) == len(curve.y) and np.isfinite(curve.y).all()


@pytest.mark.parametrize("tilt_deg", [0, 10, 35])
def test_a_floor_is_found_under_people_who_stand_on_it(tilt_deg):
    """People stand at random places; some jump, and one foot of each is lifted."""
    rng, up = np.random.default_rng(tilt_deg), np.array([0, -np.cos(np.radians(tilt_deg)),
                                                       -np.sin(np.radians(tilt_deg))])
    along = np.linalg.svd(up[None])[2][1:]
    feet = np.array([0, 1, 5]) + rng.uniform(-2, 2, (60, 2)) @ along
    feet -= (feet @ up + 1.5)[:, None] * up  # 1.5 m under the camera
    poses = np.zeros((60, 17, 3))
    left, right = (MUPOTS17.index(f"{side}_ankle") for side in ("left", "right"))
    poses[:, left] = feet + (0.09 + np.where(rng.random(60) < 0.2, 0.3, 0))[:, None] * up
    poses[:, right] = poses[:, left] + rng.uniform(0.05, 0.3, 60)[:, None] * up
    swap = rng.random(60) < 0.5
    poses[swap] = poses[swap][:, MUPOTS17.mirror]
    np.testing.assert_allclose(mupots._floor(poses, 0.09).numpy(), [*up, 1.5], atol=0.01)


def test_what_is_missing_is_skipped_by_name(options, tmp_path):
    benchmarks = {name: one for name, one in body.BENCHMARKS.items()
                  if name not in ("correction", "latency")}
    found = run(benchmarks, replace(options, data=tmp_path))
    skipped = {name: rows[0].protocol for name, rows in found.items() if not rows[0].values}
    assert set(skipped) == {"fit", "mupots", "mupots-noise", "mupots-floor", "depth", "floor",
                            "motion", "prediction", "video", "video-floor"}
    assert "mupots_ts01_10_gt.npz" in skipped["mupots"] and str(tmp_path) in skipped["mupots"]
    assert "fit: skipped: no mocap/cmu_theta_10hz.npz" in as_tables(found)


def test_same_seed_same_people(options):
    (_, first, _), (_, second, _) = fitting.adults(options), fitting.adults(options)
    assert torch.equal(first.keypoints, second.keypoints)
    assert torch.equal(fitting.noise(6, 0, 0.02, 0.3), fitting.noise(6, 0, 0.02, 0.3))


def test_two_keypoints_of_each_person_are_wrong():
    assert ((fitting.noise(6, 0, 0.0, 0.3) != 0).all(2).sum(1) == 2).all()


# ---------------------------------------------------------------------------------- MuPoTS


def test_mupots_is_read_frame_by_frame(data):
    truth = read_people(data / "devset" / "mupots_ts01_10_gt.npz")
    assert len(truth.poses) == 2 * 11 and set(truth.sequence) == {1, 4}
    assert (truth.person[truth.sequence == 1] == [0, 1, 0, 1, 0] + [0, 1] * 3).all()
    np.testing.assert_allclose(truth.rays, truth.poses[..., :2] / truth.poses[..., 2:], atol=1e-5)
    assert len(read_people(data / "devset" / "mupots_ts01_10_gt.npz", 2).poses) == 2 * 5


def made_up(poses, sequence):
    return MupotsPeople(poses[..., :2] / poses[..., 2:], poses, np.array(sequence),
                            np.zeros(len(poses), int))


def test_score_of_the_truth_and_of_what_is_wrong():
    truth = made_up(np.random.default_rng(0).normal(size=(4, 17, 3)) + (0, 0, 5), [1, 1, 2, 2])
    assert mupots_pck(truth.poses, truth) == (100, 100)
    farther = truth.poses + (0, 0, 0.2)
    assert mupots_pck(farther, truth) == (100, 0)
    lost = truth.poses.copy()
    lost[0] = np.nan  # one of two in one of two sequences
    assert mupots_pck(lost, truth) == (75, 75)
    scored = lost.copy()
    scored[:, [MUPOTS17.index(name) for name in ("spine", "head")]] += 9
    assert mupots_pck(scored, truth, rescale=False) == (75, 75)


def test_bones_get_the_true_lengths_and_keep_their_directions():
    rng = np.random.default_rng(1)
    found, truth = rng.normal(size=(2, 3, 17, 3))
    scaled = with_bone_lengths(found, truth)
    for joint, parent in enumerate(MUPOTS17.parents):
        if parent < 0:
            np.testing.assert_array_equal(scaled[:, joint], found[:, joint])
            continue
        ours, before, true = (p[:, joint] - p[:, parent] for p in (scaled, found, truth))
        lengths = [np.linalg.norm(bone, axis=1) for bone in (ours, before, true)]
        np.testing.assert_allclose(lengths[0], lengths[2])
        np.testing.assert_allclose((ours * before).sum(1), lengths[0] * lengths[1])


def test_statures_of_our_own_body(options):
    """Two people of two frames each, the second frame of one of them a little off."""
    model = BodyModel.load()
    betas = torch.zeros(4, 10, dtype=torch.float64)
    betas[:, 0] = torch.tensor([0.7, 0.7, -0.4, -0.4])
    rotmats = torch.eye(3, dtype=torch.float64).repeat(4, len(SMPL24), 1, 1)
    rotmats[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    root = torch.tensor([[0.0, 0, 4]] * 4, dtype=torch.float64)
    poses = pose_rig(model.rig(betas, MUPOTS17), rotmats, betas, root).keypoints.numpy()
    base, growth = (float(v) for v in (model.stature[0], model.stature[1][0]))
    found = mupots.true_statures(replace(options, lift=LIFT), made_up(poses, [1, 1, 2, 2]))
    np.testing.assert_allclose(found, base + growth * betas[:, 0].numpy(), atol=0.04)
    assert found[0] == found[1]


# ----------------------------------------------------------------------------------- video


class Seer:
    """A pipeline that sees the truth a little off, somebody else and somebody lost."""

    body = BodyModel.load()

    def __init__(self, states, off):
        self.states, self.off = states, off

    def reset(self):
        self.left = iter(self.states)

    def step(self, frame):
        self.ground = frame.ground
        theta, betas, root = (np.repeat(value.numpy(), 3, 0) for value in next(self.left))
        root = root + np.array([(1.5, 0, 0), self.off, (0, 0, 0)])
        return People(np.zeros((3, 4)), np.ones(3), np.zeros((3, 17, 2)), np.zeros((3, 17, 2, 2)),
                      np.zeros((3, 17)), joints=np.zeros((3, 24, 3)), theta=theta, betas=betas,
                      root=root, ids=("p1", "p2", "p3"),
                      tracking_state=np.array([TRACKED, TRACKED, LOST]))


@pytest.fixture(scope="module")
def states() -> list[BodyState]:
    """Thirty frames of somebody who moves."""
    prior, rng = PosePrior.load(), np.random.default_rng(0)
    ends = torch.tensor(rng.normal(0, 0.5, (2, 69)))
    front = torch.tensor([[[1.0, 0, 0, 0]]], dtype=torch.float64)
    out = []
    for time in range(30):
        phase = np.sin(0.5 * time)
        pose = prior.pose((ends[:1] * (1 + phase) + ends[1:] * (1 - phase)) / 2)
        root = torch.tensor([[0.1 * phase, 0.0, 4.0]], dtype=torch.float64)
        out.append(BodyState(torch.cat([front, pose], 1), torch.zeros(1, 10).double(), root))
    return out


@pytest.fixture
def clip(tmp_path, states) -> video.Clip:
    """The same as a video and its JSON file."""
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (64, 48))
    for _ in range(30):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    body = BodyModel.load()
    rows = [COCO17.index(name) for name in video.JOINTS]
    poses = [1000 * body(*state, with_vertices=False).keypoints[0, rows].numpy()
             for state in states]
    frames = [{"people": [{"joints3d": {"names": video.JOINTS[::-1], "valid": [True] * 12,
                                        "xyz_mm": pose[::-1].tolist()}}]} for pose in poses]
    frames[7]["people"] = []
    (tmp_path / "a.json").write_text(json.dumps({
        "fps": 30, "frames": frames,
        "camera": {"K": [[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]], "dist_opencv": [0] * 5,
                   "R_world2cam": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
                   "t_world2cam_mm": [0, 1500, 3000]}}))
    return video.read_clip(tmp_path / "a.json")


def test_a_clip_is_read(clip):
    assert clip.camera == Camera(64, 48, 60, 60, 32, 24)
    np.testing.assert_allclose(clip.camera_to_scene.translation_m, [0, -3, 1.5])
    np.testing.assert_allclose(clip.camera_to_scene.rotmat @ clip.up, [0, 0, 1])
    assert clip.poses.shape == (30, 12, 3) and clip.seconds == pytest.approx(1 / 30)
    assert np.isnan(clip.poses[7]).all() and np.isfinite(np.delete(clip.poses, 7, 0)).all()


def test_the_person_is_followed_and_scored(clip, states):
    off = np.array([0.02, 0.0, 0.1])
    seer = Seer(states, off)
    found = video.follow(seer, clip, 20)
    np.testing.assert_allclose(seer.ground.up, (0, -1, 0), atol=1e-12)
    known = np.delete(np.arange(20), 7)
    np.testing.assert_allclose(found[known], clip.poses[known] + off, atol=1e-9)
    score = video.score(found, clip)
    assert score["MPJPE, mm"] == pytest.approx(0, abs=1e-6)
    assert score["acceleration error, m/s^2"] < 1e-6
    assert score["lag, ms"] == pytest.approx(0, abs=2)
    assert score["depth error, %"] == pytest.approx(2.5, abs=1)


# ---------------------------------------------------------------------------- depth images


def test_a_depth_image_shows_the_body_before_the_wall(options):
    state, _, _ = fitting.adults(options)
    state = state.rows([0])
    state = state._replace(root=torch.tensor([[0.0, 0.0, 3.0]]))
    camera = Camera.from_fov(160, 120, 70)
    image = depth_image(fitting.body_model(), state, camera, wall=5.0)
    pixel = camera.project(state.root[0].numpy()).astype(int)
    assert image[pixel[1], pixel[0]] == pytest.approx(3.0, abs=0.25) and image[0, 0] == 5
    noisy = sensed(image, np.random.default_rng(0))
    assert 0.05 < np.isnan(noisy).mean() < 0.15 and abs(np.nanmedian(noisy - image)) < 0.01

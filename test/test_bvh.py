"""The BVH reader: angles in their order, limbs that end up where the file puts them, bad files."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import quat_from_rotvec
from ros2_pose.data.bvh import BvhError, read_bvh, smpl_rotations
from ros2_pose.skeleton import SMPL24

ARM = ["LeftShoulder", "LeftArm", "LeftForeArm", "LeftHand"]


def bvh(angles: dict[str, tuple], frames: int = 1) -> str:
    """A pelvis with a spine and a left arm that points 10 degrees up at rest."""
    up = np.array([np.cos(np.radians(10)), np.sin(np.radians(10)), 0])
    offsets = {"Hips": (0, 0, 0), "LowerBack": (0, 1, 0), "LeftShoulder": (1, 2, 0),
               "LeftArm": (1, 0, 0), "LeftForeArm": 5 * up, "LeftHand": 4 * up}
    text, depth = "HIERARCHY\n", 0
    for number, (name, offset) in enumerate(offsets.items()):
        channels = "6 Xposition Yposition Zposition " if number == 0 else "3 "
        text += (f"{'JOINT' if number else 'ROOT'} {name}\n{{\nOFFSET "
                 + " ".join(map(str, offset)) + f"\nCHANNELS {channels}Zrotation Yrotation "
                 "Xrotation\n")
        depth += 1
    text += "End Site\n{\nOFFSET 1 0 0\n}\n" + "}\n" * depth
    row = [0, 0, 0] + [v for name in offsets for v in angles.get(name, (0, 0, 0))]
    line = " ".join(map(str, row)) + "\n"
    return text + f"MOTION\nFrames: {frames}\nFrame Time: 0.0083333\n" + line * frames


def test_the_arm_points_where_the_file_says(tmp_path):
    angles = {"Hips": (5, 70, -10), "LowerBack": (0, 0, 20), "LeftArm": (30, -20, 40),
              "LeftForeArm": (0, -60, 0)}
    path = tmp_path / "01_01.bvh"
    path.write_text(bvh(angles, frames=3))
    motion = read_bvh(path)
    assert motion.rotmats.shape == (3, 6, 3, 3) and motion.frame_s == pytest.approx(
        1 / 120, rel=1e-3
    )
    theta = torch.tensor(smpl_rotations(motion)[:1])
    body = BodyModel.load()(quat_from_rotvec(theta), torch.zeros(1, 10).double())
    joints = body.joints[0].numpy()
    chain, position, positions = Rotation.identity(), np.zeros(3), {}
    for name, offset in zip(motion.names, motion.offsets):  # every joint hangs on the one before
        position = position + chain.apply(offset)
        chain = chain * Rotation.from_euler("ZYX", angles.get(name, (0, 0, 0)), degrees=True)
        positions[name] = position
    for (a, b), (c, d) in ((("LeftArm", "LeftForeArm"), ("left_shoulder", "left_elbow")),
                           (("LeftForeArm", "LeftHand"), ("left_elbow", "left_wrist"))):
        theirs = positions[b] - positions[a]
        ours = joints[SMPL24.index(d)] - joints[SMPL24.index(c)]
        cosine = theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours)
        assert cosine > 1 - 1e-6


def test_rest_is_rest_but_for_the_limbs(tmp_path):
    path = tmp_path / "rest.bvh"
    path.write_text(bvh({}))
    theta = smpl_rotations(read_bvh(path))[0]
    assert np.abs(theta[SMPL24.index("spine3")]).max() < 1e-9
    assert 0.1 < np.linalg.norm(theta[SMPL24.index("left_shoulder")]) < 0.3


@pytest.mark.parametrize("spoil", [lambda t: t[:200], lambda t: "", lambda t: t[:-10],
                                   lambda t: t.replace("Frames: 1", "Frames: 2")])
def test_cut_off_files_are_named(tmp_path, spoil):
    path = tmp_path / "bad.bvh"
    path.write_text(spoil(bvh({})))
    with pytest.raises(BvhError, match="bad.bvh"):
        read_bvh(path)


def test_an_unknown_skeleton_is_an_error(tmp_path):
    path = tmp_path / "dog.bvh"
    path.write_text(bvh({}).replace("Hips", "Withers"))
    with pytest.raises(BvhError, match="Withers"):
        smpl_rotations(read_bvh(path))

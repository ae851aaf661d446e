"""Joint sets: left and right, trees, shared joints."""

import numpy as np
import pytest

from ros2_pose import skeleton
from ros2_pose.skeleton import COCO17, MUPOTS17, SMPL24, JointSet, common_joints


@pytest.fixture(params=[s for s in vars(skeleton).values() if isinstance(s, JointSet)],
                ids=lambda joint_set: joint_set.name)
def joints(request):
    return request.param


def test_names_and_sizes(joints):
    assert len(set(joints.names)) == len(joints.names) == int(joints.name.split("-")[1])


def test_mirror_swaps_sides_and_is_its_own_inverse(joints):
    mirror = joints.mirror
    assert np.array_equal(mirror[mirror], np.arange(len(joints)))
    for joint, other in enumerate(mirror):
        assert (joint == other) == (joints.sides[joint] == "middle")


def test_bones_keep_to_their_side(joints):
    for parent, child in joints.edges:
        assert {joints.sides[parent], joints.sides[child]} != {"left", "right"}


def test_smpl_parents_are_those_of_the_model():
    assert SMPL24.parents == (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17,
                              18, 19, 20, 21)


def test_shared_joints_have_the_same_names():
    a, b = common_joints(COCO17, MUPOTS17)
    assert [COCO17.names[i] for i in a] == [MUPOTS17.names[i] for i in b]
    assert len(a) == 12


def test_unknown_joint_is_named():
    with pytest.raises(KeyError, match="tail"):
        COCO17.index("tail")


def test_both_knees_are_of_one_kind():
    kinds = dict(zip(SMPL24.names, SMPL24.kinds))
    assert kinds["left_knee"] == kinds["right_knee"] == "knee"
    assert kinds["spine1"] == "spine1"
    assert dict(zip(MUPOTS17.names, MUPOTS17.kinds))["head_top"] == "head_top"

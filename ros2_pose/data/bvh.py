"""Converts motion capture files (BVH) to SMPL rotations, for `train_lift` and the pose prior.

    python -m ros2_pose.data.bvh --out mocap.npz cmu/01/*.bvh cmu/02/*.bvh

Reads the two conversions of the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu) by B.
Hahne (cgspeed), made for Daz and for MotionBuilder. Their rest pose is the T-pose, y up, facing +z,
as SMPL's, but some limbs point a few degrees elsewhere at rest: that is corrected here.
"""

from __future__ import annotations

import argparse
import logging
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from ros2_pose.body.model import BodyModel
from ros2_pose.errors import PoseError
from ros2_pose.skeleton import SMPL24

log = logging.getLogger(__name__)

# SMPL joint: its names in MotionBuilder's and in Daz's skeleton. Joints that are in neither keep
# their parent's rotation.
_MIDDLE = {"pelvis": ("Hips", "hip"), "spine1": ("LowerBack", "abdomen"), "spine2": ("Spine",),
           "spine3": ("Spine1", "chest"), "neck": ("Neck", "neck"), "head": ("Head", "head")}
_SIDED = {"hip": ("UpLeg", "Thigh"), "knee": ("Leg", "Shin"), "ankle": ("Foot", "Foot"),
          "collar": ("Shoulder", "Collar"), "shoulder": ("Arm", "Shldr"),
          "elbow": ("ForeArm", "ForeArm"), "wrist": ("Hand", "Hand")}
_LIMBS = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist"}


class BvhError(PoseError):
    """A file that is not a motion; the message names the file or its joints."""


class BvhMotion(NamedTuple):
    """N frames of a skeleton of B joints."""

    names: list[str]
    parents: list[int]  # -1 for a root
    offsets: np.ndarray  # (B, 3) from the parent at rest, the file's unit of length
    rotmats: np.ndarray  # (N, B, 3, 3) relative to the parent
    frame_s: float


def read_bvh(path: str | Path) -> BvhMotion:
    """Read a BVH file. Raises BvhError if it is cut off or another kind of file."""
    words = Path(path).read_text(errors="replace").split()
    try:
        return _parse(words)
    except (IndexError, ValueError, KeyError) as error:
        raise BvhError(f"{path} is not a BVH file, or is cut off: {error!r}") from error


def _parse(words: list[str]) -> BvhMotion:
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    open_joints: list[int] = []  # the joints with an open bracket, -1 for an end site
    i = words.index("HIERARCHY")
    while words[i] != "MOTION":
        if words[i] in ("ROOT", "JOINT"):
            parents.append(open_joints[-1] if open_joints else -1)
            names.append(words[i + 1])
            open_joints.append(len(names) - 1)
        elif words[i] == "End":
            open_joints.append(-1)
        elif words[i] == "OFFSET" and open_joints[-1] >= 0:
            offsets.append([float(word) for word in words[i + 1:i + 4]])
        elif words[i] == "CHANNELS":
            count = int(words[i + 1])
            channels.append(words[i + 2:i + 2 + count])
        elif words[i] == "}":
            open_joints.pop()
        i += 1
    # MOTION Frames: <count> Frame Time: <seconds> <values>
    frames, frame_s = int(words[i + 2]), float(words[i + 5])
    values = np.array(words[i + 6:], float).reshape(frames, sum(map(len, channels)))
    return BvhMotion(names, parents, np.array(offsets), _rotmats(channels, values), frame_s)


def _rotmats(channels: list[list[str]], values: np.ndarray) -> np.ndarray:
    """(N, B, 3, 3) of angles in degrees, in each joint's own order of axes."""
    rotmats = np.empty((len(values), len(channels), 3, 3))
    first_column = 0
    for joint, names in enumerate(channels):
        angle_rows = [k for k, name in enumerate(names) if name.endswith("rotation")]
        axes = "".join(names[k][0] for k in angle_rows)  # upper case: intrinsic rotations
        angles = values[:, [first_column + k for k in angle_rows]]
        rotmats[:, joint] = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
        first_column += len(names)
    return rotmats


def smpl_rotations(motion: BvhMotion) -> np.ndarray:
    """Convert a motion to rotations of SMPL's joints.

    Returns:
        (N, 24, 3): rotation vectors relative to the parent, rad; the pelvis' to the world, y up.
    Raises:
        BvhError: if the skeleton is neither of the two known.
    """
    to_world = motion.rotmats.copy()
    for joint, parent in enumerate(motion.parents):
        if parent >= 0:
            to_world[:, joint] = to_world[:, parent] @ to_world[:, joint]
    smpl_to_world = np.empty((len(to_world), len(SMPL24), 3, 3))
    for joint, name in enumerate(SMPL24.names):
        row = _row(motion, name)
        if row is not None:
            smpl_to_world[:, joint] = to_world[:, row] @ _rest_rotation(motion, name)
        elif name == "pelvis":
            raise BvhError(f"unknown skeleton with joints {', '.join(motion.names[:5])} ...")
        else:
            smpl_to_world[:, joint] = smpl_to_world[:, SMPL24.parents[joint]]
    parents = [max(parent, 0) for parent in SMPL24.parents]
    local = smpl_to_world[:, parents].swapaxes(2, 3) @ smpl_to_world
    local[:, 0] = smpl_to_world[:, 0]
    return Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, len(SMPL24), 3)


def _row(motion: BvhMotion, joint: str) -> int | None:
    """Index in the skeleton of an SMPL joint, or None if the skeleton lacks it."""
    side, _, kind = joint.rpartition("_")
    if kind in _SIDED:
        builder, daz = _SIDED[kind]
        names: tuple[str, ...] = (side.capitalize() + builder, side[0] + daz)
    else:
        names = _MIDDLE.get(joint, ())
    return next((motion.names.index(name) for name in names if name in motion.names), None)


def _rest_rotation(motion: BvhMotion, joint: str) -> np.ndarray:
    """(3, 3) rotation from SMPL's limb at rest to the skeleton's."""
    side, _, kind = joint.rpartition("_")
    if kind not in _LIMBS:
        return np.eye(3)
    child = f"{side}_{_LIMBS[kind]}"
    start, end = _row(motion, joint), _row(motion, child)
    if end is None:
        raise BvhError(f"the skeleton has a {joint}, but no {child}")
    limb, row = np.zeros(3), end
    while row != start:
        limb = limb + motion.offsets[row]
        row = motion.parents[row]
    rest = _rest_joints()
    smpl_limb = rest[SMPL24.index(child)] - rest[SMPL24.index(joint)]
    return Rotation.align_vectors(limb[None], smpl_limb[None])[0].as_matrix()


@lru_cache
def _rest_joints() -> np.ndarray:
    """(24, 3) m: the open body's joints in the T-pose."""
    return BodyModel.load().joints_rest(torch.zeros(1, 10))[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path,
                        help="one trial each, named SUBJECT_TRIAL.bvh")
    parser.add_argument("--out", type=Path, required=True, help="the npz to write")
    parser.add_argument("--hz", type=float, default=10.0, help="poses per second to keep")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    theta, sources = [], []
    for path in tqdm(args.files, unit="file"):
        motion = read_bvh(path)
        step = max(1, round(1 / (args.hz * motion.frame_s)))
        theta.append(smpl_rotations(motion._replace(rotmats=motion.rotmats[::step])))
        sources += [path.stem] * len(theta[-1])
    np.savez_compressed(args.out, theta=np.concatenate(theta).astype(np.float32),
                        src=np.array(sources))
    log.info("%s: %d poses of %d trials", args.out, len(sources), len(args.files))


if __name__ == "__main__":
    main()

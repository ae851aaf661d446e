"""Motion capture files (BVH) as SMPL rotations: what `training.lift` and the pose prior learn from.

    python -m ros2_pose.data.bvh --out mocap.npz cmu/01/*.bvh cmu/02/*.bvh

Reads the two conversions of the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu) by B.
Hahne (cgspeed), named for Daz and for MotionBuilder. Their rest pose is the T-pose, y up, facing
+z, as SMPL's; rotations carry over but for limbs that point a few degrees elsewhere at rest.
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

# SMPL joint: its names in MotionBuilder's and in Daz's skeleton. What is in neither does not turn.
_MIDDLE = {"pelvis": ("Hips", "hip"), "spine1": ("LowerBack", "abdomen"), "spine2": ("Spine",),
           "spine3": ("Spine1", "chest"), "neck": ("Neck", "neck"), "head": ("Head", "head")}
_SIDED = {"hip": ("UpLeg", "Thigh"), "knee": ("Leg", "Shin"), "ankle": ("Foot", "Foot"),
          "collar": ("Shoulder", "Collar"), "shoulder": ("Arm", "Shldr"),
          "elbow": ("ForeArm", "ForeArm"), "wrist": ("Hand", "Hand")}
_LIMBS = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist"}


class BvhError(PoseError):
    """A file that is no motion; the message names file, line or joint."""


class BvhMotion(NamedTuple):
    """N frames of a skeleton of B joints."""

    names: list[str]
    parents: list[int]
    offsets: np.ndarray  # (B, 3) from the parent at rest
    rotmats: np.ndarray  # (N, B, 3, 3) relative to the parent
    frame_s: float


def read_bvh(path: str | Path) -> BvhMotion:
    """Read a file. Raises BvhError if it is cut off or not a BVH file."""
    words = Path(path).read_text(errors="replace").split()
    try:
        return _read(words)
    except (IndexError, ValueError, KeyError) as error:
        raise BvhError(f"{path} is no BVH file, or cut off: {error!r}") from error


def _read(words: list[str]) -> BvhMotion:
    names, parents, offsets, channels = [], [], [], []
    open_joints, i = [], words.index("HIERARCHY")
    while words[i] != "MOTION":
        if words[i] in ("ROOT", "JOINT"):
            parents.append(open_joints[-1] if open_joints else -1)
            names.append(words[i + 1])
            open_joints.append(len(names) - 1)
        elif words[i] == "End":
            open_joints.append(-1)  # a fingertip: no joint
        elif words[i] == "OFFSET" and open_joints[-1] >= 0:
            offsets.append([float(w) for w in words[i + 1:i + 4]])
        elif words[i] == "CHANNELS":
            channels.append(words[i + 2:i + 2 + int(words[i + 1])])
        elif words[i] == "}":
            open_joints.pop()
        i += 1
    frames, frame_s = int(words[i + 2]), float(words[i + 5])
    values = np.array(words[i + 6:], float).reshape(frames, sum(map(len, channels)))
    return BvhMotion(names, parents, np.array(offsets), _rotations(channels, values), frame_s)


def _rotations(channels: list[list[str]], values: np.ndarray) -> np.ndarray:
    """(N, B, 3, 3) from angles in degrees, in each joint's own order of axes."""
    rotmats, column = np.empty((len(values), len(channels), 3, 3)), 0
    for joint, names in enumerate(channels):
        chosen = [k for k, name in enumerate(names) if name.endswith("rotation")]
        axes = "".join(names[k][0] for k in chosen)  # upper case: about turning axes
        angles = values[:, [column + k for k in chosen]]
        rotmats[:, joint] = Rotation.from_euler(axes, angles, degrees=True).as_matrix()
        column += len(names)
    return rotmats


def smpl_rotations(motion: BvhMotion) -> np.ndarray:
    """(N, 24, 3) rad, each SMPL joint's rotation vector relative to its parent.

    Raises BvhError if the skeleton is neither of the two known.
    """
    turned = motion.rotmats.copy()
    for joint, parent in enumerate(motion.parents):
        if parent >= 0:
            turned[:, joint] = turned[:, parent] @ turned[:, joint]
    accumulated = np.empty((len(turned), len(SMPL24), 3, 3))
    for joint, name in enumerate(SMPL24.names):
        row = _row(motion, name)
        if row is not None:
            accumulated[:, joint] = turned[:, row] @ _rest_rotation(motion, name)
        elif name == "pelvis":
            raise BvhError(f"joints {', '.join(motion.names[:5])} ...: no skeleton that is known")
        else:
            accumulated[:, joint] = accumulated[:, SMPL24.parents[joint]]
    parents = [max(parent, 0) for parent in SMPL24.parents]
    local = accumulated[:, parents].swapaxes(2, 3) @ accumulated
    local[:, 0] = accumulated[:, 0]
    return Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, len(SMPL24), 3)


def _row(motion: BvhMotion, joint: str) -> int | None:
    """The skeleton's joint for an SMPL joint."""
    side, _, part = joint.rpartition("_")
    names = _MIDDLE.get(joint, ())
    if part in _SIDED:
        builder, daz = _SIDED[part]
        names = (side.capitalize() + builder, side[0] + daz)
    return next((motion.names.index(name) for name in names if name in motion.names), None)


def _rest_rotation(motion: BvhMotion, joint: str) -> np.ndarray:
    """(3, 3) that turns SMPL's limb at rest into the skeleton's."""
    side, _, part = joint.rpartition("_")
    if part not in _LIMBS:
        return np.eye(3)
    child = f"{side}_{_LIMBS[part]}"
    here, there = _row(motion, joint), _row(motion, child)
    theirs, up = np.zeros(3), there
    while up != here:
        theirs, up = theirs + motion.offsets[up], motion.parents[up]
    rest = _rest_joints()
    ours = rest[SMPL24.index(child)] - rest[SMPL24.index(joint)]
    return Rotation.align_vectors(theirs[None], ours[None])[0].as_matrix()


@lru_cache
def _rest_joints() -> np.ndarray:
    """(24, 3) m the open body's joints in the T-pose."""
    return BodyModel.load().joints_rest(torch.zeros(1, 10))[0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="a trial each, named SUBJECT_TRIAL.bvh")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hz", type=float, default=10.0, help="poses a second that are kept")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    theta, sources = [], []
    for path in tqdm(args.files, unit="file"):
        motion = read_bvh(path)
        every = max(1, round(1 / (args.hz * motion.frame_s)))
        theta.append(smpl_rotations(motion._replace(rotmats=motion.rotmats[::every])))
        sources += [path.stem] * len(theta[-1])
    np.savez_compressed(args.out, theta=np.concatenate(theta).astype(np.float32),
                        src=np.array(sources))
    log.info("%s: %d poses of %d trials", args.out, len(sources), len(args.files))


if __name__ == "__main__":
    main()

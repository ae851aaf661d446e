"""SMPL-format body model: rest joints, posed joints, keypoints and vertices, batched in torch.

Model frame at rest: y up, facing +z, the person's left at +x. Camera frame: x right, y down,
z forward. Metres, quaternions x, y, z, w.
Source: Loper et al. 2015, SMPL: A Skinned Multi-Person Linear Model; without pose blend shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.joint_sets import joint_weights
from ros2_pose.body.smpl_file import BodyArrays, read_open_body, read_smpl_file
from ros2_pose.body.so3 import rotmat_from_quat
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

OPEN_BODY = Path(__file__).parent / "data" / "open_body.npz"


@dataclass(frozen=True)
class Rig:
    """Joints and K keypoints of a body without its mesh, linear in betas.

    A keypoint is a weighted sum of N points, each rigidly attached to one joint. That is exact: a
    keypoint is a weighted sum of vertices, and a skinned vertex is one of rigidly attached points.
    """

    rest: Tensor  # (24, 3) m, joints at betas = 0, pelvis at the origin
    rest_by_beta: Tensor  # (24, 3, 10)
    point_joint: Tensor  # (N,) index of the joint that a point is attached to
    point_share: Tensor  # (K, N) weights of the points in a keypoint; rows sum to 1
    offset: Tensor  # (N, 3) m from that joint, in its frame
    offset_by_beta: Tensor  # (N, 3, 10)

    def to(self, like: Tensor) -> Rig:
        """Return the same with the dtype and device of `like` (...)."""
        index = self.point_joint.to(like.device)
        moved = {name: getattr(self, name).to(like) for name in
                 ("rest", "rest_by_beta", "point_share", "offset", "offset_by_beta")}
        return replace(self, point_joint=index, **moved)

    def joints_rest(self, betas: Tensor) -> Tensor:
        """Return the joints (B, 24, 3) m in the T-pose for betas (B, 10)."""
        return self.rest + (self.rest_by_beta @ betas[:, None, :, None])[..., 0]

    @cached_property
    def parents(self) -> Tensor:
        """(24,) index of each joint's parent; the pelvis is its own parent."""
        return torch.tensor([max(p, 0) for p in SMPL24.parents], device=self.rest.device)

    @cached_property
    def bone_by_beta(self) -> Tensor:
        """(24, 3, 10) derivative by betas of the bone from the parent to each joint."""
        return self.rest_by_beta - self.rest_by_beta[self.parents]

    @cached_property
    def is_below(self) -> Tensor:
        """(24, 24) 1 where joint j (column) is joint i (row) or one of its descendants."""
        below = torch.eye(len(SMPL24))
        for child, parent in enumerate(SMPL24.parents):
            if parent >= 0:
                below[:, child] += below[:, parent]
        return below.to(self.rest)

    @cached_property
    def share_below(self) -> Tensor:
        """(K, 24, N) weight of each point in a keypoint; 0 for points not below joint i."""
        return self.point_share[:, None] * self.is_below[:, self.point_joint]

    @cached_property
    def share_below_flat(self) -> Tensor:
        """(K * 24, N) `share_below`, flattened."""
        return self.share_below.flatten(0, 1)

    @cached_property
    def share_below_sum(self) -> Tensor:
        """(K, 24, 1) weight of the part of a keypoint that is below joint i."""
        return self.share_below.sum(2)[..., None]


@dataclass(frozen=True)
class Posed:
    """Posed bodies in the camera frame."""

    global_rotmats: Tensor  # (P, 24, 3, 3) body part to camera
    joints: Tensor  # (P, 24, 3) m
    points: Tensor  # (P, N, 3) m, the rig's attached points
    keypoints: Tensor  # (P, K, 3) m, in the order of the rig's joint set
    vertices: Tensor | None = None  # (P, V, 3) m, the surface; None: not computed


class BodyModel(torch.nn.Module):
    """A body in SMPL's format: the shipped open body, or a user's SMPL file.

    Buffers, float32: template (V, 3) m, shapedirs (V, 3, 10), weights (V, 24), J_regressor (24, V),
    keypoint_regressor (17, V), keypoint_joints (17, 24), beta_std (10,) of adults.
    Buffers, int64: faces (F, 3), coarse_vertices (V',), coarse_faces (F', 3), parents (24,).
    """

    def __init__(self, arrays: BodyArrays) -> None:
        super().__init__()
        for name in ("template", "shapedirs", "weights", "J_regressor", "keypoint_regressor",
                     "keypoint_joints"):
            self.register_buffer(name, torch.as_tensor(getattr(arrays, name), dtype=torch.float32))
        self.register_buffer("beta_std", torch.as_tensor(arrays.beta_std, dtype=torch.float32))
        self.register_buffer("faces", torch.as_tensor(arrays.faces.astype(np.int64)))
        coarse, faces = np.unique(arrays.coarse_faces, return_inverse=True)
        self.register_buffer("coarse_vertices", torch.as_tensor(coarse))
        self.register_buffer("coarse_faces", torch.as_tensor(faces.reshape(-1, 3)))
        self.register_buffer("parents", torch.tensor(SMPL24.parents))
        self.register_buffer("origin", self.J_regressor[0] @ self.template)  # the pelvis
        self.register_buffer("origin_by_beta", torch.einsum("v,vxb->xb", self.J_regressor[0],
                                                            self.shapedirs))
        self._arrays = arrays
        self._rigs: dict[tuple, Rig] = {}

    @staticmethod
    def load(path: str | Path | None = None) -> BodyModel:
        """Load the shipped open body, or the user's SMPL file (.npz or .pkl)."""
        return BodyModel(read_open_body(OPEN_BODY) if path is None else read_smpl_file(path))

    @property
    def is_open(self) -> bool:
        """Whether betas are those of the open body, for which the networks were trained."""
        return len(self.coarse_faces) > 0

    @cached_property
    def stature(self) -> tuple[Tensor, Tensor]:
        """Height () m at betas = 0, and its derivative (10,) by betas."""
        top, sole = self.template[:, 1].argmax(), self.template[:, 1].argmin()
        by_beta = self.shapedirs[top, 1] - self.shapedirs[sole, 1]
        return self.template[top, 1] - self.template[sole, 1], by_beta

    def rig(self, like: Tensor, joint_set: JointSet = COCO17) -> Rig:
        """Return the rig of a joint set's keypoints, with dtype and device of `like` (...)."""
        key = (like.dtype, like.device, joint_set.name)
        if key not in self._rigs:
            self._rigs[key] = _fold(self._arrays, *joint_weights(self._arrays, joint_set)).to(like)
        return self._rigs[key]

    def joints_rest(self, betas: Tensor) -> Tensor:
        """Return joints (B, 24, 3) m in the T-pose for betas (B, 10); pelvis at the origin."""
        return self.rig(betas).joints_rest(betas)

    def forward(self, theta: Tensor, betas: Tensor, root: Tensor | None = None,
                with_vertices: bool = True) -> Posed:
        """Pose the body.

        Args:
            theta (B, 24, 4): unit quaternions x, y, z, w of each joint relative to its parent;
                theta[:, 0] rotates body to camera (facing the camera: diag(1, -1, -1)).
            betas (B, 10).
            root (B, 3): m, the pelvis in the camera frame; None: the origin.
        Returns:
            Posed with keypoints (B, 17, 3) m in COCO order.
        """
        rig = self.rig(betas)
        rest = self.joints_rest(betas)
        global_rotmats = global_rotmats_of(rotmat_from_quat(theta))
        joints = joints_from_rotmats(rig, global_rotmats, rest)
        joints = joints if root is None else joints + root[:, None]
        points = attached_points(rig, betas, global_rotmats, joints)
        vertices = self._skin(betas, rest, global_rotmats, joints) if with_vertices else None
        return Posed(global_rotmats, joints, points, rig.point_share @ points, vertices)

    def coarse_surface(self, theta: Tensor, betas: Tensor, root: Tensor) -> Tensor:
        """Pose the vertices of the coarse surface only.

        Args:
            theta (B, 24, 4), betas (B, 10), root (B, 3) m: see `forward`.
        Returns:
            (B, V', 3) m, the vertices that coarse_faces (F', 3) index; V' = 0 for SMPL files.
        """
        rest = self.joints_rest(betas)
        global_rotmats = global_rotmats_of(rotmat_from_quat(theta))
        joints = joints_from_rotmats(self.rig(betas), global_rotmats, rest) + root[:, None]
        return self._skin(betas, rest, global_rotmats, joints, self.coarse_vertices)

    def _skin(self, betas: Tensor, rest: Tensor, global_rotmats: Tensor, joints: Tensor,
              chosen: Tensor | slice = slice(None)) -> Tensor:
        """Vertices (B, V, 3) m by linear blend skinning (Loper et al. 2015, eq. 2)."""
        shapedirs, weights = self.shapedirs[chosen].to(betas), self.weights[chosen].to(betas)
        shaped = self.template[chosen].to(betas) - self.origin.to(betas)
        growth = shapedirs - self.origin_by_beta.to(betas)
        shaped = shaped + torch.einsum("vxb,nb->nvx", growth, betas)
        shifts = joints - torch.einsum("njxy,njy->njx", global_rotmats, rest)
        matrices = torch.einsum("vj,njxy->nvxy", weights, global_rotmats)
        return torch.einsum("nvxy,nvy->nvx", matrices, shaped) + weights @ shifts


def global_rotmats_of(rotmats: Tensor) -> Tensor:
    """Accumulate rotations along the tree.

    Args:
        rotmats (B, 24, 3, 3): each joint relative to its parent; [0]: body to camera.
    Returns:
        (B, 24, 3, 3) body part to camera.
    """
    levels = [rotmats[:, :1]]
    for children, parents in _LEVELS:
        levels.append(levels[-1][:, parents] @ rotmats[:, children])
    return torch.cat(levels, 1)


def joints_from_rotmats(rig: Rig, global_rotmats: Tensor, rest: Tensor) -> Tensor:
    """Return posed joints relative to the pelvis: each is the sum of the bones that lead to it.

    Args:
        global_rotmats (B, 24, 3, 3): body part to camera.
        rest (B, 24, 3): m, joints in the T-pose.
    Returns:
        (B, 24, 3) m.
    """
    bones = rest - rest[:, rig.parents]
    return rig.is_below.T @ (global_rotmats[:, rig.parents] @ bones[..., None])[..., 0]


def attached_points(rig: Rig, betas: Tensor, global_rotmats: Tensor, joints: Tensor) -> Tensor:
    """Return a rig's points (B, N, 3) m, attached to posed joints.

    Args:
        betas (B, 10).
        global_rotmats (B, 24, 3, 3): body part to camera.
        joints (B, 24, 3): m, posed.
    """
    offset = rig.offset + (rig.offset_by_beta @ betas[:, None, :, None])[..., 0]
    moved = (global_rotmats[:, rig.point_joint] @ offset[..., None])[..., 0]
    return joints[:, rig.point_joint] + moved


def _tree_levels() -> list[tuple[slice, slice | list[int]]]:
    """For each depth of the tree from the hips outwards, its joints and their parents.

    The joints of a depth are consecutive in SMPL's order: a slice. Their parents are indices among
    the joints of the depth before, a slice where they are consecutive.
    """
    levels: list[tuple[slice, slice | list[int]]] = []
    before = range(1)
    while before.stop < len(SMPL24):
        children = [c for c, p in enumerate(SMPL24.parents) if p in before]
        parents = [SMPL24.parents[c] - before.start for c in children]
        consecutive = slice(parents[0], parents[0] + len(parents))
        is_consecutive = parents == list(range(consecutive.start, consecutive.stop))
        before = range(children[0], children[-1] + 1)
        levels.append((slice(before.start, before.stop),
                       consecutive if is_consecutive else parents))
    return levels


_LEVELS = _tree_levels()


def _fold(body: BodyArrays, by_vertex: np.ndarray, by_joint: np.ndarray) -> Rig:
    """Fold skinning weights and keypoints (see `joint_weights`) into points attached to joints.

    keypoint = sum_v r_v sum_j w_vj (G_j (v - J_j) + P_j) = sum_j c_j (P_j + G_j offset_j) with
    c_j = sum_v r_v w_vj and offset_j = sum_v r_v w_vj v / c_j - J_j, all linear in betas.
    """
    # Last axis: the value at betas = 0, then the derivatives by the ten betas.
    vertices = np.concatenate([body.template[..., None], body.shapedirs], -1).astype(np.float64)
    rest = np.einsum("jv,vxb->jxb", body.J_regressor, vertices)
    shares = np.einsum("kv,vj->kvj", by_vertex, body.weights)
    total = shares.sum(1) + by_joint
    keypoint, joint = np.nonzero(np.abs(total) > 1e-7)  # weights may be negative
    means = np.einsum("nv,vxb->nxb", shares[keypoint, :, joint], vertices)
    means += by_joint[keypoint, joint][:, None, None] * rest[joint]
    offset = means / total[keypoint, joint][:, None, None] - rest[joint]
    point_share = np.zeros((len(total), len(joint)))
    point_share[keypoint, np.arange(len(joint))] = total[keypoint, joint]
    rest = rest - rest[:1]
    return Rig(
        rest=torch.as_tensor(rest[..., 0]),
        rest_by_beta=torch.as_tensor(rest[..., 1:]),
        point_joint=torch.as_tensor(joint),
        point_share=torch.as_tensor(point_share),
        offset=torch.as_tensor(offset[..., 0]),
        offset_by_beta=torch.as_tensor(offset[..., 1:]),
    )

"""SMPL-format body model: rest joints, posed joints, keypoints and vertices, batched in torch.

Model frame at rest: y up, facing +z, the person's left at +x. Camera frame: x right, y down,
z forward. Metres, quaternions x, y, z, w.
Source: Loper et al. 2015, SMPL: A Skinned Multi-Person Linear Model; without pose blend shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.joint_sets import joint_weights
from ros2_pose.body.smpl_file import BodyArrays, read_open_body, read_smpl_file
from ros2_pose.body.so3 import rotmat_from_quat
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

OPEN_BODY = Path(__file__).parent / "data" / "open_body.npz"


JOINTS = slice(0, len(SMPL24))  # the first landmarks of a rig
KEYPOINTS = slice(len(SMPL24), None)  # the others


@dataclass(frozen=True, eq=False)
class Rig:
    """Landmarks of a body without its mesh: 24 joints, then K keypoints; M = 24 + K.

    A landmark's position relative to the pelvis is a sum of one part for each joint that leads to
    it. A part keeps its coordinates in the axes of its joint, and is linear in betas. That is
    exact: a joint is a sum of bones, a keypoint is a weighted sum of vertices, and a skinned vertex
    is one of points that are rigidly attached to joints.
    """

    rest: Tensor  # (24, 3) m, joints at betas = 0, pelvis at the origin
    rest_by_beta: Tensor  # (24, 3, 10)
    parts: Tensor  # (24, 3, M) m at betas = 0, in each joint's axes
    parts_by_beta: Tensor  # (10, 24, 3, M)

    def to(self, like: Tensor) -> Rig:
        """Return the same with the dtype and device of `like` (...)."""
        return Rig(*(getattr(self, field.name).to(like) for field in fields(self)))

    def joints_rest(self, betas: Tensor) -> Tensor:
        """Return the joints (B, 24, 3) m in the T-pose for betas (B, 10)."""
        return self.rest + (self.rest_by_beta @ betas[:, None, :, None])[..., 0]

    def posed(self, rotmats: Tensor, betas: Tensor, root: Tensor | None = None) -> Posed:
        """Pose the landmarks.

        Args:
            rotmats (B, 24, 3, 3): rotation of each joint relative to its parent; [0]: body to
                camera.
            betas (B, 10).
            root (B, 3): m, the pelvis in the camera frame; None: the origin.
        """
        global_rotmats = global_rotmats_of(rotmats)
        flat = torch.addmm(self.parts.flatten(), betas, self.parts_by_beta.flatten(1))
        parts = flat.view(-1, *self.parts.shape)
        # The matrices side by side, (B, 3, 72): their product with the parts sums over joints.
        landmarks = (global_rotmats.transpose(1, 2).flatten(2) @ parts.flatten(1, 2)).mT
        return Posed(global_rotmats, landmarks if root is None else landmarks + root[:, None])


@dataclass(frozen=True)
class Posed:
    """Posed bodies in the camera frame."""

    global_rotmats: Tensor  # (P, 24, 3, 3) body part to camera
    landmarks: Tensor  # (P, 24 + K, 3) m, the joints and the rig's keypoints
    vertices: Tensor | None = None  # (P, V, 3) m, the surface; None: not computed

    @property
    def joints(self) -> Tensor:
        """(P, 24, 3) m."""
        return self.landmarks[:, JOINTS]

    @property
    def keypoints(self) -> Tensor:
        """(P, K, 3) m, in the order of the rig's joint set."""
        return self.landmarks[:, KEYPOINTS]


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
        # The pelvis. By NumPy: torch's sums over vertices depend on the number of threads.
        pelvis = np.asarray(arrays.J_regressor[0], np.float32)
        for name, by_vertex in (("origin", arrays.template), ("origin_by_beta", arrays.shapedirs)):
            rest = np.einsum("v,v...->...", pelvis, np.asarray(by_vertex, np.float32))
            self.register_buffer(name, torch.as_tensor(rest))
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
        posed = self.rig(betas).posed(rotmat_from_quat(theta), betas, root)
        return replace(posed, vertices=self._skin(betas, posed)) if with_vertices else posed

    def coarse_surface(self, theta: Tensor, betas: Tensor, root: Tensor) -> Tensor:
        """Pose the vertices of the coarse surface only.

        Args:
            theta (B, 24, 4), betas (B, 10), root (B, 3) m: see `forward`.
        Returns:
            (B, V', 3) m, the vertices that coarse_faces (F', 3) index; V' = 0 for SMPL files.
        """
        posed = self.rig(betas).posed(rotmat_from_quat(theta), betas, root)
        return self._skin(betas, posed, self.coarse_vertices)

    def _skin(self, betas: Tensor, posed: Posed, chosen: Tensor | slice = slice(None)) -> Tensor:
        """Vertices (B, V, 3) m by linear blend skinning (Loper et al. 2015, eq. 2)."""
        shapedirs, weights = self.shapedirs[chosen].to(betas), self.weights[chosen].to(betas)
        shaped = self.template[chosen].to(betas) - self.origin.to(betas)
        growth = shapedirs - self.origin_by_beta.to(betas)
        shaped = shaped + torch.einsum("vxb,nb->nvx", growth, betas)
        rest = self.joints_rest(betas)
        shifts = posed.joints - torch.einsum("njxy,njy->njx", posed.global_rotmats, rest)
        matrices = torch.einsum("vj,njxy->nvxy", weights, posed.global_rotmats)
        return torch.einsum("nvxy,nvy->nvx", matrices, shaped) + weights @ shifts


def global_rotmats_of(rotmats: Tensor) -> Tensor:
    """Accumulate rotations along the tree.

    Args:
        rotmats (B, 24, 3, 3): each joint relative to its parent; [0]: body to camera.
    Returns:
        (B, 24, 3, 3) body part to camera.
    """
    levels = [rotmats[:, :1]]
    for children, parents in tree_levels(rotmats.device):
        before = levels[-1]
        is_slice = isinstance(parents, slice)
        above = before[:, parents] if is_slice else before.index_select(1, parents)
        levels.append(above @ rotmats[:, children])
    return torch.cat(levels, 1)


@lru_cache
@torch.inference_mode(False)  # the indices may take part in training later
def tree_levels(device: torch.device) -> list[tuple[slice, slice | Tensor]]:
    """Return the joints of each depth of the tree, from the hips outwards, and their parents.

    The joints of a depth are consecutive in SMPL's order: a slice. Their parents are indices among
    the joints of the depth before: a slice where they are consecutive, or one and the same.
    """
    levels: list[tuple[slice, slice | Tensor]] = []
    before = range(1)
    while before.stop < len(SMPL24):
        children = [c for c, p in enumerate(SMPL24.parents) if p in before]
        parents = [SMPL24.parents[c] - before.start for c in children]
        used = slice(parents[0], parents[-1] + 1)
        is_slice = parents == [*range(used.start, used.stop)] or len({*parents}) == 1
        before = range(children[0], children[-1] + 1)
        levels.append((slice(before.start, before.stop),
                       used if is_slice else torch.tensor(parents, device=device)))
    return levels


def is_below() -> np.ndarray:
    """Return (24, 24) 1 where joint j (column) is joint i (row) or one of its descendants."""
    below = np.eye(len(SMPL24))
    for child, parent in enumerate(SMPL24.parents):
        if parent >= 0:
            below[:, child] += below[:, parent]
    return below


def _fold(body: BodyArrays, by_vertex: np.ndarray, by_joint: np.ndarray) -> Rig:
    """Fold skinning weights and keypoints (see `joint_weights`) into the parts of a rig.

    keypoint = sum_v r_v sum_j w_vj (G_j (v - J_j) + P_j) = sum_j (G_j offset_j + c_j P_j) with
    c_j = sum_v r_v w_vj and offset_j = sum_v r_v w_vj (v - J_j), all linear in betas; P_j is the
    posed joint: the sum of the bones that lead to it, each in the axes of its parent.
    """
    # Last axis: the value at betas = 0, then the derivatives by the ten betas.
    vertices = np.concatenate([body.template[..., None], body.shapedirs], -1).astype(np.float64)
    rest = np.einsum("jv,vxb->jxb", body.J_regressor, vertices)
    shares = np.einsum("kv,vj->kvj", by_vertex, body.weights)
    total = shares.sum(1) + by_joint
    offset = np.einsum("kvj,vxb->jxkb", shares, vertices)
    offset -= np.einsum("kj,jxb->jxkb", shares.sum(1), rest)
    rest = rest - rest[:1]
    parents = np.maximum(SMPL24.parents, 0)  # the pelvis is its own parent, by a bone of length 0
    bones = rest - rest[parents]
    of_joints = np.einsum("ni,nj,nxb->ixjb", np.eye(len(SMPL24))[parents], is_below(), bones)
    of_keypoints = offset + np.einsum("kj,ixjb->ixkb", total, of_joints)
    parts = torch.as_tensor(np.concatenate([of_joints, of_keypoints], 2))
    return Rig(
        rest=torch.as_tensor(rest[..., 0]),
        rest_by_beta=torch.as_tensor(rest[..., 1:]),
        parts=parts[..., 0].contiguous(),
        parts_by_beta=parts[..., 1:].permute(3, 0, 1, 2).contiguous(),
    )

"""Collects the surfaces of a scene, renders them, and looks up what each sample shows.

World frame, metres. The image is rendered with `SUPERSAMPLING` samples per pixel along each axis.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.appearance import Appearance
from ros2_pose.data.synthetic.materials import Material
from ros2_pose.data.synthetic.rasterizer import barycentric, rasterise, vertex_normals
from ros2_pose.data.synthetic.scene import Layout, Mesh

SUPERSAMPLING = 2
BACKGROUND = -1  # owner of a sample without a surface
_NEAR_PLANE_M = 0.1


class Surfaces(NamedTuple):
    """All surfaces of a scene as one mesh; owners are people first, then objects."""

    vertices: np.ndarray  # (V, 3) float32 m
    faces: np.ndarray  # (F, 3) int64 vertex indices
    normals: np.ndarray  # (V, 3) float32 unit
    local: np.ndarray  # (V, 3) float32 m, the coordinates that patterns stick to
    owner: np.ndarray  # (F,) row in materials
    materials: list[Appearance | Material]
    noise: np.ndarray  # see `noise_table`


class SurfaceSamples(NamedTuple):
    """The N samples of the supersampled image that show a surface."""

    sample: np.ndarray  # (N,) row * width + column
    owner: np.ndarray  # (N,)
    depth: np.ndarray  # (N,) m along the optical axis
    points: np.ndarray  # (N, 3) m
    normals: np.ndarray  # (N, 3) unit
    local: np.ndarray  # (N, 3) m

    def maps(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Owner and depth (m) of each sample, (2H, 2W), of an image of size (W, H)."""
        shape = (size[1] * SUPERSAMPLING, size[0] * SUPERSAMPLING)
        owner, depth = np.full(shape, BACKGROUND), np.full(shape, np.inf, np.float32)
        owner.flat[self.sample] = self.owner
        depth.flat[self.sample] = self.depth
        return owner, depth

    def albedo(self, surfaces: Surfaces) -> np.ndarray:
        """(N, 3) linear RGB."""
        colour = np.empty((len(self.sample), 3), np.float32)
        for number, material in enumerate(surfaces.materials):
            rows = np.flatnonzero(self.owner == number)
            if len(rows):
                colour[rows] = material.albedo(self.local[rows], surfaces.noise)
        return np.clip(colour, 0, 1)


def collect_surfaces(layout: Layout, appearances: list[Appearance], materials: list[Material],
                     faces: Tensor, rest_vertices: np.ndarray, noise: np.ndarray) -> Surfaces:
    """Dress people and join them with the objects to one mesh.

    Args:
        appearances: of each person. materials: of each object.
        faces (F, 3): of the body model. rest_vertices (V, 3): m, its rest coordinates.
        noise: see `noise_table`.
    """
    meshes, normals = [], []
    for appearance, bare in zip(appearances, layout.vertices):
        normal = vertex_normals(torch.from_numpy(bare), faces).numpy()
        thickness = appearance.thickness(rest_vertices, noise).astype(np.float32)
        dressed = bare + thickness[:, None] * normal
        meshes.append(Mesh(dressed, faces.numpy(), rest_vertices))
        normals.append(normal)
    for mesh in layout.objects:
        meshes.append(mesh)
        normals.append(vertex_normals(torch.from_numpy(mesh.vertices),
                                      torch.from_numpy(mesh.faces)).numpy())
    first_vertex = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Surfaces(
        vertices=_stacked([mesh.vertices for mesh in meshes], np.float32),
        faces=_stacked([mesh.faces + first for mesh, first in zip(meshes, first_vertex)], np.int64),
        normals=_stacked(normals, np.float32),
        local=_stacked([mesh.local for mesh in meshes], np.float32),
        owner=np.repeat(np.arange(len(meshes)), [len(mesh.faces) for mesh in meshes]),
        materials=[*appearances, *materials],
        noise=noise)


def _stacked(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    """(N, 3) of arrays (N_i, 3), of which there may be none."""
    return np.concatenate([np.zeros((0, 3)), *parts]).astype(dtype)


def render(surfaces: Surfaces, camera: Camera, to_camera: np.ndarray,
           device: str) -> SurfaceSamples:
    """Find what each sample of the supersampled image shows.

    Args:
        to_camera (3, 3): rotation from the world to the camera frame.
        device: on which the triangles are drawn.
    """
    camera = camera.resized(camera.width * SUPERSAMPLING, camera.height * SUPERSAMPLING)
    faces = torch.from_numpy(surfaces.faces).to(device)
    projection = torch.from_numpy(camera.K @ to_camera).float().to(device)
    homogeneous = torch.from_numpy(surfaces.vertices).to(device) @ projection.T
    depth = homogeneous[:, 2]
    nearness = 1 / depth.where(depth > _NEAR_PLANE_M, -1.0)
    pixels = homogeneous[:, :2] * nearness[:, None]
    sample, face, nearest = rasterise(pixels, nearness, faces, camera.width, camera.height)
    shares = barycentric(sample, face, pixels, nearness, faces, camera.width)
    corners = faces[face]

    def interpolated(vertex_values: np.ndarray) -> Tensor:
        values = torch.from_numpy(vertex_values).to(device)
        a, b, c = (shares[:, k, None] * values[corners[:, k]] for k in range(3))
        return a + b + c

    normals = torch.nn.functional.normalize(interpolated(surfaces.normals), dim=1)
    return SurfaceSamples(
        sample=sample.cpu().numpy(),
        owner=surfaces.owner[face.cpu().numpy()],
        depth=(1 / nearest).cpu().numpy(),
        points=interpolated(surfaces.vertices).cpu().numpy(),
        normals=normals.cpu().numpy(),
        local=interpolated(surfaces.local).cpu().numpy())

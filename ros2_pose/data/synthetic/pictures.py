"""Endless synthetic pictures of people with exact truth: what networks learn to see from.

    python -m ros2_pose.data.synthetic.pictures --mocap cmu_theta_10hz.npz --out sheet.jpg

Bodies of the body model in poses from motion capture stand on one floor before a camera as robots
carry them, dressed and lit at random, and hide each other as a z-buffer says. Picture number i of a
seed is the same everywhere, whoever makes it: nothing needs to be stored.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ros2_pose.body.model import BodyModel
from ros2_pose.data.sample import HIDDEN, OUTSIDE, VISIBLE, Sample
from ros2_pose.data.synthetic.appearance import Appearance, Landmarks
from ros2_pose.data.synthetic.backgrounds import backdrop, picture_files
from ros2_pose.data.synthetic.bodies import BodySampler, read_poses
from ros2_pose.data.synthetic.lighting import Light, Shadows
from ros2_pose.data.synthetic.materials import Material, noise_table
from ros2_pose.data.synthetic.rasterizer import barycentric, rasterise, vertex_normals
from ros2_pose.data.synthetic.scene import Layout, arrange, random_camera
from ros2_pose.data.synthetic.sensor import photographed
from ros2_pose.draw import beside, overlay
from ros2_pose.geometry import quat_from_rotmat
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import SMPL24

log = logging.getLogger(__name__)

_FINE = 2  # samples a pixel along each axis
# In the truth is who shows a keypoint and so many px, or without one such a share of the image.
_LEAST_PX, _LEAST_SHARE = 12, 0.005
_NOBODY = -1
_RIM_PX = 0.5  # backgrounds have one sample a pixel: their edges are softened
_FACE = 5  # the first of COCO's keypoints


class SyntheticPictures(IterableDataset):
    """Pictures without end: `pictures[i]`, or iterate; a loader's workers share the numbers out.

    poses: (N, 24, 3) rotation vectors as of `read_poses`. size: width and height, px.
    backgrounds: a folder of pictures, of which none may show people (they would be taught to be
    none), in which half of the scenes take place. people: how many in each scene at most, instead
    of 0 to 6. device: where triangles are drawn.
    """

    def __init__(self, poses: Tensor, seed: int = 0, size: tuple[int, int] = (256, 256),
                 backgrounds: str | Path | None = None, people: int | None = None,
                 model: BodyModel | None = None, device: str = "cpu") -> None:
        self.model = BodyModel.load() if model is None else model
        self.poses, self.seed, self.size, self.people, self.device = \
            poses, seed, size, people, device
        self.photos = [] if backgrounds is None else picture_files(backgrounds)
        self._marks = Landmarks.of(self.model)
        self._rest = _rest_vertices(self.model)
        self._depth_of_keypoints = _depth_below_skin(self.model)

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        number, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        while True:
            yield self[number]
            number += step

    def __getitem__(self, number: int) -> Sample:
        rng = np.random.default_rng((self.seed, number))
        random = torch.Generator().manual_seed(int(rng.integers(2**62)))
        camera = random_camera(rng, *self.size)
        layout = arrange(self.model, BodySampler(self.model, self.poses, random), rng, camera,
                         self.people)
        dressed = self._dressed(layout, rng)
        seen = _seen(dressed, layout, self.device)
        light = self._light(dressed, seen, layout, rng)
        frame = Frame(photographed(light, rng), camera)
        return self._with_truth(frame, layout, seen)

    def _dressed(self, layout: Layout, rng: np.random.Generator) -> _Dressed:
        """Everything in the scene as one surface."""
        table, faces = noise_table(rng), self.model.faces
        looks = [Appearance.draw(rng, self._marks) for _ in layout.vertices]
        meshes, normals = [], []
        for look, naked in zip(looks, torch.from_numpy(layout.vertices)):
            normal = vertex_normals(naked, faces).numpy()
            off = look.thickness(self._rest, table).astype(np.float32)[:, None]
            meshes.append((naked.numpy() + off * normal, faces.numpy(), self._rest))
            normals.append(normal)
        for thing in layout.objects:
            meshes.append(thing)
            normals.append(vertex_normals(*map(torch.from_numpy, thing[:2])).numpy())
        materials = [*looks, *(Material.draw(rng, plain=0.4) for _ in layout.objects)]
        return _joined(meshes, normals, materials, table)

    def _light(self, dressed: _Dressed, seen: _Seen, layout: Layout,
               rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) linear RGB."""
        light = Light.draw(rng)
        shadows = Shadows(dressed.vertices, dressed.faces, light.sun, self.device) \
            if len(dressed.faces) else None
        back = _background(layout, light, shadows, self.photos, rng)
        if not len(seen.pixel):
            return back
        lit = shadows.lit(seen.points)
        colour = dressed.albedo(seen) * light.falling(seen.normals, lit)
        width, height = self.size
        front = np.zeros((height * _FINE * width * _FINE, 4), np.float32)
        front[seen.pixel, :3], front[seen.pixel, 3] = colour, 1
        front = cv2.resize(front.reshape(height * _FINE, width * _FINE, 4), (width, height),
                           interpolation=cv2.INTER_AREA)
        return front[..., :3] + (1 - front[..., 3:]) * back

    def _with_truth(self, frame: Frame, layout: Layout, seen: _Seen) -> Sample:
        """The people of whom something is seen."""
        rotmat = torch.from_numpy(layout.to_camera).float()
        rotmats = layout.rotmats.clone()
        rotmats[:, 0] = rotmat @ rotmats[:, 0]
        theta, root = quat_from_rotmat(rotmats), layout.root @ layout.to_camera.T
        body = self.model(theta, layout.betas, torch.from_numpy(root).float(), False)
        owner, depth = seen.maps(self.size)
        boxes = np.array([_box(owner == i) for i in range(len(root))]).reshape(-1, 4)
        positions = body.keypoints.numpy().astype(float)
        keypoints = frame.camera.project(positions)
        visibility = _visibility(keypoints, positions[..., 2], owner, depth,
                                 self._depth_of_keypoints)
        area = np.bincount(owner[owner >= 0], minlength=len(root))[:len(root)] / _FINE**2
        rows = np.flatnonzero((area >= _LEAST_PX) & (visibility == VISIBLE).any(1)
                              | (area >= _LEAST_SHARE * self.size[0] * self.size[1]))
        people = People(boxes, np.ones(len(root)), keypoints,
                        np.zeros((*keypoints.shape, 2)), visibility,
                        joints=body.joints.numpy().astype(float), theta=theta.numpy().astype(float),
                        betas=layout.betas.numpy().astype(float), root=root)
        return Sample.whole(frame, people[rows])


# ---------------------------------------------------------------------------------- surfaces


class _Dressed(NamedTuple):
    """All surfaces, world frame; owner: people first, then things."""

    vertices: np.ndarray  # (V, 3) float32 m
    faces: np.ndarray  # (F, 3) int64
    normals: np.ndarray  # (V, 3)
    local: np.ndarray  # (V, 3) m, what patterns stick to
    owner: np.ndarray  # (F,)
    materials: list  # Look of each of the people, Cloth of each thing
    noise: np.ndarray

    def albedo(self, seen: _Seen) -> np.ndarray:
        """(N, 3) of what is seen."""
        colour = np.empty((len(seen.pixel), 3), np.float32)
        for number, material in enumerate(self.materials):
            rows = np.flatnonzero(seen.owner == number)
            far = () if isinstance(material, Appearance) else (np.inf,)
            if len(rows):
                colour[rows] = material.albedo(seen.local[rows], self.noise, *far)
        return np.clip(colour, 0, 1)


def _joined(meshes, normals, materials, noise) -> _Dressed:
    starts = np.cumsum([0, *(len(vertices) for vertices, _, _ in meshes)])
    faces = [faces + start for (_, faces, _), start in zip(meshes, starts)]
    owner = np.repeat(np.arange(len(meshes)), [len(f) for f in faces])

    def stack(parts, dtype=np.float32):
        return np.concatenate([np.zeros((0, 3)), *parts]).astype(dtype)

    return _Dressed(stack([m[0] for m in meshes]), stack(faces, np.int64), stack(normals),
                    stack([m[2] for m in meshes]), owner, materials, noise)


class _Seen(NamedTuple):
    """The N samples of the finer image that show a surface."""

    pixel: np.ndarray  # (N,) row * width + column
    owner: np.ndarray  # (N,)
    depth: np.ndarray  # (N,) m along the optical axis
    points: np.ndarray  # (N, 3) m, world frame
    normals: np.ndarray  # (N, 3) unit
    local: np.ndarray  # (N, 3) m

    def maps(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """(2H, 2W) whose surface each sample shows, and its depth, m."""
        shape = (size[1] * _FINE, size[0] * _FINE)
        owner, depth = np.full(shape, _NOBODY), np.full(shape, np.inf, np.float32)
        owner.flat[self.pixel], depth.flat[self.pixel] = self.owner, self.depth
        return owner, depth


def _seen(dressed: _Dressed, layout: Layout, device: str) -> _Seen:
    """Draw the triangles."""
    camera = layout.camera.resized(layout.camera.width * _FINE, layout.camera.height * _FINE)
    faces = torch.from_numpy(dressed.faces).to(device)
    rotmat = torch.from_numpy(camera.K @ layout.to_camera).float().to(device)
    positions = torch.from_numpy(dressed.vertices).to(device)
    image = positions @ rotmat.T
    nearness = 1 / image[:, 2].where(image[:, 2] > 0.1, -1.0)
    pixels = image[:, :2] * nearness[:, None]
    hits = rasterise(pixels, nearness, faces, camera.width, camera.height)
    shares = barycentric(hits, pixels, nearness, faces, camera.width)
    corners = faces[hits.face]

    def mixed(values: np.ndarray) -> Tensor:
        values = torch.from_numpy(values).to(device)
        return sum(shares[:, k, None] * values[corners[:, k]] for k in range(3))

    normals = torch.nn.functional.normalize(mixed(dressed.normals), dim=1)
    tensors = (hits.pixel, hits.face, 1 / hits.nearness, mixed(dressed.vertices), normals,
               mixed(dressed.local))
    pixel, face, *others = (t.cpu().numpy() for t in tensors)
    return _Seen(pixel, dressed.owner[face], *others)


def _background(layout: Layout, light: Light, shadows: Shadows | None, photos: list[Path],
                rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) linear RGB, shadows on it."""
    camera = layout.camera
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = camera.normalise(np.stack([x, y], -1))
    rays = np.concatenate([rays, np.ones_like(rays[..., :1])], -1) @ layout.to_camera
    back = backdrop(rng, rays.astype(np.float32), layout.height, layout.extent_m, photos)
    has_surface = back.normals.any(-1)
    lit = np.ones(has_surface.shape, np.float32)
    if shadows is not None:
        lit[has_surface] = shadows.lit(back.points[has_surface])
    if back.lit:
        falling = np.where(has_surface[..., None], light.falling(back.normals, lit), 1)
    else:
        falling = (1 - rng.uniform(0.2, 0.6) * (1 - lit))[..., None]
    return cv2.GaussianBlur(np.float32(back.colour * falling), (3, 3), _RIM_PX)


# ---------------------------------------------------------------------------------- truth


def _rest_vertices(model: BodyModel) -> np.ndarray:
    """(V, 3) float32 m the mean body in the T-pose, pelvis at the origin."""
    return (model.template - model.origin).numpy()


def _depth_below_skin(model: BodyModel) -> np.ndarray:
    """(17,) m how far the surface before a keypoint may be from it and still be that joint's."""
    theta = torch.tensor([0.0, 0, 0, 1]).repeat(1, len(SMPL24), 1)
    body = model(theta, torch.zeros(1, 10))
    nearest = torch.cdist(body.keypoints[0], body.vertices[0]).amin(1)
    return np.where(np.arange(len(nearest)) < _FACE, 0.035, 0.06) + 1.8 * nearest.numpy()


def _visibility(keypoints: np.ndarray, z: np.ndarray, owner: np.ndarray, depth: np.ndarray,
                allowed: np.ndarray) -> np.ndarray:
    """(P, 17) of keypoints (P, 17, 2) px at depths z (P, 17) m in maps of finer images."""
    height, width = owner.shape
    cells = np.floor(np.nan_to_num(keypoints, nan=-1e6).clip(-1e6, 1e6) * _FINE).astype(int)
    column, row = cells[..., 0], cells[..., 1]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    is_own = owner[row, column] == np.arange(len(keypoints))[:, None]
    seen = depth[row, column] > z - np.where(is_own, allowed, 0.0)
    return np.where(inside, np.where(seen, VISIBLE, HIDDEN), OUTSIDE)


def _box(mask: np.ndarray) -> tuple[float, float, float, float]:
    """x min, y min, x max, y max px around a finer image's mask; NaN if it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return (np.nan,) * 4
    return (columns[0] / _FINE, rows[0] / _FINE, (columns[-1] + 1) / _FINE,
            (rows[-1] + 1) / _FINE)


# ---------------------------------------------------------------------------------- to look at


def sheet(scenes: list[Sample], columns: int = 4, scale: int = 2) -> np.ndarray:
    """(H, W, 3) uint8 RGB: each picture and, beside it, the truth; hidden keypoints are dotted."""
    cells = [beside(_enlarged(scene.frame.image, scale), _explained(scene, scale))
             for scene in scenes]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.concatenate([np.concatenate(cells[i:i + columns], 1)
                           for i in range(0, len(cells), columns)])


def _enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _explained(scene: Sample, scale: int) -> np.ndarray:
    people = scene.people
    larger = people.with_fields(boxes=people.boxes * scale, keypoints=people.keypoints * scale)
    canvas = overlay(_enlarged(scene.frame.image, scale), larger)
    for x, y in larger.keypoints[people.keypoint_scores == HIDDEN]:
        cv2.circle(canvas, (int(x), int(y)), 3, (0, 0, 0), -1)
    return canvas


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocap", required=True, help="npz with theta (N, 24, 3) and src (N,)")
    parser.add_argument("--out", type=Path, required=True, help="the contact sheet")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), help="px")
    parser.add_argument("--backgrounds", type=Path, help="a folder of pictures without people")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pictures = SyntheticPictures(read_poses(args.mocap), args.seed, tuple(args.size),
                                 args.backgrounds, device=args.device)
    pictures[0]  # what happens once is not timed
    start = time.perf_counter()
    scenes = [pictures[i] for i in range(args.count)]
    rate = args.count / (time.perf_counter() - start)
    cv2.imwrite(str(args.out), sheet(scenes)[..., ::-1])
    log.info("%s: %.1f pictures a second on %s, %d torch threads", args.out, rate, args.device,
             torch.get_num_threads())


if __name__ == "__main__":
    main()

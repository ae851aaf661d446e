"""Endless synthetic pictures of people with exact truth, to train networks on.

    python -m ros2_pose.data.synthetic.pictures --mocap cmu_theta_10hz.npz --out sheet.jpg

Bodies of the body model in poses from motion capture stand on one floor before a camera as robots
carry them, dressed and lit at random, and hide each other as a z-buffer says. Picture number i of a
seed is the same on every machine and in every process: nothing needs to be stored.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import quat_from_rotmat
from ros2_pose.camera import Camera
from ros2_pose.data.sample import HIDDEN, OUTSIDE, VISIBLE, Sample
from ros2_pose.data.synthetic.appearance import Appearance, Landmarks
from ros2_pose.data.synthetic.backgrounds import draw_backdrop, picture_files
from ros2_pose.data.synthetic.bodies import BodySampler, read_poses
from ros2_pose.data.synthetic.lighting import Light
from ros2_pose.data.synthetic.materials import Material, noise_table
from ros2_pose.data.synthetic.scene import Layout, arrange, random_camera
from ros2_pose.data.synthetic.sensor import photograph
from ros2_pose.data.synthetic.surfaces import (
    SUPERSAMPLING,
    Surfaces,
    SurfaceSamples,
    collect_surfaces,
    render,
)
from ros2_pose.draw import beside, overlay
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import SMPL24

log = logging.getLogger(__name__)

# The truth has people with a visible keypoint and so many px, or with such a share of the image.
_MIN_AREA_PX, _MIN_AREA_SHARE = 12, 0.005
_EDGE_BLUR_PX = 0.5  # backgrounds have one sample per pixel: their edges are softened
_FACE_KEYPOINTS = 5  # the first of COCO's
_FACE_DEPTH_M, _LIMB_DEPTH_M = 0.035, 0.06


class SyntheticPictures(IterableDataset):
    """Pictures without end: `pictures[i]`, or iterate; a loader's workers share the numbers out.

    Args:
        poses (N, 24, 3): rotation vectors, rad, see `read_poses`.
        size: width and height, px.
        backgrounds: a folder of pictures for half of the scenes. They must not show people, which
            would be taught to be background.
        people: number of people in each scene at most; None draws 0 to 6.
        device: on which triangles are drawn.
    """

    def __init__(self, poses: Tensor, seed: int = 0, size: tuple[int, int] = (256, 256),
                 backgrounds: str | Path | None = None, people: int | None = None,
                 model: BodyModel | None = None, device: str = "cpu") -> None:
        self.model = BodyModel.load() if model is None else model
        self.poses, self.seed, self.size = poses, seed, size
        self.people, self.device = people, device
        self.photos = [] if backgrounds is None else picture_files(backgrounds)
        self._landmarks = Landmarks.of(self.model)
        self._rest_vertices = (self.model.template - self.model.origin).numpy()
        self._keypoint_depth_m = _depth_below_skin(self.model)

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
        bodies = BodySampler(self.model, self.poses, random)
        layout = arrange(self.model, bodies, rng, camera, self.people)
        surfaces = self._surfaces(layout, rng)
        seen = render(surfaces, camera, layout.to_camera, self.device)
        image = photograph(self._radiance(surfaces, seen, layout, rng), rng)
        return self._with_truth(image, layout, seen)

    def _surfaces(self, layout: Layout, rng: np.random.Generator) -> Surfaces:
        """Everything in the scene as one surface, with random appearance."""
        noise = noise_table(rng)
        appearances = [Appearance.draw(rng, self._landmarks) for _ in layout.vertices]
        materials = [Material.draw(rng, plain=0.4) for _ in layout.objects]
        return collect_surfaces(layout, appearances, materials, self.model.faces,
                                self._rest_vertices, noise)

    def _radiance(self, surfaces: Surfaces, seen: SurfaceSamples, layout: Layout,
                  rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) linear RGB."""
        light = Light(rng, surfaces.vertices, surfaces.faces, self.device)
        background = _background(layout, light, self.photos, rng)
        if not len(seen.sample):
            return background
        lit = light.lit(seen.points)
        colour = seen.albedo(surfaces) * light.irradiance(seen.normals, lit)
        width, height = self.size
        fine_width, fine_height = width * SUPERSAMPLING, height * SUPERSAMPLING
        front = np.zeros((fine_height * fine_width, 4), np.float32)  # colour and opacity
        front[seen.sample, :3] = colour
        front[seen.sample, 3] = 1
        front = cv2.resize(front.reshape(fine_height, fine_width, 4), (width, height),
                           interpolation=cv2.INTER_AREA)
        return front[..., :3] + (1 - front[..., 3:]) * background

    def _with_truth(self, image: np.ndarray, layout: Layout, seen: SurfaceSamples) -> Sample:
        """Add the truth about the people of whom enough is visible."""
        count = len(layout.root)
        rotmats = layout.rotmats.clone()
        rotmats[:, 0] = torch.from_numpy(layout.to_camera).float() @ rotmats[:, 0]
        theta, root = quat_from_rotmat(rotmats), layout.root @ layout.to_camera.T
        body = self.model(theta, layout.betas, torch.from_numpy(root).float(), False)
        positions = body.keypoints.numpy().astype(float)
        keypoints = layout.camera.project(positions)
        owner, depth = seen.maps(self.size)
        boxes = np.array([_box_xyxy(owner == person) for person in range(count)]).reshape(-1, 4)
        visibility = _visibility(keypoints, positions[..., 2], owner, depth,
                                 self._keypoint_depth_m)
        people = People(boxes, np.ones(count), keypoints, np.zeros((*keypoints.shape, 2)),
                        visibility, joints=body.joints.numpy().astype(float),
                        theta=theta.numpy().astype(float),
                        betas=layout.betas.numpy().astype(float), root=root)
        area_px = np.bincount(owner[owner >= 0], minlength=count)[:count] / SUPERSAMPLING**2
        is_recognisable = (area_px >= _MIN_AREA_PX) & (visibility == VISIBLE).any(1)
        is_large = area_px >= _MIN_AREA_SHARE * self.size[0] * self.size[1]
        rows = np.flatnonzero(is_recognisable | is_large)
        return Sample.whole(Frame(image, layout.camera), people[rows])


def _background(layout: Layout, light: Light, photos: list[Path],
                rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) linear RGB of the background with the shadows on it."""
    rays = _world_rays(layout.camera, layout.to_camera)
    colour, points, normals, is_albedo = draw_backdrop(rng, rays, layout.height, layout.extent_m,
                                                       photos)
    has_surface = np.any(normals, axis=-1)
    lit = np.ones(has_surface.shape, np.float32)
    lit[has_surface] = light.lit(points[has_surface])
    if is_albedo:
        irradiance = light.irradiance(normals, lit)
        brightness = np.where(has_surface[..., None], irradiance, 1)
    else:
        brightness = (1 - rng.uniform(0.2, 0.6) * (1 - lit))[..., None]
    radiance = np.asarray(colour * brightness, np.float32)
    return cv2.GaussianBlur(radiance, (3, 3), _EDGE_BLUR_PX)


def _world_rays(camera: Camera, to_camera: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 ray of each pixel centre, world frame, length 1 along the optical axis."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    rays = camera.normalise(np.stack([x, y], -1))
    rays = np.concatenate([rays, np.ones_like(rays[..., :1])], -1)
    return (rays @ to_camera).astype(np.float32)


# ---------------------------------------------------------------------------------- truth


def _depth_below_skin(model: BodyModel) -> np.ndarray:
    """(17,) m by which the person's own surface may lie before a visible keypoint."""
    theta = torch.tensor([0.0, 0, 0, 1]).repeat(1, len(SMPL24), 1)
    body = model(theta, torch.zeros(1, 10))
    nearest = torch.cdist(body.keypoints[0], body.vertices[0]).amin(1)
    is_face = np.arange(len(nearest)) < _FACE_KEYPOINTS
    return np.where(is_face, _FACE_DEPTH_M, _LIMB_DEPTH_M) + 1.8 * nearest.numpy()


def _visibility(keypoints: np.ndarray, z: np.ndarray, owner: np.ndarray, depth: np.ndarray,
                keypoint_depth_m: np.ndarray) -> np.ndarray:
    """Decide which keypoints are visible.

    Args:
        keypoints (P, 17, 2): px. z (P, 17): m, their depths.
        owner, depth (2H, 2W): see `SurfaceSamples.maps`.
        keypoint_depth_m (17,): see `_depth_below_skin`.
    Returns:
        (P, 17): VISIBLE, HIDDEN or OUTSIDE.
    """
    height, width = owner.shape
    samples = np.nan_to_num(keypoints, nan=-1e6).clip(-1e6, 1e6) * SUPERSAMPLING
    cells = np.floor(samples).astype(int)
    column, row = cells[..., 0], cells[..., 1]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = column.clip(0, width - 1), row.clip(0, height - 1)
    is_own = owner[row, column] == np.arange(len(keypoints))[:, None]
    is_visible = depth[row, column] > z - np.where(is_own, keypoint_depth_m, 0.0)
    return np.where(inside, np.where(is_visible, VISIBLE, HIDDEN), OUTSIDE)


def _box_xyxy(mask: np.ndarray) -> np.ndarray:
    """(4,) px around a mask (2H, 2W) of the supersampled image; NaN if it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return np.full(4, np.nan)
    corners = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return corners / SUPERSAMPLING


# ---------------------------------------------------------------------------- contact sheet


def sheet(samples: list[Sample], columns: int = 4, scale: int = 2) -> np.ndarray:
    """(H, W, 3) uint8 RGB: each picture beside its truth; hidden keypoints are black dots."""
    cells = [beside(_enlarged(sample.frame.image, scale), _with_overlay(sample, scale))
             for sample in samples]
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    rows = [np.concatenate(cells[i:i + columns], 1) for i in range(0, len(cells), columns)]
    return np.concatenate(rows)


def _enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _with_overlay(sample: Sample, scale: int) -> np.ndarray:
    people = sample.people
    enlarged = people.with_fields(boxes=people.boxes * scale, keypoints=people.keypoints * scale)
    canvas = overlay(_enlarged(sample.frame.image, scale), enlarged)
    for x, y in enlarged.keypoints[people.keypoint_scores == HIDDEN]:
        cv2.circle(canvas, (int(x), int(y)), 3, (0, 0, 0), -1)
    return canvas


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocap", required=True, help="npz with theta (N, 24, 3) and src (N,)")
    parser.add_argument("--out", type=Path, required=True, help="the contact sheet to write")
    parser.add_argument("--count", type=int, default=24, help="number of pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("W", "H"),
                        help="of each picture, px")
    parser.add_argument("--backgrounds", type=Path, help="a folder of pictures without people")
    parser.add_argument("--device", default="cpu", help="on which triangles are drawn")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pictures = SyntheticPictures(read_poses(args.mocap), args.seed, tuple(args.size),
                                 args.backgrounds, device=args.device)
    pictures[0]  # initialisation is not timed
    start = time.perf_counter()
    samples = [pictures[i] for i in range(args.count)]
    rate = args.count / (time.perf_counter() - start)
    cv2.imwrite(str(args.out), sheet(samples)[..., ::-1])
    log.info("%s: %.1f pictures a second on %s, %d torch threads", args.out, rate, args.device,
             torch.get_num_threads())


if __name__ == "__main__":
    main()

"""Appearance of synthetic people: skin, hair, face, and clothes of many cuts and colours.

A point on the body is known by its rest coordinates: its position on the mean body in the T-pose
(pelvis at the origin, x to the person's left, y up, z forward, metres). A garment ends at a
coordinate, a sleeve at some |x|, a hem at some y, and patterns stick to the body as it moves.
Colours are linear RGB, 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.data.synthetic.materials import GAMMA, Material, fabric_colour, noise_at
from ros2_pose.skeleton import COCO17, SMPL24

SKIN, TOP, BOTTOM, SHOES, HAIR, HAT, COAT, MASK = range(8)  # regions of a body
_REGIONS = 8

# From light to dark, sRGB 0..255; a person's colour is drawn from the line through them.
_SKINS = ((255, 224, 200), (236, 190, 156), (208, 154, 114), (164, 107, 70), (110, 68, 44),
          (66, 42, 32))
_HAIRS = ((12, 11, 11), (38, 26, 20), (82, 54, 36), (140, 98, 58), (205, 170, 115),
          (150, 145, 140), (225, 222, 218), (120, 48, 24))

_NEVER = 2.0  # a coordinate beyond the body
_COAT_BELOW_HIP_M = 0.12
_FACE_DEPTH_M = 0.09


@dataclass(frozen=True)
class Landmarks:
    """Positions on the body at which garments may end: rest coordinates, m."""

    shoulder: float  # |x|
    elbow: float
    wrist: float
    hip: float  # y from here on
    knee: float
    ankle: float
    neck: float
    chin: float
    crown: float
    nape_z: float  # z
    face_z: float
    eye: np.ndarray  # (3,) the left one
    nose: np.ndarray  # (3,)

    @staticmethod
    def of(model: BodyModel) -> Landmarks:
        """Measure the mean body."""
        theta = torch.tensor([0.0, 0, 0, 1]).repeat(1, len(SMPL24), 1)
        body = model(theta, torch.zeros(1, 10))
        joint = dict(zip(SMPL24.names, body.joints[0].numpy()))
        face = dict(zip(COCO17.names[:5], body.keypoints[0].numpy()))
        is_head = model.weights.argmax(1).numpy() == SMPL24.index("head")
        head = body.vertices[0].numpy()[is_head]
        _, chin, nape_z = head.min(0)
        _, crown, face_z = head.max(0)
        return Landmarks(
            shoulder=joint["left_shoulder"][0], elbow=joint["left_elbow"][0],
            wrist=joint["left_wrist"][0], hip=joint["left_hip"][1], knee=joint["left_knee"][1],
            ankle=joint["left_ankle"][1], neck=joint["neck"][1], chin=chin, crown=crown,
            nape_z=nape_z, face_z=face_z, eye=face["left_eye"], nose=face["nose"])


@dataclass(frozen=True)
class Appearance:
    """One person's appearance. Points are rest coordinates; noise: see `noise_table`."""

    landmarks: Landmarks
    materials: dict[int, Material]  # by region; without COAT, HAT or MASK: not worn
    neckline: float  # y, m
    neck_depth: float  # m, in front
    sleeve: float  # |x|, m
    waist: float  # y, m
    hem: float  # y, m
    shoe_top: float  # y, m
    flare: float  # m per m: how fast trousers or skirt widen downwards
    coat_open: float  # |x| in front, m, up to which a coat shows the clothes below
    hair_front: float  # 0 chin .. 1 crown
    hair_back: float  # 0 chin .. 1 crown
    hair_length: float  # m below the neck; negative: none below the ears
    beard: bool
    glasses: bool
    hat_rim: float  # 0 chin .. 1 crown

    @staticmethod
    def draw(rng: np.random.Generator, landmarks: Landmarks) -> Appearance:
        """Draw a person's clothes, hair and face."""
        return Appearance(landmarks, _draw_materials(rng), **_draw_cut(rng, landmarks),
                          **_draw_head(rng))

    def regions(self, points: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N,) SKIN, TOP, ... at points (N, 3)."""
        marks = self.landmarks
        side, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
        region = np.full(len(points), SKIN)
        is_front = z > marks.nape_z + 0.05
        scoop = self.neck_depth * np.clip(1 - (side / 0.08) ** 2, 0, 1) * is_front
        is_below_neckline = y < self.neckline - scoop
        region[(y > self.waist) & is_below_neckline & (side < self.sleeve)] = TOP
        region[(y <= self.waist) & (y > self.hem)] = BOTTOM
        region[y < self.shoe_top] = SHOES
        if COAT in self.materials:
            is_covered = ((y > marks.hip - _COAT_BELOW_HIP_M) & (y < marks.neck)
                          & (side < marks.wrist))
            is_open = is_front & (side < self.coat_open) & (y < marks.neck)
            region[is_covered & ~is_open] = COAT
        self._mark_head(region, points, noise)
        return region

    def _mark_head(self, region: np.ndarray, points: np.ndarray, noise: np.ndarray) -> None:
        """Enter beard, hair, hat and mask in region (N,)."""
        marks = self.landmarks
        x, y, z = points.T
        up = (y - marks.chin) / (marks.crown - marks.chin)
        ahead = (z - marks.nape_z) / (marks.face_z - marks.nape_z)
        is_head = (up > 0) & (np.abs(x) < 0.13)
        if self.beard:
            is_cheek = (ahead > 0.5) & (up < 0.42) & (up < 0.3 + 0.4 * (1 - ahead))
            is_mouth = np.abs(y - marks.nose[1] + 0.04) <= 0.012
            region[is_head & is_cheek & ~is_mouth] = HAIR
        if self.hair_length < 0:
            frontness = np.clip((ahead - 0.1) / 0.7, 0, 1)
        else:
            frontness = np.clip((ahead - 0.45) / 0.4, 0, 1)
        hairline = self.hair_back + (self.hair_front - self.hair_back) * frontness
        strands = 0.05 * noise_at(noise, 4 * x, 4 * (y + z))
        region[is_head & (up > hairline + strands)] = HAIR
        is_nape = (up < 0.3) & (z < marks.nape_z + 0.055) & (np.abs(x) < 0.1)
        region[is_nape & (y > marks.neck - self.hair_length)] = HAIR
        if HAT in self.materials:
            region[is_head & (up > self.hat_rim)] = HAT
        if MASK in self.materials:
            region[is_head & (ahead > 0.45) & (up < 0.45)] = MASK

    def thickness(self, points: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N,) m by which hair and clothes stand off the body at points (N, 3)."""
        region = self.regions(points, noise)
        by_region = np.zeros(_REGIONS, np.float32)
        for number, material in self.materials.items():
            by_region[number] = material.thickness_m
        folds = 1 + 0.5 * noise_at(noise, points[:, 0] + points[:, 2], points[:, 1])
        widening = self.flare * np.clip(self.waist - points[:, 1], 0, None)
        return by_region[region] * folds + np.where(region == BOTTOM, widening, 0.0)

    def albedo(self, points: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N, 3) linear RGB at points (N, 3)."""
        marks = self.landmarks
        region = self.regions(points, noise)
        colour = np.empty((len(points), 3), np.float32)
        for number, material in self.materials.items():
            rows = np.flatnonzero(region == number)
            if len(rows):
                colour[rows] = material.albedo(points[rows], noise, marks.shoulder - 0.02)
        is_face = (points[:, 1] > marks.chin) & (points[:, 2] > marks.face_z - _FACE_DEPTH_M)
        rows = np.flatnonzero((region == SKIN) & is_face)
        colour[rows] = self._with_face(points[rows], colour[rows])
        return colour

    def _with_face(self, points: np.ndarray, colour: np.ndarray) -> np.ndarray:
        """Paint mouth, eyes, brows and glasses on skin: colour (N, 3), changed in place."""
        eye, nose = self.landmarks.eye, self.landmarks.nose
        # From the nearer eye; from the nose for the mouth.
        beside, above = np.abs(points[:, 0]) - eye[0], points[:, 1] - eye[1]
        is_lip = np.hypot(points[:, 0] / 0.025, (points[:, 1] - nose[1] + 0.04) / 0.008) < 1
        is_white = np.hypot(beside / 0.016, above / 0.009) < 1
        is_pupil = np.hypot(beside / 0.008, above / 0.008) < 1
        is_brow = (np.abs(beside) < 0.02) & (np.abs(above - 0.019) < 0.005)
        colour[is_lip] = colour[is_lip] * (0.8, 0.45, 0.45)
        colour[is_white] = 0.6
        colour[is_pupil] = 0.02
        colour[is_brow] = 0.7 * self.materials[HAIR].colours[0] + 0.1 * colour[is_brow]
        if self.glasses:
            radius = np.hypot(beside / 0.026, above / 0.02)
            has_dark_lenses = self.materials[SHOES].phase < 3  # any random number will do
            colour[(radius < 1) & ((radius > 0.8) | has_dark_lenses)] = 0.02
        return colour


def _skin_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) linear RGB on the line through `_SKINS`, varied a little."""
    colours = np.array(_SKINS, np.float32) / 255
    position = rng.uniform(0, len(colours) - 1)
    row = min(int(position), len(colours) - 2)
    mixed = colours[row] + (position - row) * (colours[row + 1] - colours[row])
    return np.clip(mixed * rng.uniform(0.9, 1.08, 3), 0, 1) ** GAMMA


def _hair_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) linear RGB: natural, rarely dyed."""
    natural = np.array(_HAIRS[rng.choice(len(_HAIRS))], np.float32) / 255
    return fabric_colour(rng) if rng.random() < 0.04 else natural**GAMMA


def _draw_materials(rng: np.random.Generator) -> dict[int, Material]:
    """Materials by region."""
    skin, hair = _skin_colour(rng), _hair_colour(rng)
    materials = {SKIN: Material.plain(skin, 0.0),
                 HAIR: Material.plain(hair, rng.uniform(0.004, 0.022)),
                 TOP: Material.draw(rng, (0.002, 0.015)),
                 BOTTOM: Material.draw(rng, (0.002, 0.012), 0.6),
                 SHOES: Material.draw(rng, (0.004, 0.01), 0.6)}
    if rng.random() < 0.2:  # a dress, an overall, a suit
        thickness_m = materials[BOTTOM].thickness_m
        materials[BOTTOM] = replace(materials[TOP], thickness_m=thickness_m)
    for region, share, thickness in ((COAT, 0.25, (0.01, 0.03)), (HAT, 0.15, (0.012, 0.035)),
                                     (MASK, 0.05, (0.004, 0.008))):
        if rng.random() < share:
            materials[region] = Material.draw(rng, thickness, 0.5)
    return materials


def _draw_cut(rng: np.random.Generator, marks: Landmarks) -> dict[str, Any]:
    """Fields of Appearance: the coordinates at which clothes end."""
    hems = (0.7 * marks.hip + 0.3 * marks.knee, marks.knee + 0.05, marks.knee - 0.1,
            marks.ankle + 0.1, marks.ankle + 0.02)
    hem = rng.choice(hems, p=(0.08, 0.15, 0.05, 0.12, 0.6)) + rng.normal() * 0.02
    shoe_tops = (-_NEVER, marks.ankle, marks.ankle + 0.04, marks.knee - 0.1)
    shoe_top = rng.choice(shoe_tops, p=(0.08, 0.52, 0.3, 0.1))
    is_wide = rng.random() < 0.25
    neckline = marks.neck + rng.uniform(-0.045, 0.02)
    neck_depth = max(rng.normal(0.02, 0.03), 0.0)
    sleeves = (marks.shoulder - 0.02, 0.5 * (marks.shoulder + marks.elbow), marks.elbow - 0.03,
               0.5 * (marks.elbow + marks.wrist), marks.wrist - 0.01, _NEVER)
    sleeve = rng.choice(sleeves, p=(0.08, 0.2, 0.17, 0.08, 0.45, 0.02))
    waist = rng.uniform(marks.hip - 0.04, marks.hip + 0.16)
    flare = rng.uniform(0.02, 0.07) if is_wide else 0.0
    coat_open = max(rng.uniform(-0.05, 0.1), 0.0)
    return {"neckline": neckline, "neck_depth": neck_depth, "sleeve": sleeve, "waist": waist,
            "hem": hem, "shoe_top": shoe_top, "flare": flare, "coat_open": coat_open}


def _draw_head(rng: np.random.Generator) -> dict[str, Any]:
    """Fields of Appearance: hair, beard, glasses, hat."""
    is_bald, is_long = rng.random() < 0.06, rng.random() < 0.4
    front, back, length = _NEVER, _NEVER, -1.0
    if not is_bald:
        front = rng.uniform(0.72, 0.93)
        back = rng.uniform(-0.1, 0.1) if is_long else rng.uniform(0.02, 0.3)
    if is_long and not is_bald:
        length = rng.uniform(0.0, 0.22)
    beard = rng.random() < 0.12 and not is_long
    glasses = rng.random() < 0.15
    return {"hair_front": front, "hair_back": back, "hair_length": length, "beard": beard,
            "glasses": glasses, "hat_rim": rng.uniform(0.6, 0.75)}

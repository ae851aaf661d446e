"""What synthetic people look like: skin, hair, face, and clothes of many cuts, colours, patterns.

A place on the body is known by its rest coordinates: where it lies on the mean body in the T-pose
(pelvis at the origin, x to the person's left, y up, z forward, metres). There every garment ends at
a coordinate, a sleeve at some |x|, a hem at some y, and patterns stick to the body as it moves.
Colours are linear RGB, 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.skeleton import COCO17, SMPL24

GAMMA = 2.2
SKIN, TOP, BOTTOM, SHOES, HAIR, HAT, COAT, MASK = range(8)  # regions of a body
PLAIN, RINGS, STRIPES, CHECKS, GRADIENT, CLOUDS, PRINT, SLEEVES = range(8)  # patterns
_PATTERN_SHARES = (0.42, 0.12, 0.06, 0.1, 0.06, 0.1, 0.08, 0.06)
NOISE_SIZE = 256  # a power of two
_NOISE_PER_M = 256

# From light to dark, sRGB 0..255; people are drawn from all along the line.
_SKINS = ((255, 224, 200), (236, 190, 156), (208, 154, 114), (164, 107, 70), (110, 68, 44),
          (66, 42, 32))
_HAIRS = ((12, 11, 11), (38, 26, 20), (82, 54, 36), (140, 98, 58), (205, 170, 115),
          (150, 145, 140), (225, 222, 218), (120, 48, 24))


@dataclass(frozen=True)
class Landmarks:
    """Where on the body garments may end, in rest coordinates, m."""

    shoulder: float  # |x|
    elbow: float
    wrist: float
    chest: float  # y from here on
    hip: float
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
        """Measured on the mean body."""
        theta = torch.tensor([0.0, 0, 0, 1]).repeat(1, len(SMPL24), 1)
        body = model(theta, torch.zeros(1, 10))
        joint = dict(zip(SMPL24.names, body.joints[0].numpy()))
        face = dict(zip(COCO17.names[:5], body.keypoints[0].numpy()))
        head = body.vertices[0].numpy()
        head = head[model.weights.argmax(1).numpy() == SMPL24.index("head")]
        return Landmarks(
            joint["left_shoulder"][0], joint["left_elbow"][0], joint["left_wrist"][0],
            joint["left_shoulder"][1], joint["left_hip"][1], joint["left_knee"][1],
            joint["left_ankle"][1], joint["neck"][1], head[:, 1].min(), head[:, 1].max(),
            head[:, 2].min(), head[:, 2].max(), face["left_eye"], face["nose"])


def noise_table(rng: np.random.Generator) -> np.ndarray:
    """(S, S) float32, mean 0, about -1..1: clouds of several sizes that repeat without a seam."""
    total = np.zeros((NOISE_SIZE, NOISE_SIZE), np.float32)
    for cells, weight in ((8, 0.5), (32, 0.35), (128, 0.25)):
        coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        pad = np.pad(coarse, 2, mode="wrap")
        scale = NOISE_SIZE // cells
        fine = cv2.resize(pad, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        total += weight * fine[2 * scale:-2 * scale, 2 * scale:-2 * scale]
    return total


def _noise(table: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The table at (N,), (N,) m."""
    columns = (u * _NOISE_PER_M).astype(np.int32) & NOISE_SIZE - 1
    rows = (v * _NOISE_PER_M).astype(np.int32) & NOISE_SIZE - 1
    return table[rows, columns]


@dataclass(frozen=True)
class Cloth:
    """A material: one to three colours in a pattern of some size, and how far it stands off."""

    pattern: int
    colours: np.ndarray  # (3, 3)
    size_m: float
    phase: float
    thickness_m: float = 0.0

    @staticmethod
    def draw(rng: np.random.Generator, thickness_m: tuple[float, float] = (0.0, 0.0),
             plain: float = 0.0) -> Cloth:
        """plain: share of the materials that are of one colour for certain."""
        pattern = PLAIN if rng.random() < plain else rng.choice(8, p=_PATTERN_SHARES)
        return Cloth(int(pattern), np.stack([fabric_colour(rng) for _ in range(3)]),
                     float(np.exp(rng.uniform(np.log(0.015), np.log(0.2)))),
                     float(rng.uniform(0, 10)), float(rng.uniform(*thickness_m)))

    def albedo(self, points: np.ndarray, table: np.ndarray, limb_x: float) -> np.ndarray:
        """(N, 3) at rest coordinates (N, 3); beyond |x| = limb_x things run along x, else y."""
        x, y, z = points.T
        along = np.where(np.abs(x) > limb_x, np.abs(x), y) / self.size_m + self.phase
        across = np.where(np.abs(x) > limb_x, y + z, x + 0.5 * z) / self.size_m + self.phase
        share = self._share(points, along, across, table, limb_x)[:, None]
        colour = self.colours[0] + share * (self.colours[1] - self.colours[0])
        if self.pattern in (CHECKS, PRINT):
            second = ((across % 1 < 0.18) & (share[:, 0] > 0))[:, None]
            colour = np.where(second, self.colours[2], colour)
        return colour * (1 + 0.16 * _noise(table, 3 * x + z, 3 * y - z))[:, None]

    def _share(self, points, along, across, table, limb_x) -> np.ndarray:
        """(N,) 0..1 of the second colour."""
        if self.pattern == RINGS:
            return (along % 1 < 0.4).astype(np.float32)
        if self.pattern == STRIPES:
            return (across % 1 < 0.3).astype(np.float32)
        if self.pattern == CHECKS:
            return 0.5 * (along % 1 < 0.5) + 0.5 * (across % 1 < 0.5)
        if self.pattern == GRADIENT:
            return np.clip(points[:, 1] + 0.5, 0, 1)
        if self.pattern == CLOUDS:
            scale = 0.06 / self.size_m
            return np.clip(0.5 + 2.5 * _noise(table, scale * along * self.size_m,
                                              scale * across * self.size_m), 0, 1)
        if self.pattern == PRINT:
            near = np.hypot(points[:, 0] / 0.1, (points[:, 1] - 0.27) / 0.09) < 1
            return (near & (points[:, 2] > 0)).astype(np.float32)
        if self.pattern == SLEEVES:
            return (np.abs(points[:, 0]) > limb_x).astype(np.float32)
        return np.zeros(len(points), np.float32)


@dataclass(frozen=True)
class Appearance:
    """One person's appearance."""

    marks: Landmarks
    cloth: dict[int, Cloth]  # by region; no COAT, HAT, MASK: not worn
    neckline: float  # y, m
    neck_depth: float  # m, in front
    sleeve: float  # |x|, m
    waist: float  # y, m
    hem: float
    shoe_top: float
    flare: float  # m a metre: how fast trousers or skirt widen downwards
    coat_open: float  # |x| in front up to which a coat shows what is below
    hair_front: float  # 0 chin .. 1 crown
    hair_back: float
    hair_length: float  # m below the neck; negative: none below the ears
    beard: bool
    glasses: bool
    hat_rim: float  # 0 chin .. 1 crown

    @staticmethod
    def draw(rng: np.random.Generator, marks: Landmarks) -> Appearance:
        return Appearance(marks, _clothes(rng), **_cut(rng, marks), **_head(rng))

    def regions(self, points: np.ndarray, table: np.ndarray) -> np.ndarray:
        """(N,) which region holds rest coordinates (N, 3)."""
        marks, (side, y, z) = self.marks, (np.abs(points[:, 0]), points[:, 1], points[:, 2])
        region = np.full(len(points), SKIN)
        front = z > marks.nape_z + 0.05
        scoop = self.neck_depth * np.clip(1 - (side / 0.08) ** 2, 0, 1) * front
        region[(y > self.waist) & (y < self.neckline - scoop) & (side < self.sleeve)] = TOP
        region[(y <= self.waist) & (y > self.hem)] = BOTTOM
        region[y < self.shoe_top] = SHOES
        if COAT in self.cloth:
            open_front = front & (side < self.coat_open) & (y < marks.neck)
            covered = (y > marks.hip - 0.12) & (y < marks.neck) & (side < marks.wrist)
            region[covered & ~open_front] = COAT
        return self._on_head(points, region, table)

    def _on_head(self, points, region, table) -> np.ndarray:
        marks, (x, y, z) = self.marks, points.T
        up = (y - marks.chin) / (marks.crown - marks.chin)
        ahead = (z - marks.nape_z) / (marks.face_z - marks.nape_z)
        head = (up > 0) & (np.abs(x) < 0.13)
        bearded = head & (ahead > 0.5) & (up < 0.42) & (up < 0.3 + 0.4 * (1 - ahead))
        if self.beard:
            region[bearded & (np.abs(y - marks.nose[1] + 0.04) > 0.012)] = HAIR
        rise = np.clip((ahead - 0.1) / 0.7, 0, 1) if self.hair_length < 0 else \
            np.clip((ahead - 0.45) / 0.4, 0, 1)
        line = self.hair_back + (self.hair_front - self.hair_back) * rise
        region[head & (up > line + 0.05 * _noise(table, 4 * x, 4 * (y + z)))] = HAIR
        region[(y > marks.neck - self.hair_length) & (up < 0.3) & (z < marks.nape_z + 0.055)
               & (np.abs(x) < 0.1)] = HAIR
        if HAT in self.cloth:
            region[head & (up > self.hat_rim)] = HAT
        if MASK in self.cloth:
            region[head & (ahead > 0.45) & (up < 0.45)] = MASK
        return region

    def thickness(self, points: np.ndarray, table: np.ndarray) -> np.ndarray:
        """(N,) m that hair and clothes stand off the body at rest coordinates (N, 3)."""
        region = self.regions(points, table)
        by_region = np.array([self.cloth[r].thickness_m if r in self.cloth else 0.0
                              for r in range(8)], np.float32)
        folds = 1 + 0.5 * _noise(table, points[:, 0] + points[:, 2], points[:, 1])
        widening = self.flare * np.clip(self.waist - points[:, 1], 0, None)
        return by_region[region] * folds + np.where(region == BOTTOM, widening, 0.0)

    def albedo(self, points: np.ndarray, table: np.ndarray) -> np.ndarray:
        """(N, 3) at rest coordinates (N, 3)."""
        region = self.regions(points, table)
        colour = np.empty((len(points), 3), np.float32)
        for number, cloth in self.cloth.items():
            rows = np.flatnonzero(region == number)
            if len(rows):
                colour[rows] = cloth.albedo(points[rows], table, self.marks.shoulder - 0.02)
        face = np.flatnonzero((region == SKIN) & (points[:, 1] > self.marks.chin)
                              & (points[:, 2] > self.marks.face_z - 0.09))
        colour[face] = self._face(points[face], colour[face])
        return colour

    def _face(self, points: np.ndarray, colour: np.ndarray) -> np.ndarray:
        """Eyes, brows, mouth, glasses painted on skin (N, 3)."""
        eye, nose = self.marks.eye, self.marks.nose
        beside, above = np.abs(points[:, 0]) - eye[0], points[:, 1] - eye[1]
        hair = self.cloth[HAIR].colours[0]
        lips = np.hypot(points[:, 0] / 0.025, (points[:, 1] - nose[1] + 0.04) / 0.008) < 1
        colour[lips] = colour[lips] * (0.8, 0.45, 0.45)
        colour[np.hypot(beside / 0.016, above / 0.009) < 1] = 0.6
        colour[np.hypot(beside / 0.008, above / 0.008) < 1] = 0.02
        brow = (np.abs(beside) < 0.02) & (np.abs(above - 0.019) < 0.005)
        colour[brow] = 0.7 * hair + 0.1 * colour[brow]
        if self.glasses:
            ring = np.hypot(beside / 0.026, above / 0.02)
            colour[(ring < 1) & ((ring > 0.8) | (self.cloth[SHOES].phase < 3))] = 0.02
        return colour


def fabric_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) what things are made of: often grey, black, white, beige or blue, else of any hue."""
    hue, saturation = rng.uniform(0, 360), rng.beta(1.5, 1.5)
    if rng.random() < 0.4:
        saturation *= 0.15
    value = rng.uniform(0.05, 0.95)
    colour = cv2.cvtColor(np.float32([[[hue, saturation, value]]]), cv2.COLOR_HSV2RGB)[0, 0]
    return colour**GAMMA


def _between(rng: np.random.Generator, colours) -> np.ndarray:
    """(3,) somewhere on the line through sRGB colours."""
    colours = np.array(colours, np.float32) / 255
    position = rng.uniform(0, len(colours) - 1)
    low = min(int(position), len(colours) - 2)
    mixed = colours[low] + (position - low) * (colours[low + 1] - colours[low])
    return np.clip(mixed * rng.uniform(0.9, 1.08, 3), 0, 1) ** GAMMA


def _of_one(colour: np.ndarray, thickness_m: float) -> Cloth:
    return Cloth(PLAIN, np.tile(colour, (3, 1)), 0.1, 0.0, thickness_m)


def _clothes(rng: np.random.Generator) -> dict[int, Cloth]:
    skin = _between(rng, _SKINS)
    hair = np.array(_HAIRS[rng.choice(len(_HAIRS))], np.float32) / 255
    hair = fabric_colour(rng) if rng.random() < 0.04 else hair**GAMMA
    cloth = {SKIN: _of_one(skin, 0.0), HAIR: _of_one(hair, rng.uniform(0.004, 0.022)),
             TOP: Cloth.draw(rng, (0.002, 0.015)), BOTTOM: Cloth.draw(rng, (0.002, 0.012), 0.6),
             SHOES: Cloth.draw(rng, (0.004, 0.01), 0.6)}
    if rng.random() < 0.2:  # a dress, an overall, a suit
        cloth[BOTTOM] = replace(cloth[TOP], thickness_m=cloth[BOTTOM].thickness_m)
    for region, share, thickness in ((COAT, 0.25, (0.01, 0.03)), (HAT, 0.15, (0.012, 0.035)),
                                     (MASK, 0.05, (0.004, 0.008))):
        if rng.random() < share:
            cloth[region] = Cloth.draw(rng, thickness, 0.5)
    return cloth


def _cut(rng: np.random.Generator, marks: Landmarks) -> dict[str, float]:
    """Where clothes end."""
    sleeves = (marks.shoulder - 0.02, 0.5 * (marks.shoulder + marks.elbow), marks.elbow - 0.03,
               0.5 * (marks.elbow + marks.wrist), marks.wrist - 0.01, 2.0)
    hems = (0.7 * marks.hip + 0.3 * marks.knee, marks.knee + 0.05, marks.knee - 0.1,
            marks.ankle + 0.1, marks.ankle + 0.02)
    hem = rng.choice(hems, p=(0.08, 0.15, 0.05, 0.12, 0.6)) + rng.normal() * 0.02
    shoe = rng.choice((-2.0, marks.ankle, marks.ankle + 0.04, marks.knee - 0.1),
                      p=(0.08, 0.52, 0.3, 0.1))
    wide = rng.random() < 0.25
    return {"neckline": marks.neck + rng.uniform(-0.045, 0.02),
            "neck_depth": max(rng.normal(0.02, 0.03), 0.0),
            "sleeve": rng.choice(sleeves, p=(0.08, 0.2, 0.17, 0.08, 0.45, 0.02)),
            "waist": rng.uniform(marks.hip - 0.04, marks.hip + 0.16), "hem": hem,
            "shoe_top": shoe, "flare": rng.uniform(0.02, 0.07) if wide else 0.0,
            "coat_open": max(rng.uniform(-0.05, 0.1), 0.0)}


def _head(rng: np.random.Generator) -> dict[str, float]:
    """Hair, beard, glasses, hat."""
    bald, long = rng.random() < 0.06, rng.random() < 0.4
    return {"hair_front": 2.0 if bald else rng.uniform(0.72, 0.93),
            "hair_back": 2.0 if bald else rng.uniform(-0.1, 0.1) if long
            else rng.uniform(0.02, 0.3),
            "hair_length": rng.uniform(0.0, 0.22) if long and not bald else -1.0,
            "beard": rng.random() < 0.12 and not long, "glasses": rng.random() < 0.15,
            "hat_rim": rng.uniform(0.6, 0.75)}

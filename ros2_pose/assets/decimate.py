"""Reduces the vertices of a mesh by half-edge collapses; the remaining ones do not move.

Garland and Heckbert 1997, "Surface simplification using quadric error metrics", restricted to
collapses onto an existing vertex: blend shapes and skinning weights carry over unchanged.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

_BOUNDARY_WEIGHT = 10.0
_EVENNESS = 2e-3  # favours short edges where the surface is flat
_MIN_NORMAL_COSINE = 0.3


def decimate(vertices: np.ndarray, triangles: np.ndarray, target: int) -> np.ndarray:
    """Collapse edges, cheapest first, until at most `target` vertices are in use or none may be.

    A vertex on the mesh's boundary only moves along the boundary.

    Args:
        vertices (V, 3): m. triangles (F, 3): vertex indices.
        target: number of vertices.
    Returns:
        (F', 3): triangles with the indices of the same vertices.
    """
    mesh = _CollapsibleMesh(vertices, triangles)
    heap = [mesh.cost(u, v) for u in mesh.rings for v in mesh.neighbours(u)]
    heapq.heapify(heap)
    while heap and len(mesh.rings) > target:
        cost, u, v, age = heapq.heappop(heap)
        if mesh.ages.get(u, 0) + mesh.ages.get(v, 0) != age or not mesh.may_collapse(u, v):
            continue
        mesh.collapse(u, v)
        for w in mesh.neighbours(v):
            heapq.heappush(heap, mesh.cost(v, w))
            heapq.heappush(heap, mesh.cost(w, v))
    return np.array(sorted(mesh.faces.values()))


class _CollapsibleMesh:
    """A triangle mesh with its quadric error metrics."""

    faces: dict[int, tuple[int, ...]]  # by face number
    rings: dict[int, set[int]]  # face numbers around each vertex

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray) -> None:
        self.points = vertices
        self.faces = {i: tuple(int(v) for v in face) for i, face in enumerate(triangles)}
        self.rings = {}
        for i, face in self.faces.items():
            for v in face:
                self.rings.setdefault(v, set()).add(i)
        self.ages: dict[int, int] = {}  # how often a vertex's quadric has changed
        self.quadrics = self._quadrics()

    def neighbours(self, u: int) -> set[int]:
        """Vertices that share an edge with u."""
        return {v for i in self.rings.get(u, ()) for v in self.faces[i]} - {u}

    def is_boundary_edge(self, u: int, v: int) -> bool:
        """Return True if only one triangle has this edge."""
        return len(self.rings[u] & self.rings[v]) == 1

    def is_boundary(self, u: int) -> bool:
        """Return True if u lies on the mesh's boundary."""
        return any(self.is_boundary_edge(u, v) for v in self.neighbours(u))

    def normal(self, face: Sequence[int]) -> np.ndarray:
        """(3,) normal of three vertices, twice the triangle's area long."""
        a, b, c = (self.points[v] for v in face)
        return np.cross(b - a, c - a)

    def cost(self, u: int, v: int) -> tuple[float, int, int, int]:
        """Cost of moving u onto v, then u, v and their ages: an entry of the heap."""
        point = np.append(self.points[v], 1.0)
        quadric = self.quadrics[u] + self.quadrics[v]
        length2 = np.sum((self.points[u] - self.points[v]) ** 2)
        cost = point @ quadric @ point + _EVENNESS * length2 * np.trace(quadric[:3, :3])
        return float(cost), u, v, self.ages.get(u, 0) + self.ages.get(v, 0)

    def may_collapse(self, u: int, v: int) -> bool:
        """Return True if moving u onto v leaves a manifold without flipped triangles."""
        if u not in self.rings or v not in self.rings or not self.rings[u] & self.rings[v]:
            return False
        on_edge = self.is_boundary_edge(u, v)
        if self.is_boundary(u) and not on_edge:
            return False
        if len(self.neighbours(u) & self.neighbours(v)) != (1 if on_edge else 2):
            return False
        return all(self._keeps_facing(i, u, v) for i in self.rings[u] - self.rings[v])

    def _keeps_facing(self, i: int, u: int, v: int) -> bool:
        """Return True if face i keeps its direction, about, when u moves onto v."""
        before = self.normal(self.faces[i])
        after = self.normal([v if w == u else w for w in self.faces[i]])
        size = np.linalg.norm(before) * np.linalg.norm(after)
        return bool(size > 0 and before @ after > _MIN_NORMAL_COSINE * size)

    def collapse(self, u: int, v: int) -> None:
        """Move u onto v."""
        for i in self.rings[u] & self.rings[v]:
            for w in self.faces.pop(i):
                self.rings[w].discard(i)
        for i in self.rings.pop(u):
            self.faces[i] = tuple(v if w == u else w for w in self.faces[i])
            self.rings[v].add(i)
        self.quadrics[v] = self.quadrics[u] + self.quadrics[v]
        self.ages[v] = self.ages.get(v, 0) + 1

    def _quadrics(self) -> np.ndarray:
        """(V, 4, 4) sums of squared distances to the planes around each vertex.

        Edges of the boundary get a plane at right angles to their triangle, which keeps them.
        """
        quadrics = np.zeros((len(self.points), 4, 4))
        for i, face in self.faces.items():
            normal = self.normal(face)
            self._add_plane(quadrics, face, normal, normal, 0.5)
            for u, v in zip(face, face[1:] + face[:1]):
                if self.is_boundary_edge(u, v):
                    wall = np.cross(normal, self.points[v] - self.points[u])
                    self._add_plane(quadrics, (u, v), wall, normal, _BOUNDARY_WEIGHT)
        return quadrics

    def _add_plane(self, quadrics: np.ndarray, corners: tuple[int, ...], normal: np.ndarray,
                   area_vector: np.ndarray, weight: float) -> None:
        """Add the plane through corners, weighted by area, to the corners' quadrics."""
        length = np.linalg.norm(normal)
        if length == 0:
            return
        unit = normal / length
        plane = np.append(unit, -unit @ self.points[corners[0]])
        quadrics[list(corners)] += weight * np.linalg.norm(area_vector) * np.outer(plane, plane)

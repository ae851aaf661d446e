"""Which frame was where at which time: a transform tree with a short memory. No ROS here.

The tree means what tf2's means. It is here because the core and the environment from PyPI have no
tf2, and because tf2's Python buffer keeps the transforms of a time that a restarted recording has
not reached yet. Nothing here waits: what is not known is an error that says what is missing.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from scipy.spatial.transform import Rotation, Slerp

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.messages.standard import stamp_of
from ros2_pose.sync.image_sync import JUMP_S

log = logging.getLogger(__name__)

HISTORY_S = 10.0  # tf2's
_MOST_SAMPLES = 4096  # of a frame, whatever its rate
_MOST_FRAMES = 1024  # whoever invents ever new names must not fill the memory


@dataclass
class _Link:
    """A frame's place in its parent, over time; stamps rise. One stamp of None: for all time.

    Places are kept as numbers: many more come than are ever looked up.
    """

    parent: str
    stamps: list[int | None] = field(default_factory=list)  # ns
    samples: list[Sequence[float]] = field(default_factory=list)

    @property
    def is_static(self) -> bool:
        return self.stamps == [None]

    def put(self, stamp: int, xyz_quat: Sequence[float], history: int) -> None:
        """Take in a transform in the order of time. One that is known or too old is left out."""
        at = bisect_left(self.stamps, stamp)
        if stamp in self.stamps[at:at + 1] or (self.stamps and stamp < self.stamps[-1] - history):
            return
        self.stamps.insert(at, stamp)
        self.samples.insert(at, xyz_quat)
        old = max(bisect_left(self.stamps, self.stamps[-1] - history),
                  len(self.stamps) - _MOST_SAMPLES)
        del self.stamps[:old], self.samples[:old]

    def at(self, stamp: int, tolerance: int) -> Transform:
        """The place at a time, or the newest one if that is older by at most `tolerance`, ns.

        Raises _OutOfTime: nothing is extrapolated.
        """
        if self.is_static:
            return Transform.from_xyz_quat(self.samples[0])
        first, last = self.stamps[0], self.stamps[-1]
        if last < stamp <= last + tolerance:
            stamp = last
        if not first <= stamp <= last:
            raise _OutOfTime(f"is known from {_ms(first - stamp)} to {_ms(last - stamp)}")
        after = bisect_left(self.stamps, stamp)
        if self.stamps[after] == stamp:
            return Transform.from_xyz_quat(self.samples[after])
        before = self.stamps[after - 1]
        share = (stamp - before) / (self.stamps[after] - before)
        return _between(Transform.from_xyz_quat(self.samples[after - 1]),
                        Transform.from_xyz_quat(self.samples[after]), share)


class _OutOfTime(Exception):
    """A link is not known at the time asked for."""


class TransformBuffer:
    """The transforms of the last `history_s` seconds, and the static ones.

    Stamps are integers, nanoseconds. A frame that goes back in time by more than a second, as a
    recording does that starts again, clears everything that is not static. Memory is bounded: in
    time, in transforms of a frame and in frames.
    """

    def __init__(self, history_s: float = HISTORY_S):
        self._history = round(history_s * 1e9)
        self._links: dict[str, _Link] = {}  # by child

    def __len__(self) -> int:
        """The number of frames that have a parent."""
        return len(self._links)

    def add(self, parent: str, child: str, stamp: int, xyz_quat: Sequence[float]) -> None:
        """Where `child` was in `parent` at a time.

        xyz_quat: seven numbers as in `Transform.from_xyz_quat`; they take points of child to
        parent. Raises TransformError if they are no transform, and when there are too many frames.
        """
        self._check(parent, child, stamp, xyz_quat)
        link = self._links.get(child)
        if link is not None and link.stamps[-1] is not None \
                and stamp < link.stamps[-1] - JUMP_S * 1e9:
            self.clear()
            link = None
        if link is None or link.is_static or link.parent != parent:
            link = self._links[child] = _Link(parent)
        link.put(stamp, xyz_quat, self._history)

    def add_static(self, parent: str, child: str, xyz_quat: Sequence[float]) -> None:
        """Where `child` is in `parent` at all times. Raises TransformError as `add` does."""
        self._check(parent, child, 0, xyz_quat)
        self._links[child] = _Link(parent, [None], [xyz_quat])

    def take_in(self, message, is_static: bool, left_out: Collection[str] = ()) -> None:
        """Add the transforms of a tf2_msgs/TFMessage; what is none is logged.

        Args:
            message: from /tf_static if is_static, else from /tf.
            left_out: child frames that are not taken in.
        """
        for stamped in message.transforms:
            if stamped.child_frame_id in left_out:
                continue
            v, q = stamped.transform.translation, stamped.transform.rotation
            xyz_quat = v.x, v.y, v.z, q.x, q.y, q.z, q.w
            names = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            try:
                if is_static:
                    self.add_static(*names, xyz_quat)
                else:
                    self.add(*names, stamp_of(stamped.header), xyz_quat)
            except TransformError as error:
                log.warning("a transform was left out: %s", error)

    def lookup_from(self, target: str, header, tolerance: int = 0) -> Transform:
        """`lookup` from the frame of a std_msgs/Header, at its stamp."""
        if not header.frame_id:
            raise TransformError(f"the images name no frame, so nothing leads to {target!r}: let "
                                 "the camera's driver set header.frame_id")
        return self.lookup(target.lstrip("/"), header.frame_id.lstrip("/"), stamp_of(header),
                           tolerance)

    def clear(self) -> None:
        """Forget what is not static."""
        self._links = {child: link for child, link in self._links.items() if link.is_static}

    def lookup(self, target: str, source: str, stamp: int, tolerance: int = 0) -> Transform:
        """Takes points of frame `source` to frame `target` at a time, ns.

        Between two stamps the place is interpolated linearly, the rotation along the shortest arc.
        tolerance: a link whose newest transform is older than `stamp` by up to so many ns is taken
        as it was then. Raises TransformError.
        """
        up, down = self._lineage(source), self._lineage(target)
        common = next((name for name in up if name in down), None)
        if common is None:
            raise TransformError(self._no_way(target, source, up, down))
        try:
            to_common = self._climb(up[:up.index(common)], stamp, tolerance)
            from_common = self._climb(down[:down.index(common)], stamp, tolerance).inverse()
        except _OutOfTime as error:
            raise TransformError(f"no transform from {source!r} to {target!r} at the time of the "
                                 f"image: {error}") from None
        return from_common @ to_common

    def _climb(self, names: list[str], stamp: int, tolerance: int) -> Transform:
        """From the first of successive ancestors to the parent of the last."""
        to_parent = Transform.identity()
        for name in names:
            link = self._links[name]
            try:
                to_parent = link.at(stamp, tolerance) @ to_parent
            except _OutOfTime as error:
                raise _OutOfTime(f"{name!r} in {link.parent!r} {error}") from None
        return to_parent

    def _lineage(self, name: str) -> list[str]:
        """A frame, its parent, and so on to the root."""
        lineage = [name]
        while name in self._links:
            name = self._links[name].parent
            if name in lineage:
                raise TransformError(f"frames {', '.join(lineage)} are each other's parents: two "
                                     "publishers of /tf contradict each other")
            lineage.append(name)
        return lineage

    def _no_way(self, target: str, source: str, up: list[str], down: list[str]) -> str:
        parents = {link.parent for link in self._links.values()}
        for name in (target, source):
            if name not in self._links and name not in parents:
                return (f"no transform from {source!r} to {target!r}: nothing is known of "
                        f"{name!r}; check its spelling, and that its publisher of /tf or "
                        "/tf_static runs")
        return (f"no transform from {source!r} to {target!r}: {source!r} hangs below {up[-1]!r}, "
                f"{target!r} below {down[-1]!r}, and nothing connects these two")

    def _check(self, parent: str, child: str, stamp: int, xyz_quat: Sequence[float]) -> None:
        if not parent or not child or parent == child:
            raise TransformError(f"a transform from {child!r} to {parent!r} says nothing")
        if not all(map(math.isfinite, xyz_quat)) or not any(xyz_quat[3:]):
            raise TransformError(f"the transform from {child!r} to {parent!r} is none: its numbers "
                                 f"are {', '.join(f'{number:g}' for number in xyz_quat)}")
        if child not in self._links and len(self._links) >= _MOST_FRAMES:
            self._make_room(child, stamp)

    def _make_room(self, child: str, stamp: int) -> None:
        """Forget the frames that nobody has renewed for as long as anything is remembered."""
        self._links = {name: link for name, link in self._links.items()
                       if link.is_static or link.stamps[-1] >= stamp - self._history}
        if len(self._links) >= _MOST_FRAMES:
            raise TransformError(f"{child!r} is left out: {_MOST_FRAMES} frames are known already")


def _between(a: Transform, b: Transform, share: float) -> Transform:
    """The given share, 0..1, of the way from a to b."""
    interpolated = Slerp([0, 1], Rotation.concatenate([a.rotation, b.rotation]))(share)
    return Transform(interpolated, (1 - share) * a.translation_m + share * b.translation_m)


def _ms(nanoseconds: int) -> str:
    """"35 ms before it": a time relative to the image's."""
    side = "after" if nanoseconds > 0 else "before"
    return f"{abs(nanoseconds) / 1e6:.0f} ms {side} it"

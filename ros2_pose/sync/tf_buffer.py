"""A transform tree with a bounded history, as tf2 has one, without ROS.

It means what tf2's tree means. It exists because the core and the environment from PyPI have no
tf2, and because tf2's Python buffer keeps the transforms of a time that a restarted recording has
not reached yet. Nothing here waits: an unknown transform raises an error that says what is missing.
"""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections.abc import Collection, Sequence

from scipy.spatial.transform import Rotation, Slerp

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.messages.standard import stamp_of
from ros2_pose.sync.time_jump import jumps_back

log = logging.getLogger(__name__)

HISTORY_S = 10.0  # tf2's
_MOST_SAMPLES = 4096  # of one frame, whatever its rate
_MOST_FRAMES = 1024  # bounds the memory if a publisher makes up new names for ever


class _Link:
    """The transform of a frame to its parent over time, as numbers; most are never looked up."""

    def __init__(self, parent: str, static: Sequence[float] | None = None) -> None:
        """Begin a history; `static`, xyz_quat, is the only sample and holds at all times."""
        self.parent, self.is_static = parent, static is not None
        self.stamps: list[int] = []  # ns, rising
        # xyz_quat, parent from child
        self.samples: list[Sequence[float]] = [] if static is None else [static]

    def put(self, stamp: int, xyz_quat: Sequence[float], history: int) -> None:
        """Insert a sample in the order of time; a known or too old one (history, ns) is ignored."""
        at = bisect_left(self.stamps, stamp)
        if stamp in self.stamps[at:at + 1] or (self.stamps and stamp < self.stamps[-1] - history):
            return
        self.stamps.insert(at, stamp)
        self.samples.insert(at, xyz_quat)
        old = max(bisect_left(self.stamps, self.stamps[-1] - history),
                  len(self.stamps) - _MOST_SAMPLES)
        del self.stamps[:old], self.samples[:old]

    def at(self, stamp: int, tolerance: int) -> Transform:
        """The transform at a stamp; the newest one if that is older by at most tolerance, ns.

        Raises _OutOfTime otherwise: nothing is extrapolated.
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
        return _interpolated(Transform.from_xyz_quat(self.samples[after - 1]),
                             Transform.from_xyz_quat(self.samples[after]), share)


class _OutOfTime(Exception):
    """A link is not known at the time of the lookup."""


class TransformBuffer:
    """The transforms of the last `history_s` seconds, and the static ones.

    Stamps are integers, ns. A jump back in time of any frame, as of a recording that starts again,
    clears everything that is not static. Memory is bounded: in time, in transforms of a frame, and
    in frames.
    """

    def __init__(self, history_s: float = HISTORY_S):
        """Create an empty buffer."""
        self._history = round(history_s * 1e9)
        self._links: dict[str, _Link] = {}  # by child

    def __len__(self) -> int:
        """Number of frames that have a parent."""
        return len(self._links)

    def add(self, parent: str, child: str, stamp: int, xyz_quat: Sequence[float]) -> None:
        """Add the transform from child to parent at a time.

        Args:
            stamp: ns.
            xyz_quat (7,): m and unit quaternion, see `Transform.from_xyz_quat`.
        Raises:
            TransformError: if the numbers are no transform, or if there are too many frames.
        """
        self._check(parent, child, stamp, xyz_quat)
        link = self._links.get(child)
        if link is not None and not link.is_static and jumps_back(stamp, link.stamps[-1]):
            self.clear()
            link = None
        if link is None or link.is_static or link.parent != parent:
            link = self._links[child] = _Link(parent)
        link.put(stamp, xyz_quat, self._history)

    def add_static(self, parent: str, child: str, xyz_quat: Sequence[float]) -> None:
        """Add a transform from child to parent that holds at all times; see `add`."""
        self._check(parent, child, 0, xyz_quat)
        self._links[child] = _Link(parent, xyz_quat)

    def take_in(self, message, is_static: bool, left_out: Collection[str] = ()) -> None:
        """Add the transforms of a tf2_msgs/TFMessage; one that cannot be used is logged.

        Args:
            message: from /tf_static if is_static, else from /tf.
            left_out: child frames to ignore.
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
        """Look up the transform from the frame of a std_msgs/Header, at its stamp; see `lookup`."""
        if not header.frame_id:
            raise TransformError(f"the images name no frame, so no transform leads to "
                                 f"{target!r}: let the camera's driver set header.frame_id")
        return self.lookup(target.lstrip("/"), header.frame_id.lstrip("/"), stamp_of(header),
                           tolerance)

    def clear(self) -> None:
        """Forget all transforms that are not static."""
        self._links = {child: link for child, link in self._links.items() if link.is_static}

    def lookup(self, target: str, source: str, stamp: int, tolerance: int = 0) -> Transform:
        """Return the transform from frame `source` to frame `target` at a stamp (ns).

        Between two stamps the translation is interpolated linearly, the rotation along the shortest
        arc.

        Args:
            tolerance: ns by which the newest transform of a link may be older than the stamp; then
                it is used unchanged.
        Raises:
            TransformError: if the transform is not known; the message says what is missing.
        """
        of_source, of_target = self._lineage(source), self._lineage(target)
        common = next((name for name in of_source if name in of_target), None)
        if common is None:
            raise TransformError(self._unconnected(target, source, of_source[-1], of_target[-1]))
        to_common = of_source[:of_source.index(common)]
        from_common = of_target[:of_target.index(common)]
        try:
            common_from_source = self._chain(to_common, stamp, tolerance)
            common_from_target = self._chain(from_common, stamp, tolerance)
        except _OutOfTime as error:
            raise TransformError(f"no transform from {source!r} to {target!r} at the time of the "
                                 f"image: {error}") from None
        return common_from_target.inverse() @ common_from_source

    def _chain(self, names: list[str], stamp: int, tolerance: int) -> Transform:
        """The transform from the first of successive ancestors to the parent of the last."""
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

    def _unconnected(self, target: str, source: str, root_of_source: str,
                     root_of_target: str) -> str:
        """The message for two frames without a common ancestor."""
        parents = {link.parent for link in self._links.values()}
        for name in (target, source):
            if name not in self._links and name not in parents:
                return (f"no transform from {source!r} to {target!r}: nothing is known of "
                        f"{name!r}; check its spelling, and that its publisher of /tf or "
                        "/tf_static runs")
        return (f"no transform from {source!r} to {target!r}: the root of {source!r} is "
                f"{root_of_source!r}, that of {target!r} is {root_of_target!r}, and no transform "
                "connects these two")

    def _check(self, parent: str, child: str, stamp: int, xyz_quat: Sequence[float]) -> None:
        if not parent or not child or parent == child:
            raise TransformError(f"a transform from {child!r} to {parent!r} needs two different, "
                                 "non-empty frame names")
        if not all(map(math.isfinite, xyz_quat)) or not any(xyz_quat[3:]):
            numbers = ", ".join(f"{number:g}" for number in xyz_quat)
            raise TransformError(f"the transform from {child!r} to {parent!r} is no rigid motion: "
                                 f"x, y, z and quaternion x, y, z, w are {numbers}")
        if child not in self._links and len(self._links) >= _MOST_FRAMES:
            self._make_room(child, stamp)

    def _make_room(self, child: str, stamp: int) -> None:
        """Forget the frames that have not been renewed for longer than the history."""
        self._links = {name: link for name, link in self._links.items()
                       if link.is_static or link.stamps[-1] >= stamp - self._history}
        if len(self._links) >= _MOST_FRAMES:
            raise TransformError(f"{child!r} is left out: {_MOST_FRAMES} frames are known already")


def _interpolated(a: Transform, b: Transform, share: float) -> Transform:
    """The transform at a share, 0..1, between a and b."""
    rotation = Slerp([0, 1], Rotation.concatenate([a.rotation, b.rotation]))(share)
    return Transform(rotation, (1 - share) * a.translation_m + share * b.translation_m)


def _ms(nanoseconds: int) -> str:
    """A time relative to the image's as text: "35 ms before it"."""
    side = "after" if nanoseconds > 0 else "before"
    return f"{abs(nanoseconds) / 1e6:.0f} ms {side} it"

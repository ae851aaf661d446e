"""When to search the whole picture for people, while those known are followed.

A search has parts, which take turns so that no image costs much more than the others. All parts are
run where no person is followed, and where the picture has changed as a whole. The first part, which
finds people of ordinary size, is run again at short intervals and at once after a person was lost;
the others, which find small and far people, at longer ones.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.tracking.kalman import seconds

_FIRST_S, _OTHERS_S = 0.2, 0.6  # interval of the first part, and of each other part
_SLOW_S = 0.15  # interval of images from which parts do not take turns
_CHANGED = 20.0  # mean difference of brightness, 0..255, from which the picture is another one
_CELLS = 16  # rows and columns of brightness that are compared


class SearchSchedule:
    """Decides for each image of one camera which parts of the search are run."""

    def __init__(self, every: int = 0):
        """Start with a search.

        Args:
            every: images between two runs of a part; 0: by time, see above.
        """
        self.every = every
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image is searched as a whole."""
        self._stamp: int | None = None  # ns, of the last image
        self._since: dict[int, int] = {}  # images since each part was run
        self._last: dict[int, int] = {}  # ns, when each part was run
        self._brightness: np.ndarray | None = None
        self.has_changed = True  # the last image is another picture than the one before

    def parts(self, count: int, stamp: int, image: np.ndarray, followed: int,
              urgent: bool) -> tuple[int, ...]:
        """Return the parts of the search to be run in an image.

        Args:
            count: number of parts.
            stamp: ns, of the image.
            image (H, W, 3): uint8.
            followed: number of people followed.
            urgent: a person was lost in the last image, or there are too many to follow.
        """
        chosen = self._chosen(count, stamp, image, followed, urgent)
        for part in range(count):
            self._since[part] = 0 if part in chosen else self._since.get(part, 0) + 1
        self._last |= dict.fromkeys(chosen, stamp)
        self._stamp = stamp
        return chosen

    def _chosen(self, count: int, stamp: int, image: np.ndarray, followed: int,
                urgent: bool) -> tuple[int, ...]:
        everything = tuple(range(count))
        self.has_changed = self._is_another_picture(image)
        if not followed or self.has_changed or self._stamp is None or self.every == 1:
            return everything
        urgency = {part: self._urgency(part, stamp) for part in everything}
        due = [part for part in everything if urgency[part] >= 1]
        if due and seconds(stamp - self._stamp) < _SLOW_S:
            due = [max(due, key=lambda part: urgency[part])]
        return tuple(sorted({0, *due})) if urgent else tuple(due)

    def _urgency(self, part: int, stamp: int) -> float:
        """Time since a part was run, in intervals: from 1 it is due."""
        if self.every:
            return (self._since[part] + 1) / self.every
        return seconds(stamp - self._last[part]) / (_OTHERS_S if part else _FIRST_S)

    def _is_another_picture(self, image: np.ndarray) -> bool:
        """Whether the picture is another one than before: a cut, or a camera that turned."""
        height, width = image.shape[:2]
        rows, cols = (((np.arange(_CELLS) + 0.5) * length / _CELLS).astype(int)
                      for length in (height, width))
        before = self._brightness
        self._brightness = image[rows[:, None], cols].mean(-1)
        if before is None or before.shape != self._brightness.shape:
            return True
        difference = self._brightness - before
        return float(np.abs(difference - np.median(difference)).mean()) > _CHANGED

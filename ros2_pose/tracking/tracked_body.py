"""The body of a tracked person from frame to frame: where the next fit starts."""

from __future__ import annotations

from typing import NamedTuple

import torch

from ros2_pose.body.fit_result import BodyFit
from ros2_pose.body.state import BodyState
from ros2_pose.body.temporal_prior import Previous
from ros2_pose.geometry import Transform, with_root_rotated
from ros2_pose.people import Frame
from ros2_pose.tracking.track import Track


class TrackedBody(NamedTuple):
    """The body of a tracked person at the last fit: where the next fit starts."""

    state: BodyState  # of one person, in the camera frame
    disagreement_s: float  # s, see `BodyFit`
    frames: int  # in which the body has been fitted
    stamp: int  # ns, of the fit
    camera_to_fixed: Transform | None = None  # at that stamp; None: not known
    lift_state: torch.Tensor | None = None  # (S,) see `Lift.remember`

    def seen_from(self, camera_to_fixed: Transform | None) -> BodyState:
        """Return the state in the frame of a camera that has moved while the person stood."""
        if camera_to_fixed is None or self.camera_to_fixed is None:
            return self.state
        now_from_then = camera_to_fixed.inverse() @ self.camera_to_fixed
        theta = with_root_rotated(self.state.theta.numpy()[None], now_from_then.rotation)[0]
        root = now_from_then.apply(self.state.root.numpy())
        return self.state._replace(theta=torch.from_numpy(theta), root=torch.from_numpy(root))


def previous_of(tracks: list[Track], stamp: int,
                camera_to_fixed: Transform | None = None) -> Previous:
    """Return the last fitted body of each track; NaN for a person without one.

    Args:
        stamp: ns, of the frame that is fitted next.
        camera_to_fixed: of that frame; bodies are expressed in its camera frame.
    """
    zeros = torch.zeros(len(tracks))
    states = [track.body.lift_state for track in tracks
              if track.body is not None and track.body.lift_state is not None]
    lift_state = torch.full((len(tracks), len(states[0])), torch.nan) if states else None
    previous = Previous(BodyState.missing(zeros.double()), zeros, zeros.long(), zeros.clone(),
                        lift_state)
    for row, track in enumerate(tracks):
        if track.body is not None:
            for values, value in zip(previous.state, track.body.seen_from(camera_to_fixed)):
                values[row] = value
            previous.seconds[row] = (stamp - track.body.stamp) * 1e-9
            previous.frames[row] = track.body.frames
            previous.disagreement_s[row] = track.body.disagreement_s
            if lift_state is not None and track.body.lift_state is not None:
                lift_state[row] = track.body.lift_state
    return previous._replace(lift_age_s=previous.seconds)


def tracked_body(bodies: BodyFit, row: int, frames: int, frame: Frame) -> TrackedBody | None:
    """Return the body that a track keeps; None if none was found.

    Args:
        bodies: of P people.
        row: of the person.
        frames: in which the body has been fitted.
        frame: that the bodies were fitted to.
    """
    if not bodies.ok[row]:
        return None
    state = BodyState(*(value[row] for value in bodies.state))
    return TrackedBody(state, float(bodies.disagreement_s[row]), frames, frame.stamp,
                       frame.camera_to_fixed, bodies.lift_state[row])

"""Settings of what happens around the pipeline: the node's parameters, and options of `replay`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ros2_pose.config import ConfigError, setting
from ros2_pose.messages.tf import REP155, FrameNames

# Those that `ros2_pose replay` has too. The others concern topics, waiting or messages that a
# recording does not have, or several cameras at once, which replay does not read.
OFFLINE = ("depth", "rectified", "target_frame", "fixed_frame", "tf_tolerance_s", "tf", "tf_names",
           "tf_person", "tf_joint", "marker_lifetime_s", "body_marker_hz", "overlay_bodies")


@dataclass(frozen=True)
class NodeConfig:
    """What the node does around the pipeline."""

    autostart: bool = setting(True, "configure and activate at the start; false leaves that to a "
                              "lifecycle manager")
    silence_s: float = setting(5.0, "without an image, until the reason is published and logged, "
                               "s; at least 2.5 intervals between images",
                               low=1.0, high=3600.0, live=True)
    cameras: str = setting("", "names of several calibrated cameras, separated by spaces, whose "
                           "people are put together in target_frame; their topics are "
                           "<name>/image and so on; empty: one camera")
    depth: bool = setting(False, "use a depth image that is aligned with the image, on the topic "
                          "depth")
    depth_wait_s: float = setting(0.0, "an image waits so long for its depth, which may come late, "
                                  "and at least until the next image; s", low=0.0, high=5.0,
                                  live=True)
    transport: str = setting("raw", "raw subscribes to <image>, compressed to <image>/compressed",
                             choices=("raw", "compressed"))
    reliability: str = setting("auto", "of the image subscription: auto takes what the publishers "
                               "offer", choices=("auto", "reliable", "best_effort"))
    rectified: bool = setting(False, "the images are undistorted already: use P of CameraInfo and "
                              "no distortion", live=True)
    target_frame: str = setting("", "frame of people, markers and TF; empty: the image's")
    fixed_frame: str = setting("", "frame that stands still and never jumps (odom), in which "
                               "velocities are measured; empty: navigation_frame, or else the "
                               "camera's")
    navigation_frame: str = setting("", "frame of /people for costmaps (people_msgs), such as map "
                                    "or odom; empty: /people is not published")
    people_timeout_s: float = setting(
        0.0, "while nobody can look for longer, /people and the like say that there is nobody; 0: "
        "never, costmaps keep the people last seen, because an empty list would let a robot drive "
        "where nobody looks; s", low=0.0, high=3600.0, live=True)
    tf_tolerance_s: float = setting(0.1, "while a transform of the image's time has not come, the "
                                    "newest one stands in if it is older by no more, s",
                                    low=0.0, high=5.0, live=True)
    rep155: bool = setting(False, "publish /humans/bodies for ROS4HRI (hri_msgs); its frames come "
                           "with tf_names: rep155")
    detections: bool = setting(False, "publish ~/detections (vision_msgs/Detection3DArray)")
    tf: bool = setting(True, "publish a TF frame per tracked person and joint", live=True)
    tf_names: str = setting("patterns", "names of these frames: as tf_person and tf_joint say, or "
                            "REP-155's", choices=("patterns", "rep155"), live=True)
    tf_person: str = setting("<id>", "name of the frame at a person's pelvis; <id> stands for the "
                             "person's id", live=True)
    tf_joint: str = setting("<id>_<joint>", "name of the frames at the other joints", live=True)
    marker_lifetime_s: float = setting(0.5, "markers that no image renews disappear after, s; at "
                                       "least 2.5 intervals between images",
                                       low=0.0, high=60.0, live=True)
    body_marker_hz: float = setting(10.0, "body surfaces among the markers at most so often, Hz of "
                                    "real time: they are large; 0: none", low=0.0, high=100.0,
                                    live=True)
    overlay_bodies: bool = setting(True, "draw bodies into the overlay image; false draws "
                                   "keypoints alone, which is faster", live=True)

    def __post_init__(self) -> None:
        """Raises ConfigError for names that cannot be used."""
        self.frame_names
        if len(self.camera_names) != len(set(self.camera_names)):
            raise ConfigError(f"cameras: {self.cameras!r} names one twice")
        if len(self.camera_names) > 1 and not self.target_frame:
            raise ConfigError("cameras: several need target_frame, in which all are placed by tf: "
                              "set it to a frame that stands still, z up")

    @cached_property
    def frame_names(self) -> FrameNames:
        """Of the TF frames of people."""
        return REP155 if self.tf_names == "rep155" else FrameNames(self.tf_person, self.tf_joint)

    @property
    def camera_names(self) -> list[str]:
        """Of the cameras; the only one has none."""
        return self.cameras.split() or [""]

    @property
    def still_frame(self) -> str:
        """The frame that velocities are measured in; empty for the camera's."""
        if len(self.camera_names) > 1:
            return self.target_frame
        return self.fixed_frame or self.navigation_frame

"""Settings of the node outside of the pipeline: ROS parameters, some also options of `replay`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ros2_pose.config import ConfigError, setting
from ros2_pose.messages.tf import REP155, FrameNames

# Settings that `ros2_pose replay` has, too. The others are about topics, waiting or messages that
# recordings do not have, or about several cameras, which replay does not read.
OFFLINE = ("depth", "rectified", "target_frame", "fixed_frame", "floor_frame", "imu",
           "tf_tolerance_s", "tf", "tf_names", "tf_person", "tf_joint", "marker_lifetime_s",
           "body_marker_hz", "overlay_bodies")


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node outside of the pipeline."""

    autostart: bool = setting(True, "configure and activate at start; false: a lifecycle manager "
                              "does that")
    silence_s: float = setting(5.0, "time without an image until the reason is published and "
                               "logged, s; at least 2.5 image intervals",
                               low=1.0, high=3600.0, live=True)
    cameras: str = setting("", "names of several calibrated cameras, separated by spaces; their "
                           "people are fused in target_frame, their topics are <name>/image and "
                           "so on; empty: one camera")
    depth: bool = setting(False, "use depth images that are aligned with the image, from the topic "
                          "depth")
    depth_wait_s: float = setting(0.0, "time that an image waits for its depth image, s; at least "
                                  "until the next image", low=0.0, high=5.0, live=True)
    transport: str = setting("raw", "transport of images: raw subscribes to <image>, compressed to "
                             "<image>/compressed",
                             choices=("raw", "compressed"))
    reliability: str = setting("auto", "QoS reliability of the image subscription; auto: that of "
                               "the publishers", choices=("auto", "reliable", "best_effort"))
    rectified: bool = setting(False, "the images are rectified: use P of CameraInfo and no "
                              "distortion", live=True)
    target_frame: str = setting("", "frame of people, markers and TF; empty: the image's")
    fixed_frame: str = setting("", "static frame without jumps (odom), in which velocities are "
                               "measured; empty: navigation_frame or, if that is empty, the "
                               "camera's")
    floor_frame: str = setting("", "frame with the floor as its plane z = 0 and z up "
                               "(base_footprint, odom, map): TF gives gravity and the floor of "
                               "each image; empty: as imu and camera_height_m, camera_pitch_deg "
                               "and camera_roll_deg describe them")
    imu: str = setting("", "topic of an IMU (sensor_msgs/Imu) that gives the direction of gravity "
                       "while floor_frame does not; empty: none")
    navigation_frame: str = setting("", "frame of /people for costmaps (people_msgs), for example "
                                    "map or odom; empty: /people is not published")
    people_timeout_s: float = setting(
        0.0, "time without usable images after which /people and similar topics publish an empty "
        "list, s; 0: never, costmaps keep the last people, because an empty list would allow a "
        "robot to drive where nothing is observed", low=0.0, high=3600.0, live=True)
    tf_tolerance_s: float = setting(0.1, "greatest age of the newest transform, relative to the "
                                    "image, to be used while the image's own is missing, s",
                                    low=0.0, high=5.0, live=True)
    rep155: bool = setting(False, "publish /humans/bodies for ROS4HRI (hri_msgs); for its TF "
                           "frames set tf_names: rep155")
    detections: bool = setting(False, "publish ~/detections (vision_msgs/Detection3DArray)")
    tf: bool = setting(True, "publish a TF frame for each joint of each tracked person", live=True)
    tf_names: str = setting("patterns", "names of these frames: by the patterns tf_person and "
                            "tf_joint, or those of REP-155", choices=("patterns", "rep155"),
                            live=True)
    tf_person: str = setting("<id>", "name of the frame at a person's pelvis; <id> is replaced by "
                             "the person's id", live=True)
    tf_joint: str = setting("<id>_<joint>", "name of the frames at the other joints; <joint> is "
                            "replaced by the joint's name", live=True)
    marker_lifetime_s: float = setting(0.5, "time after which markers disappear if no image renews "
                                       "them, s; at least 2.5 image intervals",
                                       low=0.0, high=60.0, live=True)
    body_marker_hz: float = setting(10.0, "maximum rate of body surfaces among the markers, Hz of "
                                    "real time, as they are large; 0: none", low=0.0, high=100.0,
                                    live=True)
    overlay_bodies: bool = setting(True, "draw bodies into the overlay image; false: only "
                                   "keypoints, which is faster", live=True)

    def __post_init__(self) -> None:
        """Raise ConfigError for names of frames or cameras that cannot be used."""
        self.frame_names  # checks the patterns
        if len(self.camera_names) != len(set(self.camera_names)):
            raise ConfigError(f"cameras: {self.cameras!r} names one twice")
        if len(self.camera_names) > 1 and not self.target_frame:
            raise ConfigError("cameras: several cameras need target_frame, to which tf gives "
                              "their transforms: set it to a static frame with z up")

    @cached_property
    def frame_names(self) -> FrameNames:
        """Names of the TF frames of people."""
        return REP155 if self.tf_names == "rep155" else FrameNames(self.tf_person, self.tf_joint)

    @property
    def camera_names(self) -> list[str]:
        """Names of the cameras; [""] for a single camera."""
        return self.cameras.split() or [""]

    @property
    def still_frame(self) -> str:
        """Name of the frame in which velocities are measured; empty for the camera's."""
        if len(self.camera_names) > 1:
            return self.target_frame
        return self.fixed_frame or self.navigation_frame

    @property
    def reference_frame(self) -> str:
        """Name of a frame with z up that the floor frame is checked against, if TF knows it."""
        return self.still_frame or "odom"

    @property
    def needs_tf(self) -> bool:
        """Whether a setting needs transforms."""
        return bool(self.target_frame or self.still_frame or self.floor_frame or self.imu)

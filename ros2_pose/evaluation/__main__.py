"""All benchmarks of accuracy, calibration and cost, each with its protocol.

    python -m ros2_pose.evaluation [--rows body/fit,tracking] [--data DIR] [--json FILE]
                                   [--plots DIR]
"""

from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks import (
    arithmetic,
    batch,
    body,
    calibration,
    engines,
    following,
    keypoints,
    multiview,
    occlusion,
    refinement,
    systems,
    tracking,
)

GROUPS = {"body": body, "tracking": tracking, "following": following, "multiview": multiview,
          "calibration": calibration, "keypoints": keypoints, "refinement": refinement,
          "occlusion": occlusion, "systems": systems, "batch": batch, "engines": engines,
          "arithmetic": arithmetic}
BENCHMARKS = {name if name == group else f"{group}/{name}": benchmark
              for group, module in GROUPS.items()
              for name, benchmark in module.BENCHMARKS.items()}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)

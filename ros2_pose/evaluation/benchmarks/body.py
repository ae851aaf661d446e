"""The accuracy, calibration and cost of the body layer, each row with its protocol.

    python -m ros2_pose.evaluation.benchmarks.body [--data DIR] [--rows fit,cost]

Some benchmarks need the package alone, others data that may not be shipped:
`mocap/cmu_theta_10hz.npz`, `devset/mupots_ts01_10_gt.npz`, `devset/videos/p2s_single_cam0*`. One
without its data is skipped, and names it. Everything simulated depends on one seed.
"""

from __future__ import annotations

from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks import (
    correction,
    cost,
    depth,
    fitting,
    floor,
    motion,
    mupots,
    prediction,
    video,
)
from ros2_pose.evaluation.harness import Benchmark

BENCHMARKS = {
    **correction.BENCHMARKS,
    "fit": Benchmark(fitting.fit, (fitting.MOCAP,), ("people", "seed", "lift")),
    "motion": Benchmark(motion.motion, (fitting.MOCAP,), ("people", "seed", "lift")),
    "prediction": Benchmark(prediction.prediction, (fitting.MOCAP,), ("people", "seed", "lift")),
    "mupots": Benchmark(mupots.true_joints, (mupots.FILE,), ("stride", "lift")),
    "mupots-floor": Benchmark(mupots.true_joints_on_floor, (mupots.FILE,), ("stride", "lift")),
    "mupots-noise": Benchmark(mupots.noisy_joints, (mupots.FILE,), ("stride", "seed", "lift")),
    "depth": Benchmark(depth.depth, (fitting.MOCAP,), ("people", "seed", "lift")),
    "floor": Benchmark(floor.floor, (fitting.MOCAP,), ("people", "seed", "lift")),
    "video": Benchmark(video.clips, video.FILES, ("frames", "lift", "network", "refiner")),
    "video-floor": Benchmark(video.floors, video.FILES, ("frames", "lift", "network", "refiner")),
    "cost": Benchmark(cost.cost, (), ("repeats", "seed", "lift")),
    "latency": Benchmark(cost.latency, (), ("repeats", "seed", "lift"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)

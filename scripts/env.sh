# The environment that `make build` made, for a shell: . scripts/env.sh
# It replaces a sourced ROS installation rather than mixing with it.

ros2_pose_root="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"
ros2_pose_join() { local IFS=:; echo "$*"; }

export VIRTUAL_ENV="$ros2_pose_root/.venv"
export PATH="$ros2_pose_root/install/bin:$ros2_pose_root/install/lib/ros2_pose:$VIRTUAL_ENV/bin:$PATH"
export AMENT_PREFIX_PATH="$ros2_pose_root/install:$VIRTUAL_ENV"
export CMAKE_PREFIX_PATH="$AMENT_PREFIX_PATH"
export PYTHONPATH="$(ros2_pose_join "$ros2_pose_root"/install/lib/python3*/site-packages)"
unset COLCON_PREFIX_PATH PYTHONHOME

# The ROS wheels restart every Python once to set these two; set here, they leave Python alone, and
# our own libraries come first.
export LD_LIBRARY_PATH="$(ros2_pose_join "$ros2_pose_root/install/lib" "$VIRTUAL_ENV/lib" \
    "$VIRTUAL_ENV"/lib/python3*/site-packages/ros_*.libs ${LD_LIBRARY_PATH:+"$LD_LIBRARY_PATH"})"
export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1

export ROS_VERSION=2 ROS_PYTHON_VERSION=3 ROS_DISTRO=jazzy RMW_IMPLEMENTATION=rmw_fastrtps_cpp
export ROS_AUTOMATIC_DISCOVERY_RANGE="${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}"

unset ros2_pose_root
unset -f ros2_pose_join

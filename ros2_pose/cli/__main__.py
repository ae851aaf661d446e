"""Run the command as `python -m ros2_pose.cli`."""

import sys

from ros2_pose.cli import main

if __name__ == "__main__":
    sys.exit(main())

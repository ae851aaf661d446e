"""The command by `python -m ros2_pose.cli`."""

import sys

from ros2_pose.cli import main

sys.exit(main())

"""ROS is a coat: every module outside nodes/ and tools/ imports where ROS does not exist."""

import subprocess
import sys
from pathlib import Path

import ros2_pose

_BLOCKED = """
import importlib, pkgutil, sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('rclpy', 'rosidl_runtime_py', 'cv_bridge', 'tf2_ros') or \\
                name.split('.')[0].endswith('_msgs'):
            raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, NoRos())
import ros2_pose
names = [m.name for m in pkgutil.walk_packages(ros2_pose.__path__, 'ros2_pose.', onerror=print)
         if not m.name.startswith(('ros2_pose.nodes', 'ros2_pose.tools', 'ros2_pose.msg'))]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_core_imports_without_ros():
    root = str(Path(ros2_pose.__path__[0]).parent)
    done = subprocess.run([sys.executable, "-c", _BLOCKED], capture_output=True, text=True,
                          cwd=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 20


def test_no_module_but_the_nodes_mentions_rclpy():
    package = Path(ros2_pose.__path__[0])
    for path in package.rglob("*.py"):
        if not {"nodes", "tools"} & set(path.parts):
            assert "import rclpy" not in path.read_text(), path

"""Which part of the package may import which; docs/architecture.md explains it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "ros2_pose"

# A room (a folder, or a module at the top of the package) imports only rooms before it.
ORDER = [
    "errors", "runtime_env", "safe_pickle", "weights",
    "skeleton", "geometry", "camera", "boxes", "oks",
    "networks.registry",  # names only, so that config can list them
    "config", "people",
    "body", "draw",
    "imaging", "messages", "sync",
    "tracking", "networks",
    "pipeline", "multiview",
    "node_config", "offline", "nodes",
    "data", "metrics", "evaluation", "training", "assets",
    "tools", "cli",
]
RUN_TIME = {"nodes", "pipeline", "networks", "multiview", "offline"}  # networks: by registry
NOT_AT_RUN_TIME = {"data", "training", "evaluation", "assets", "metrics"}
WITH_ROS = {"nodes", "tools"}

_ROS = re.compile(r"(?:rclpy|launch|launch_ros|ament_\w+|rosidl_\w+|rosbag2_\w+|tf2_\w+|cv_bridge"
                  r"|bondpy|lifecycle_msgs|builtin_interfaces|\w+_msgs|ros2_pose\.msg)(?:\.|$)")


def _name(path: Path) -> str:
    """Dotted name of a module, without the package's."""
    parts = path.relative_to(_PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_name(path): path for path in _PACKAGE.rglob("*.py")}


def _room(name: str) -> str:
    """The longest name in ORDER that a module's name begins with; else its first part."""
    inside = [room for room in ORDER if f"{name}.".startswith(f"{room}.")]
    return max(inside, key=len, default=name.partition(".")[0])


def _imports(path: Path) -> list[str]:
    """Full names of everything that a module imports, also lazily; types alone do not count."""
    tree = ast.parse(path.read_text())
    for_types = {node for block in ast.walk(tree) if isinstance(block, ast.If)
                 and "TYPE_CHECKING" in ast.unparse(block.test) for node in ast.walk(block)}
    names = []
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write out the relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _module(imported: str) -> str | None:
    """The package's own module that an import reaches; None for other packages."""
    first, _, rest = imported.partition(".")
    if first != "ros2_pose":
        return None
    while rest not in _MODULES:
        rest = rest.rpartition(".")[0]
    return rest


_IMPORTS = {name: {module for imported in _imports(path) if (module := _module(imported))}
            for name, path in _MODULES.items()}


def test_every_room_has_its_position_in_the_order():
    rooms = {_room(name) for name in _MODULES if name}
    assert rooms <= set(ORDER), "new: give it a position in ORDER and in docs/architecture.md"
    assert len(ORDER) == len(set(ORDER))


def test_rooms_import_only_rooms_before_them():
    upward = [f"{name} imports {target}" for name, targets in _IMPORTS.items() for target in targets
              if ORDER.index(_room(target)) > ORDER.index(_room(name))]
    assert not upward, "\n".join(sorted(upward))


def test_the_page_gives_the_same_order():
    page = (_ROOT / "docs" / "architecture.md").read_text()
    block = re.search(r"^```text order\n(.*?)^```", page, re.M | re.S).group(1)
    assert [word.strip("`") for word in re.split(r"[\s,]+", block.strip())] == ORDER


def test_run_time_imports_nothing_of_training_and_evaluation():
    reached = {name for name in _IMPORTS if _room(name) in RUN_TIME}
    waiting = list(reached)
    while waiting:
        for target in _IMPORTS[waiting.pop()] - reached:
            reached.add(target)
            waiting.append(target)
    assert not NOT_AT_RUN_TIME & {_room(name) for name in reached}
    assert {"networks", "tracking", "body", "messages"} <= {_room(name) for name in reached}


def test_training_and_evaluation_do_not_import_each_other():
    for room, other in [("training", "evaluation"), ("evaluation", "training")]:
        crossing = [f"{name} imports {target}" for name in _IMPORTS
                    if _room(name) == room
                    for target in _IMPORTS[name] if _room(target) == other]
        assert not crossing, "\n".join(sorted(crossing))


def test_only_nodes_and_tools_import_ros():
    found = [f"{name} imports {imported}" for name, path in _MODULES.items()
             if _room(name) not in WITH_ROS for imported in _imports(path) if _ROS.match(imported)]
    assert not found, "\n".join(sorted(found))


_IMPORT_WITHOUT_ROS = """
import importlib, sys
class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('rclpy', 'rosidl_runtime_py', 'cv_bridge', 'tf2_ros', 'launch') \\
                or name.split('.')[0].endswith('_msgs'):
            raise ImportError(f'{name} is blocked')
sys.meta_path.insert(0, NoRos())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_the_rest_imports_where_ros_does_not_exist():
    names = [f"ros2_pose.{name}".rstrip(".") for name in _MODULES
             if _room(name) not in WITH_ROS and not name.endswith("__main__")]
    assert len(names) > 50
    done = subprocess.run([sys.executable, "-c", _IMPORT_WITHOUT_ROS, *names], capture_output=True,
                          text=True, cwd=_ROOT)
    assert done.returncode == 0, done.stderr

"""Checks of scripts/check_robot_install, run by the virtual environment that it made.

robot_check.py packages         what is imported is the system's
robot_check.py replay FOLDER    both engines, then ros2_pose replay, find people in pictures
robot_check.py node PROGRAM...  the node finds people in an image
robot_check.py link DIR         makes packages of a site-packages folder visible, in place of pip
"""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = ("numpy", "cv2", "scipy", "yaml", "tqdm")
PICTURES = 4
WAIT_S = 60.0


def packages() -> None:
    """Fail if a package of the distribution comes from the virtual environment."""
    for name in SYSTEM:
        module = importlib.import_module(name)
        print(f"  {name} {getattr(module, '__version__', '')} {module.__file__}")
        if not module.__file__.startswith("/usr/lib/python3/"):
            sys.exit(f"{name} is not the distribution's: {module.__file__}")


def replay(folder: Path) -> None:
    """Find people in real pictures, by each engine and by the command."""
    import cv2

    from ros2_pose.config import PoseConfig
    from ros2_pose.networks.heads import Heads
    from ros2_pose.networks.top_down import TopDown
    from ros2_pose.people import Frame
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    for number, picture in enumerate(_pictures()):
        cv2.imwrite(str(pictures / f"{number}.png"), picture)
    picture = cv2.imread(str(pictures / "0.png"))[..., ::-1].copy()
    for engine in ("torch", "auto"):
        network = TopDown(PoseConfig(engine=engine))
        found = len(network.detect([Frame(picture)])[0])
        heads = next(m for m in network.refiner.modules() if isinstance(m, Heads))
        runs = "torch" if heads.engine is None else "onnxruntime"
        print(f"  engine {engine} ({runs}): {found} people")
        if found < 2 or runs != ("torch" if engine == "torch" else "onnxruntime"):
            sys.exit(f"engine {engine} does not work")
    _replay_command(pictures, folder / "people.jsonl")


def _replay_command(pictures: Path, out: Path) -> None:
    command = [sys.executable, str(ROOT / "bin" / "ros2_pose"), "replay", str(pictures), str(out),
               "--fov-deg", "60"]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = out.read_text().splitlines() if out.exists() else []
    print(f"  ros2_pose replay: {len(lines)} images, status {done.returncode}")
    if done.returncode or len(lines) != PICTURES or not all(json.loads(x)["people"] for x in lines):
        sys.exit(done.stdout + done.stderr)


def _pictures():
    """Pictures (960, 544, 3) BGR of people."""
    import cv2

    from ros2_pose.weights import fetch
    video = cv2.VideoCapture(str(fetch("demo_cam02.mp4")))
    for _ in range(PICTURES):
        yield cv2.resize(video.read()[1], (544, 960), interpolation=cv2.INTER_AREA)


def node(command: list[str]) -> None:
    """Start the node, publish a picture until it answers with people, stop it."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    child = subprocess.Popen([*command, "--ros-args", "-p", "fov_deg:=60.0"],
                             start_new_session=True)
    try:
        people = _first_people(child)
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(20)
    print(f"  pose_node: {people} people in an image")


def _first_people(child: subprocess.Popen) -> int:
    import rclpy
    from ros2_pose.msg import People
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from ros2_pose.messages.image import image_message
    from ros2_pose.nodes.message_factory import make
    picture = next(_pictures())[..., ::-1].copy()
    rclpy.init()
    tester, counts = rclpy.create_node("robot_check"), [0]
    publisher = tester.create_publisher(Image, "image", 1)

    def heard(message) -> None:
        counts.append(len(message.people) if message.status == People.STATUS_OK else 0)
    tester.create_subscription(People, "/ros2_pose/people", heard, 1)
    until = time.monotonic() + WAIT_S
    while not max(counts) and child.poll() is None and time.monotonic() < until:
        header = Header(stamp=tester.get_clock().now().to_msg(), frame_id="camera")
        publisher.publish(image_message(make, header, picture))
        rclpy.spin_once(tester, timeout_sec=0.3)
    if not max(counts):
        sys.exit(f"no people within {WAIT_S:.0f} s; {len(counts) - 1} messages")
    return max(counts)


def link(site: Path) -> None:
    """Show pip and Python what the robot's requirements and ROS need from another folder."""
    seen: set[str] = set()
    for name in ("torch", "setuptools", *_names(ROOT / "requirements-robot.txt")):
        _closure(name, site, seen, deep=name == "torch")
    ros = {d.name for d in metadata.distributions(path=[str(site)]) if d.name.startswith("ros-")}
    # The environment's own setuptools is older than torch's and would come first.
    subprocess.run([sys.executable, "-m", "pip", "uninstall", "-qy", "setuptools"], check=True)
    folder = Path(sys.prefix) / "linked"
    folder.mkdir()
    for name in seen | ros:
        for file in _distribution(name, site).files or []:
            top = file.parts[0]
            if top != ".." and not top.endswith(".pth") and not (folder / top).exists():
                (folder / top).symlink_to(site / top)
    (Path(sysconfig.get_path("purelib")) / "linked.pth").write_text(f"{folder}\n")


def _names(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [re.split(r"[=<>]", line)[0] for line in lines if line]


def _closure(name: str, site: Path, seen: set[str], deep: bool) -> None:
    """Add a package and, if deep, what it needs and the folder has."""
    seen.add(name)
    for requirement in (_distribution(name, site).requires or []) if deep else []:
        other = re.split(r"[ ;<>=!~\[]", requirement)[0]
        conditional = ";" in requirement  # on another Python or machine
        if other not in seen and "extra ==" not in requirement and other not in SYSTEM \
                and not (conditional and _found(other, site) is None):
            _closure(other, site, seen, deep)


def _found(name: str, site: Path) -> metadata.Distribution | None:
    return next(iter(metadata.distributions(name=name, path=[str(site)])), None)


def _distribution(name: str, site: Path) -> metadata.Distribution:
    found = _found(name, site)
    if found is None:
        sys.exit(f"{site} has no {name}")
    return found


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    {"packages": packages, "replay": lambda: replay(Path(arguments[0])),
     "node": lambda: node(arguments), "link": lambda: link(Path(arguments[0]))}[what]()

"""For pip: the core and the ros2_pose command, no ROS. colcon builds from CMakeLists.txt."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name: str) -> list[str]:
    """The requirements of a file, without comments."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text().splitlines())
    return [line for line in lines if line]


setup(
    name="ros2_pose",
    version=ElementTree.parse(ROOT / "package.xml").findtext("version"),
    description="From camera images to tracked, metric, uncertainty-aware SMPL people",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ros2_pose", "ros2_pose.*"]),
    package_data={"ros2_pose": ["**/*.npz", "**/*.pt", "**/*.csv", "**/*.yaml", "**/*.onnx"]},
    install_requires=[*requirements("requirements.txt"), "torch>=2.1"],
    extras_require={"test": requirements("requirements-test.txt"), "smplx": ["smplx"],
                    "rerun": ["rerun-sdk>=0.23,<1"], "ray": ["ray>=2.9,<3"],
                    # For ros2_pose.evaluation: --plots, and the tracker that ours is compared with.
                    "plots": ["matplotlib>=3.7"], "evaluation": ["pycocotools", "trackers>=2.6"]},
    entry_points={"console_scripts": ["ros2_pose = ros2_pose.cli:main"]},
)

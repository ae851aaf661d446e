"""scripts/gpu_check: what it measures, that it ends in time, and that nothing finished is lost."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ros2_pose.config import PoseConfig
from ros2_pose.networks.registry import DETECTORS, NETWORKS, REFINERS
from ros2_pose.people import People
from ros2_pose.tools import gpu_check, gpu_measure

_SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check"


def _run(*arguments, **env):
    return subprocess.run([str(_SCRIPT), *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | {"PYTHON": sys.executable} | env)


def test_every_network_of_the_registry_is_compared():
    pytest.importorskip("transformers", reason="only where requirements.txt is installed")
    parity = {part.partition("/")[2] for part in gpu_check.parts(False) if "parity" in part}
    configs = [gpu_check.settings()[name] for name in parity]
    assert {config.network for config in configs} == set(NETWORKS)
    assert {config.refiner for config in configs} == set(REFINERS)
    assert set(DETECTORS) <= set(PoseConfig().finders)


def test_pictures_are_full_hd_with_people_who_move():
    pictures = gpu_measure.crowd((1920, 1080))
    assert len(pictures) >= 20
    assert all(p.shape == (1080, 1920, 3) and p.dtype == np.uint8 for p in pictures)
    assert all((a != b).mean() > 0.01 for a, b in zip(pictures, pictures[1:]))
    network = gpu_measure._network(PoseConfig())
    found = network.detect([gpu_measure.Frame(pictures[0])])[0]
    assert (found.scores >= gpu_measure._CLEAR).sum() == 10


class _Network:
    """Finds given people."""

    def __init__(self, people):
        self._people = people

    def detect(self, frames):
        return [self._people for _ in frames]


def _people(count, shift=(0.0, 0.0), factor=1.0, score=0.8):
    keypoints = np.arange(17)[None, :, None] * 5.0 + np.arange(count)[:, None, None] * 200
    keypoints = keypoints + np.zeros(2) + shift
    cov = np.tile(factor * np.diag([4.0, 9.0]), (count, 17, 1, 1))
    boxes = np.concatenate([keypoints.min(1), keypoints.max(1)], 1)
    return People(boxes, np.full(count, score), keypoints, cov, np.full((count, 17), 0.9))


@pytest.mark.parametrize("cpu, device, expected", [
    (_people(3), _people(3), (3, 0, 0.0, 0.0)),
    (_people(3), _people(3, shift=(3.0, -4.0)), (3, 0, 5.0, 0.0)),
    (_people(3), _people(3, factor=1.1), (3, 0, 0.0, 0.1)),
    (_people(3), _people(2), (3, 1, 0.0, 0.0)),
    (_people(2), _people(3), (2, 1, 0.0, 0.0)),
    (_people(2, score=0.21), _people(2, score=0.19), (2, 0, 0.0, 0.0)),  # about the threshold
    (_people(0), _people(1), (0, 1, None, None)),
    (_people(0), _people(0), (0, 0, None, None)),
])
def test_parity_is_measured_in_px_and_relative(monkeypatch, cpu, device, expected):
    monkeypatch.setattr(gpu_measure, "_network",
                        lambda config: _Network(cpu if config.engine == "torch" else device))
    monkeypatch.setattr(gpu_measure, "crowd", lambda size: [np.zeros((1080, 1920, 3))] * 40)
    row = gpu_measure.parity(PoseConfig(), (1920, 1080), 1)
    people, alone, far_px, far_cov = expected
    assert (row["people"], row["on one side alone"]) == (people, alone)
    for name, value in (("keypoints max, px", far_px), ("max", far_cov)):
        assert row[name] == pytest.approx(value, abs=1e-9) if value is not None \
            else np.isnan(row[name])


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
    """Take the place of Python: what its parts do is written as a shell script."""
    def put(script):
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return tmp_path / "out" / "card.json"
    return put


def test_a_part_that_hangs_or_crashes_costs_its_own_rows_alone(interpreter, monkeypatch):
    out = interpreter("""case "$*" in
      *parity/top_down*) echo '{"name": "a"}'; echo '{"cut of'; exec sleep 60 ;;
      *parity/movenet*) echo '{"name": "b"}'; echo 'CUDA error' >&2; exit 3 ;;
      *) echo '{"name": "c"}'; echo 'not JSON' ;; esac""")
    monkeypatch.setattr(gpu_check, "parts", lambda quick: {
        "parity/top_down": 4.0, "parity/movenet": 9.0, "batches/movenet": 9.0})
    begin_s = time.monotonic()
    results = gpu_check.check(out, "cpu", 60.0, True, [])
    assert time.monotonic() - begin_s < 10
    assert results["rows"] == {"parity/top_down": [{"name": "a"}],
                               "parity/movenet": [{"name": "b"}],
                               "batches/movenet": [{"name": "c"}]}
    assert results["missing"] == {"parity/top_down": "stopped after 4 s",
                                  "parity/movenet": "exit status 3: CUDA error"}
    assert json.loads(out.read_text()) == results


def test_it_ends_within_its_time_and_says_what_is_missing(interpreter):
    out = interpreter("""echo '{"name": "a"}'; exec sleep 60""")
    begin_s = time.monotonic()
    results = gpu_check.check(out, "cpu", 7.0, True, [])
    assert time.monotonic() - begin_s < 9
    first, *others = results["missing"].values()
    assert first.startswith(("stopped after 5", "stopped after 4"))
    assert set(others) == {"no time was left"}
    assert len(results["missing"]) == sum("half" not in part for part in gpu_check.parts(True))
    assert list(results["rows"]) == ["parity/top_down"]


def test_results_are_there_after_each_part(interpreter, tmp_path):
    """The second part reads what the first one left."""
    out = interpreter(f"""cat {tmp_path}/out/card.json >> {tmp_path}/seen 2>/dev/null
      echo '{{"name": "row of '$4'"}}'""")
    gpu_check.check(out, "cpu", 60.0, True, ["parity/top_down", "parity/movenet"])
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["rows"] == {"parity/top_down": [{"name": "row of parity/top_down"}]}


def test_the_script_tries_itself_out_on_a_cpu(tmp_path):
    out = tmp_path / "cpu.json"
    done = _run("--device", "cpu", "--quick", "--out", out, "--parts", "parity/movenet",
                OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr + done.stdout
    row, = json.loads(out.read_text())["rows"]["parity/movenet"]
    assert row["people"] >= 3 and row["on one side alone"] == 0
    assert 0 <= row["keypoints max, px"] < 0.1 and 0 <= row["max"] < 0.01
    assert "| movenet | " in done.stdout and str(out) in done.stdout


def test_the_table_has_every_row_and_what_is_missing():
    results = {"machine": {"card": "NVIDIA X", "torch": "2", "cuda": "13", "cpu cores": 4,
                           "commit": "abc"},
               "rows": {"parity/das": [{"name": "das", "people": 10, "keypoints max, px": 0.25}],
                        "batches/das": [{"name": "das", "cameras": 1, "pictures/s": 100.0},
                                        {"name": "das", "cameras": 16, "pictures/s": 900.0}]},
               "missing": {"frames/top_down": "stopped after 90 s"}}
    text = gpu_check.table(results)
    for line in ("| das | 10 | 0.25", "| das | 16 | 900 |", "| das | 1 | 100 |",
                 "frames/top_down: stopped after 90 s", "NVIDIA X, torch 2, CUDA 13"):
        assert line in text
    assert gpu_check.result_file("NVIDIA H200 (SXM)").name == "nvidia_h200_sxm.json"


def test_without_cuda_and_without_torch_it_says_so(tmp_path):
    import torch
    if not torch.cuda.is_available():
        done = _run("--out", tmp_path / "out.json")
        assert done.returncode == 2 and "finds no GPU" in done.stderr
        assert not (tmp_path / "out.json").exists()
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexec /usr/bin/env -u PYTHONPATH python3 -I -S \"$@\"\n")
    bare.chmod(0o755)
    done = _run(PYTHON=str(bare))
    assert done.returncode != 0 and "python lacks torch" in done.stderr
    assert "ROS2_POSE_CACHE" in _run("--help").stdout

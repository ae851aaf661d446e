"""scripts/gpu_train: what it says before it starts."""

import os
import subprocess
from pathlib import Path

_SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_train"


def _run(*arguments, **env):
    return subprocess.run([str(_SCRIPT), *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | env)


def test_without_arguments_it_says_what_it_needs():
    done = _run()
    assert done.returncode == 2
    assert "NETWORK PACK.zip OUT" in done.stdout and "ROS2_POSE_CACHE" in done.stdout
    assert "set -euo" not in done.stdout


def test_a_python_without_torch_is_named(tmp_path):
    """The interpreter of the system without its site packages has none of what is needed."""
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexec /usr/bin/env -u PYTHONPATH python3 -I -S \"$@\"\n")
    bare.chmod(0o755)
    done = _run("tian", tmp_path / "no.zip", tmp_path / "out", PYTHON=str(bare))
    assert done.returncode != 0
    assert "python lacks torch" in done.stderr and "PYTHON" in done.stderr

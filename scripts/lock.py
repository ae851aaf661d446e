"""Write constraints.txt: versions of all packages that `make build` installs, except torch.

requirements-robot.txt gets the same versions. `make lock` runs this with the oldest supported
Python, so that one list is valid for all.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ("requirements.txt", "requirements-test.txt", "requirements-ros.txt")
SHARED = {"setuptools", "typing_extensions"}  # torch needs them, and others do
BY_PYTHON = {"backports.strenum"}  # no version of it serves every Python
HEADER = """\
# Every package that `make build` installs, except torch and what torch alone needs.
# Made by `make lock` with Python 3.10; the same versions exist for 3.11 and 3.12.
"""


def resolve(requirements: list[str]) -> dict[str, str]:
    """Return the versions by package name that pip would install for the given arguments."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run",
               "--ignore-installed", "--report", "-", *requirements]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    found = (entry["metadata"] for entry in report["install"])
    return {entry["name"].lower(): entry["version"] for entry in found}


def with_versions(text: str, versions: dict[str, str]) -> str:
    """Return the text of a requirements file with its pins (name==version) replaced."""
    return re.sub(r"^([\w.-]+)==[^\s#]+", lambda pin: f"{pin[1]}=={versions[pin[1].lower()]}", text,
                  flags=re.M)


def main() -> None:
    """Resolve all requirements, leave out the packages of torch, and write both files."""
    files = [word for name in REQUIREMENTS for word in ("-r", str(ROOT / name))]
    locked = resolve([*sys.argv[1:], *files])
    for name in resolve(sys.argv[1:]).keys() - SHARED | BY_PYTHON:
        locked.pop(name, None)
    lines = [f"{name}=={version}\n" for name, version in sorted(locked.items())]
    (ROOT / "constraints.txt").write_text(HEADER + "".join(lines))
    robot = ROOT / "requirements-robot.txt"
    robot.write_text(with_versions(robot.read_text(), locked))
    print(f"constraints.txt: {len(lines)} packages")


if __name__ == "__main__":
    main()

"""Replace paths below /opt/python in the CMake files of this environment's ROS wheels.

The wheels export include folders of the machine that built them, at which CMake stops. This script
replaces them by the folders of the running Python. Run it after each installation; running it again
changes nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

_NUMPY = re.compile(r"/opt/python/[^/;\"]+/lib/[^;\"]*/numpy/[^;\"]*include")
_PYTHON = re.compile(r"/opt/python/[^/;\"]+/include/[^;\"]*")
_PREFIX = re.compile(r"/opt/python/[^/;\"\s]+")


def fixed(text: str) -> str:
    """Return the text with the paths of this environment."""
    text = _NUMPY.sub(np.get_include(), text)
    text = _PYTHON.sub(sysconfig.get_path("include"), text)
    return _PREFIX.sub(sys.prefix, text)


def main() -> None:
    """Fix every CMake file and every prefix marker."""
    share = Path(sys.prefix, "share")
    markers = share / "ament_index" / "resource_index" / "parent_prefix_path"
    files = [*share.glob("*/cmake/*.cmake"), *markers.glob("*")]
    texts = {path: path.read_text() for path in files}
    wrong = [path for path, text in texts.items() if "/opt/python/" in text]
    for path in wrong:
        path.write_text(fixed(texts[path]))
    print(f"{len(wrong)} of {len(files)} files of the ROS wheels named a Python that is not here")


if __name__ == "__main__":
    main()

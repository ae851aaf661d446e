"""Make the ROS wheels of this environment usable for building: their CMake files name /opt/python.

Their exports hold include folders of the machine that made the wheels; CMake stops at those. They
become this Python's. Can be run again and again; must be after an installation.
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
    """The text with this environment's paths."""
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

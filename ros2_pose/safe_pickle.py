"""Arrays out of other people's pickles, which could run any code: only numbers and text are let in.

Lists, dicts, strings and numbers need no name in a pickle; what does, and is not numpy's array,
type or scalar, is refused before anything is called.
"""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path

import numpy as np

from ros2_pose.errors import PoseError

# numpy 1 and 2 keep these functions under different names, and a file may name either.
_NUMPY = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64().__reduce__()[0]}
_ALLOWED = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): codecs.encode,
            **{(f"numpy.{core}.multiarray", name): function
               for core in ("core", "_core") for name, function in _NUMPY.items()}}


class PickleError(PoseError):
    """A pickle that is damaged or asks for code; the message says which."""


class ArrayUnpickler(pickle.Unpickler):
    """Lets numpy's arrays in and raises PickleError for all else that has a name."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ALLOWED:
            raise PickleError(f"it asks for {module}.{name}, which is not allowed")
        return _ALLOWED[module, name]


def read_arrays(path: str | Path):
    """What a pickle of plain objects and numpy arrays holds; Python 2's strings are Latin-1.

    Raises PickleError, naming the file, for a damaged pickle or one that holds anything else.
    """
    try:
        with open(path, "rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except PickleError as error:
        raise PickleError(f"{path}: {error}: take the unmodified file") from None
    except Exception as error:  # a broken pickle can raise anything
        raise PickleError(f"{path}: not a readable pickle ({type(error).__name__}: {error}): "
                          "download it again") from None

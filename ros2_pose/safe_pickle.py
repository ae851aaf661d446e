"""Safe reading of pickled arrays: a pickle of unknown origin could run any code.

Lists, dicts, strings and numbers are stored in a pickle without naming a Python object. Of the
objects named by a pickle, only numpy's array, dtype and scalar are allowed; every other one is
refused before it is called.
"""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path

import numpy as np

from ros2_pose.errors import PoseError

# numpy 1 and 2 have these functions in different modules, and a file may name either.
_NUMPY = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.float64().__reduce__()[0]}
_ALLOWED = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): codecs.encode,
            **{(f"numpy.{core}.multiarray", name): function
               for core in ("core", "_core") for name, function in _NUMPY.items()}}


class PickleError(PoseError):
    """A pickle is damaged or names an object that is not allowed."""


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler that allows numpy arrays and raises PickleError for every other named object."""

    def find_class(self, module: str, name: str):
        """Return the object that a pickle names, if it is allowed."""
        if (module, name) not in _ALLOWED:
            raise PickleError(f"it asks for {module}.{name}, which is not allowed")
        return _ALLOWED[module, name]


def read_arrays(path: str | Path):
    """Return the content of a pickle of plain objects and numpy arrays of any shape.

    Strings of Python 2 are decoded as Latin-1.

    Raises:
        PickleError: with the file's name, for a damaged pickle or one with other objects.
    """
    try:
        with open(path, "rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except PickleError as error:
        raise PickleError(f"{path}: {error}: take the unmodified file") from None
    except Exception as error:  # a broken pickle can raise anything
        raise PickleError(f"{path}: not a readable pickle ({type(error).__name__}: {error}): "
                          "download it again") from None

"""Read the first subgraph of a TensorFlow Lite file: tensors, operators and their options.

The file is a FlatBuffer, read here without the packages tflite and flatbuffers: a table begins with
the distance back to its vtable, which holds the offset of each field, 0 for a field that is absent
and has its default. All numbers are little-endian.

Source: flatbuffers.dev/internals; field numbers from tensorflow/lite/schema/schema.fbs.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.networks.graph import GraphError

_OPERATORS = {0: "ADD", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 14: "LOGISTIC",
              18: "MUL", 19: "RELU", 21: "RELU6", 23: "RESIZE_BILINEAR", 41: "SUB", 42: "DIV",
              53: "CAST"}
_DTYPES = {0: "<f4", 1: "<f2", 2: "<i4"}
Tensor = tuple[str, "np.ndarray | None"]  # name; value of a constant
_DAMAGED = (struct.error, IndexError, ValueError, OverflowError)


class Table:
    """A FlatBuffer table. Fields are addressed by their number in the schema."""

    def __init__(self, data: bytes, position: int):
        """Locate the table at a byte position and its vtable."""
        self._data, self._position = data, position
        self._vtable = position - self._unpack("i", position)
        self._fields = (self._unpack("H", self._vtable) - 4) // 2

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a scalar of a struct format such as `b` (int8), `i` (int32), `I` (uint32)."""
        position = self._find(field)
        return default if position is None else self._unpack(kind, position)

    def table(self, field: int) -> Table | None:
        """Return a table, or the content of a union; None if absent."""
        position = self._find(field)
        return None if position is None else Table(self._data, self._follow(position))

    def tables(self, field: int) -> list[Table]:
        """Return a vector of tables."""
        start, count = self._vector(field, 4)
        return [Table(self._data, self._follow(start + 4 * i)) for i in range(count)]

    def ints(self, field: int) -> list[int]:
        """Return a vector of int32."""
        start, count = self._vector(field, 4)
        return list(struct.unpack_from(f"<{count}i", self._data, start))

    def bytes(self, field: int) -> bytes:
        """Return a vector of bytes, or a string."""
        start, count = self._vector(field, 1)
        return self._data[start:start + count]

    def _find(self, field: int) -> int | None:
        offset = self._unpack("H", self._vtable + 4 + 2 * field) if field < self._fields else 0
        return self._position + offset if offset else None

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Return the position of the first element and their number; (0, 0) if absent."""
        position = self._find(field)
        if position is None:
            return 0, 0
        start = self._follow(position)
        count = self._unpack("I", start)
        if start + 4 + size * count > len(self._data):
            raise IndexError("a vector reaches beyond the end")
        return start + 4, count

    def _follow(self, position: int) -> int:
        return position + self._unpack("I", position)

    def _unpack(self, kind: str, position: int) -> int:
        if position < 0:  # struct would count from the end
            raise IndexError("a position lies before the file")
        return struct.unpack_from(f"<{kind}", self._data, position)[0]


class Operator(NamedTuple):
    """An operator; `kind` is its builtin name, "number N" for one that is not covered."""

    kind: str
    inputs: list[int]  # indices of tensors, -1 for an optional one that is absent
    outputs: list[int]  # indices of tensors
    options: Table | None


def read_tflite(path: str | Path) -> tuple[list[Tensor], list[Operator], list[int]]:
    """Read a file.

    Returns:
        Name of each tensor, with its value if it is a constant of a known type, else None;
        operators in the order of their execution; indices of the input tensors.
    Raises:
        GraphError: the file is not TensorFlow Lite or is damaged.
    """
    data = Path(path).read_bytes()
    if data[4:8] != b"TFL3":
        raise GraphError(f"{path} is not a TensorFlow Lite file (no TFL3 mark)")
    try:
        return _read_model(Table(data, struct.unpack_from("<I", data)[0]))
    except _DAMAGED as error:
        raise GraphError(f"{path} is damaged ({error}): delete it and fetch it again") from error


def _read_model(model: Table) -> tuple[list[Tensor], list[Operator], list[int]]:
    kinds = [_kind(code) for code in model.tables(1)]
    buffers = [buffer.bytes(0) for buffer in model.tables(4)]
    graph = model.tables(2)[0]
    tensors = [_tensor(entry, buffers) for entry in graph.tables(0)]
    operators = [Operator(kinds[op.number(0, "I")], op.ints(1), op.ints(2), op.table(4))
                 for op in graph.tables(3)]
    return tensors, operators, graph.ints(1)


def _kind(code: Table) -> str:
    """Return the operator's name; files older than schema 3a have its number in field 0 alone."""
    number = max(code.number(0, "b"), code.number(3, "i"))
    return _OPERATORS.get(number, f"number {number}")


def _tensor(entry: Table, buffers: list[bytes]) -> Tensor:
    name, kind = entry.bytes(3).decode(), entry.number(1, "b")
    data = buffers[entry.number(2, "I")]
    if not data or kind not in _DTYPES:
        return name, None
    return name, np.frombuffer(data, _DTYPES[kind]).reshape(entry.ints(0))

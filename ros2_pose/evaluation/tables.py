"""The row type of all benchmarks, and the one writer of Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

_MOST_COLUMNS = 12  # a table with more metrics has a line for each metric instead
_BIG = 1000  # from here on the integer part alone is printed


class Row(NamedTuple):
    """What one benchmark measured of one method or setting.

    values: numbers by "metric, unit"; NaN: not measured. A text such as "3 of 4" is printed as it
    is. Without values the protocol says why nothing was measured.
    """

    name: str
    protocol: str  # data, sample size and definition of the metrics
    values: Mapping[str, float | str] = {}
    target: str = ""  # the value aimed at, with unit


def tables(rows: Iterable[Row]) -> str:
    """Write rows as Markdown: one table below each protocol, one line for each row without values.

    Successive rows with the same protocol and metrics share a table.
    """
    parts = []
    for (protocol, metrics), group in groupby(rows, key=lambda row: (row.protocol, [*row.values])):
        some = list(group)
        if metrics:
            parts.append(f"{protocol}\n\n{_table(some, metrics)}")
        else:
            parts += [f"{row.name}: {row.protocol}" for row in some]
    return "\n\n".join(parts)


def _table(rows: list[Row], metrics: list[str]) -> str:
    head = ["", *metrics]
    lines = [[row.name, *(_cell(row.values[metric]) for metric in metrics)] for row in rows]
    if any(row.target for row in rows):
        head = [*head, "target"]
        lines = [[*line, row.target] for line, row in zip(lines, rows)]
    if len(metrics) > _MOST_COLUMNS:
        head, *lines = [list(column) for column in zip(head, *lines)]
    return _markdown(head, lines)


def _markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def _cell(value: float | str) -> str:
    """A text or a whole number as it is, another number with three significant digits, NaN: -."""
    if isinstance(value, (str, int)):
        return str(value)
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= _BIG else f"{value:#.3g}".rstrip(".")

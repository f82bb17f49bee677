"""Figures with their limits, the table that shows them, and the arithmetic behind them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import NamedTuple

HEADINGS = "| row | what | figure | limit | verdict |\n|---|---|---|---|---|"


class Figure(NamedTuple):
    """Hold one measured number and the limits that it has to keep.

    Attributes:
        what: what was measured.
        value: the number.
        unit: what it counts; empty where ``what`` says so.
        least, most: the limits, both included; infinite where there is none.
    """

    what: str
    value: float
    unit: str = ""
    least: float = -inf
    most: float = inf

    @property
    def is_met(self) -> bool:
        """Tell whether the number keeps its limits; what is no number keeps none."""
        return self.least <= self.value <= self.most

    @property
    def limit(self) -> str:
        """The limits in words; empty where there are none."""
        if self.least == self.most:
            return f"= {show(self.most, self.unit)}"
        if self.least == -inf:
            return "" if self.most == inf else f"<= {show(self.most, self.unit)}"
        if self.most == inf:
            return f">= {show(self.least, self.unit)}"
        return f"{show(self.least)} to {show(self.most, self.unit)}"

    @property
    def verdict(self) -> str:
        """One word; empty where there is no limit."""
        if not self.is_met:
            return "MISSED"
        return "ok" if self.limit else ""


def exactly(what: str, value: float, wanted: float, unit: str = "") -> Figure:
    """Return a figure that has to be one number."""
    return Figure(what, value, unit, wanted, wanted)


def line(row: str, figure: Figure) -> str:
    """Return the line of the table for one figure."""
    shown = show(figure.value, figure.unit)
    return f"| {row} | {figure.what} | {shown} | {figure.limit} | {figure.verdict} |"


def show(value: float, unit: str = "") -> str:
    """Return a number as it stands in the table."""
    if float(value).is_integer():
        text = f"{int(value):,}"
    else:
        text = f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3f}"
    return f"{text} {unit}".rstrip()


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the values do not exceed, by nearest rank.

    Args:
        values: in any order.
        share: 0 to 1.

    Returns:
        Infinity when there are no values: what was never measured keeps no limit.
    """
    if not values:
        return inf
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much y grows with x, by least squares; 0 for fewer than two places on x."""
    if not points:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if not spread:
        return 0.0
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread

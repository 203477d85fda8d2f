"""How a count grows: by its increments, which a constant part does not disturb.

From one size to the next the increments of a + b*n^e grow by (size ratio)^e, whatever a is. The
median of e over the sizes decides. A count that never grows by half of where it began is O(1): what
does not show within the sizes looked at is not called growth.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log
from statistics import median


def growth(sizes: Sequence[int], values: Sequence[int], symbol: str) -> str:
    """`O(1)`, `O(log n)`, `O(n)` or `O(n^e)`, with the axis's symbol for n."""
    constant = 1.5
    if max(values) <= constant * max(min(values), 1) or len(values) < 3:
        return "O(1)"
    if values[-1] < values[0]:
        return "O(1)"  # it shrinks
    e = exponent(sizes, values)
    linear = (0.7, 1.3)
    if e < linear[0]:
        return f"O(log {symbol})"
    if e <= linear[1]:
        return f"O({symbol})"
    return f"O({symbol}^{e:.1f})"


def exponent(sizes: Sequence[int], values: Sequence[int]) -> float:
    """The median over the sizes; of neighbours that do not grow there is nothing to learn."""
    found = []
    steps = [(*n, *v) for n, v in zip(pairwise(sizes), pairwise(values), strict=True)]
    for (n0, n1, a0, a1), (_, _, b0, b1) in pairwise(steps):
        if a1 > a0 and b1 > b0:
            found.append(log((b1 - b0) / (a1 - a0)) / log(n1 / n0))
    return median(found) if found else 0.0

"""Functions that other processes call."""

from __future__ import annotations

import os


def square(n: int) -> int:
    return n * n


def refuse(n: int) -> int:
    if n == 3:
        raise LookupError(f"no {n}")
    return n


def die(n: int) -> int:
    if n == 3:
        os._exit(1)
    return n

"""What other processes do."""

from __future__ import annotations

import os
from typing import NamedTuple

from vkemu.workers.calls import Answer
from vkemu.workers.job import Kept


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


class Waiting(NamedTuple):
    """For nothing but to be recalled."""

    number: int

    def perform(self, kept: Kept) -> Answer:
        while not kept.recalled():
            pass
        return Answer(self.number)

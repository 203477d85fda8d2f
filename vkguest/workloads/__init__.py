"""Named guest programs. Each computes what its memory must hold and checks every word it reads, but
for `wild`, which is judged from outside.

`workload("touch:pages=4,rounds=2")` gives the Program. Values depend on the process (its pid), the
page and the round, so a word of another process, another page or an older round is told apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Final

from vkguest.kern.kern_exec import Program
from vkguest.workloads.drawn import drawn
from vkguest.workloads.kernel import pipe, poke
from vkguest.workloads.memory import hog, large, largetop, mmapper, sparse, touch
from vkguest.workloads.mixed import mixed
from vkguest.workloads.process import execs, forkcow, idle, killer, snapshot, threads
from vkguest.workloads.refused import refused
from vkguest.workloads.wild import wild

WORKLOADS: Final[dict[str, Callable[..., Program]]] = {
    "touch": touch,
    "hog": hog,
    "forkcow": forkcow,
    "mmapper": mmapper,
    "exec": execs,
    "idle": idle,
    "threads": threads,
    "snapshot": snapshot,
    "sparse": sparse,
    "poke": poke,
    "pipe": pipe,
    "killer": killer,
    "large": large,
    "largetop": largetop,
    "refused": refused,
    "mixed": mixed,
    "random": drawn,
    "wild": wild,
}


def workload(spec: str) -> Program:
    """The Program of `name` or `name:parameter=number,...`; ValueError says what is wrong."""
    name, colon, rest = spec.partition(":")
    make = WORKLOADS.get(name)
    if make is None:
        raise ValueError(f"no workload {name!r}, expected one of {', '.join(WORKLOADS)}")
    known = inspect.signature(make).parameters
    values: dict[str, int] = {}
    for pair in rest.split(",") if colon else ():
        key, _, number = pair.partition("=")
        if key not in known:
            there = ", ".join(known)
            raise ValueError(f"workload {name}: no parameter {key!r}, expected {there}")
        if key in values:
            raise ValueError(f"workload {name}: {key} is there twice, expected once")
        # A text is at most 4096 instructions.
        most = (1 << 63) - 1 if key == "seed" else 10_000
        digits = number.isascii() and number.isdecimal() and len(number) <= len(str(most))
        if not digits or int(number) > most:
            what = f"{number[:40]!r}, expected a number up to {most}"
            raise ValueError(f"workload {name}: {key} is {what}")
        values[key] = int(number)
    return make(**values)

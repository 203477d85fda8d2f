"""The schedule of an ordinary run, from its seed alone: one of three characters, drawn first.

* uniform: every runnable thread equally likely at every step. Good at races of a few steps.
* bursts: the same thread goes on for a while. A thread is overtaken by a whole system call.
* priorities: the highest priority runs, and now and then loses it for good (PCT, Burckhardt et al.
  2010, with change points at random distances instead of a given number in a known length). A
  thread is held at one point while everybody else goes on.

No one of them finds what the others do (swarm testing, Groce et al. 2012), so seeds are divided
among them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from vkemu.executors.controlled import Choose


def seeded(seed: int) -> Choose:
    random = Random(seed)
    return random.choice(CHARACTERS)(random)


def between(random: Random, bounds: tuple[int, int]) -> float:
    """Drawn so that every order of magnitude is as likely."""
    least, most = bounds
    return float(least * (most / least) ** random.random())


def uniform(random: Random) -> Choose:
    draw = random.random
    return lambda runnable: runnable[int(draw() * len(runnable))]


def bursts(random: Random) -> Choose:
    draw = random.random
    burst_steps = (3, 60)  # mean length, drawn between these
    stay = 1 - 1 / between(random, burst_steps)
    last = -1

    def choose(runnable: list[int]) -> int:
        nonlocal last
        if last not in runnable or draw() > stay:
            last = runnable[int(draw() * len(runnable))]
        return last

    return choose


def priorities(random: Random) -> Choose:
    change_steps = (20, 600)  # mean distance between losses of priority
    rate = 1 / between(random, change_steps)
    priority: dict[int, float] = {}
    lowest = 0.0
    left = random.expovariate(rate)

    def choose(runnable: list[int]) -> int:
        nonlocal lowest, left
        for tid in runnable:
            if tid not in priority:
                priority[tid] = random.random()
        first = max(runnable, key=priority.__getitem__)
        left -= 1
        if left <= 0:
            left = random.expovariate(rate)
            lowest -= 1
            priority[first] = lowest
        return first

    return choose


CHARACTERS: tuple[Callable[[Random], Choose], ...] = (uniform, bursts, priorities)

"""The strategies by name. Each is imported when it is asked for."""

from __future__ import annotations

from typing import Any

from vkemu.exploration.footprint import Objects
from vkemu.exploration.result import ExplorationError

NAMES = ("random", "dfs", "dpor")


def strategy_named(name: str, seed: int, objects: Objects) -> Any:
    if name == "dpor":
        from vkemu.exploration.dpor import Dpor

        return Dpor(objects)
    if name == "dfs":
        from vkemu.exploration.dfs import Dfs

        return Dfs()
    if name == "random":
        from vkemu.exploration.random_walk import RandomWalk

        return RandomWalk(seed)
    raise ExplorationError(f"no strategy {name!r}: expected one of {', '.join(NAMES)}")
